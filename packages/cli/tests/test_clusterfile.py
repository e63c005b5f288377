import pytest

from sie_cli import clusterfile
from sie_cli.clusterfile import Pool, decode, pools


def message(text: str) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the callers look at the text
        decode(text.encode())
    return str(caught.value)


def test_the_packaged_file_has_the_documented_pools_all_empty_at_first() -> None:
    file = decode(clusterfile.default_text())
    assert [pool.name for pool in pools(file)] == ["cpu", "l4", "a100-40gb", "a100-80gb"]
    assert {(pool.bundle, pool.min_replicas) for pool in pools(file)} == {("default", 0)}
    assert file.router.port == 8080
    scaling = file.autoscaling
    assert (scaling.polling_interval, scaling.cooldown_period, scaling.scale_down_stabilization) == (1, 60, 30)


def test_what_a_file_does_not_say_is_as_in_the_chart() -> None:
    scaling = decode(b"workers: {pools: {l4: {}}}").autoscaling
    assert (scaling.polling_interval, scaling.cooldown_period, scaling.scale_down_stabilization) == (15, 900, 300)
    assert (scaling.queue_depth_threshold, scaling.queue_depth_activation, scaling.fallback_replicas) == (10, 2, 2)


def test_a_pool_takes_its_name_as_profile_and_the_common_bundle() -> None:
    file = decode(b"workers: {common: {bundle: big}, pools: {l4: {}, spot: {machineProfile: l4, bundle: other}}}")
    assert pools(file) == (Pool("l4", "l4", "big", 0, 2), Pool("spot", "l4", "other", 0, 2))


def test_a_disabled_pool_is_not_there() -> None:
    assert [pool.name for pool in pools(decode(b"workers: {pools: {a: {}, b: {enabled: false}}}"))] == ["a"]


@pytest.mark.parametrize(
    ("text", "key", "near"),
    [
        ("rooter: {}", "rooter", "router"),
        ("autoscaling: {coolDown: 3}", "autoscaling.coolDown", "cooldownPeriod"),
        ("workers: {pools: {l4: {max_replicas: 3}}}", "workers.pools.l4.max_replicas", "maxReplicas"),
        ("workers: {common: {bundel: x}}", "workers.common.bundel", "bundle"),
        ("workers: {pools: {l4: {1: 3}}}", "workers.pools.l4.1", ""),
    ],
)
def test_an_unknown_key_is_refused_with_its_path_and_the_nearest_known_one(text: str, key: str, near: str) -> None:
    assert message(text).startswith(f"unknown key '{key}'; did you mean '{near}")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1, 2]", "expected a mapping with router, workers, autoscaling"),
        ("a: {", "not YAML"),
        ("", "enables no pool"),
        ("workers: {pools: {l4: {enabled: false}}}", "enables no pool"),
        ("workers: {pools: {l4: {minReplicas: 3}}}", "minReplicas 3 above maxReplicas 2"),
        (
            "workers: {pools: {l4: {minReplicas: many}}}",
            "minReplicas' is a string; expected a whole number",
        ),
        ("workers: {pools: {l4: 3}}", "something in 'workers.pools' is a whole number; expected an object"),
        ("workers: 3", "'workers' is a whole number; expected an object"),
        ("workers: {pools: {l4: {maxReplicas: 0}}}", ">= 1"),
        ("router: {port: 70000}", "<= 65535"),
        ("autoscaling: {pollingInterval: 0}", "> 0"),
        ("workers: {pools: {'my pool': {}}}", "pool 'my pool'"),
        ("workers: {pools: {a: {machineProfile: 'l4:x'}}}", "machineProfile 'l4:x'"),
        ("workers: {pools: {a: {machineProfile: l4}, l4: {}}}", "pools 'a' and 'l4' both serve profile 'l4'"),
    ],
)
def test_a_wrong_file_is_refused_with_a_message_that_says_where(text: str, says: str) -> None:
    assert says in message(text)
