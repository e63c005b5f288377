from pathlib import Path

import pytest

from sie_server.settings import Settings, meaningless, read, usable_cores, variables


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = read({"HOSTNAME": "h"})
    assert (settings.port, settings.device, settings.bundle, settings.models) == (8080, "auto", "default", ())
    assert (settings.name, settings.machine_profile, settings.pool) == ("h", "", "")
    assert settings.models_dir == Settings().models_dir
    assert settings.cores >= 1


def test_every_variable_is_read() -> None:
    env = {
        "POD_NAME": "pod",
        "HOSTNAME": "host",
        "SIE_DEVICE": "CPU",
        "SIE_MODELS_DIR": "/m",
        "SIE_BUNDLE": "Default",
        "SIE_MODEL_FILTER": "a/b, c",
        "SIE_LOG_JSON": "yes",
        "SIE_TORCH_NUM_THREADS": "3",
        "SIE_DRAIN_GRACE_S": "1.5",
    }
    settings = read(env)
    assert (settings.name, settings.device, settings.models_dir) == ("pod", "cpu", Path("/m"))
    assert (settings.bundle, settings.models, settings.json_logs) == ("default", ("a/b", "c"), True)
    assert (settings.cores, settings.drain_grace_s) == (3, 1.5)


def test_the_caches_are_read_from_the_environment_and_stand_beside_the_hub_s_own() -> None:
    env = {
        "SIE_CLUSTER_CACHE": "gs://bucket/models",
        "SIE_CLUSTER_CACHE_WRITE": "true",
        "SIE_HF_FALLBACK": "false",
        "SIE_DISK_CACHE_ENABLED": "no",
        "SIE_DISK_PRESSURE_THRESHOLD_PERCENT": "70",
        "SIE_CACHE_MAX_BYTES": "1000",
        "HF_HOME": "/models/huggingface",
        "HF_TOKEN": "hf_secret",
    }
    settings = read(env)
    assert (settings.cluster_cache, settings.cluster_cache_write) == ("gs://bucket/models", True)
    assert (settings.hf_fallback, settings.evict_from_disk) == (False, False)
    assert (settings.disk_pressure_percent, settings.cache_max_bytes) == (70.0, 1000)
    assert settings.local_cache == Path("/models/huggingface/sie")
    assert read({**env, "SIE_LOCAL_CACHE": "/m"}).local_cache == Path("/m")
    assert settings.hf_token == "hf_secret"  # noqa: S105 - of this test
    assert "hf_secret" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SIE_DEVICE", "tpu"),
        ("SIE_TORCH_NUM_THREADS", "0"),
        ("SIE_MAX_BATCH_REQUESTS", "many"),
        ("SIE_LOG_JSON", "perhaps"),
        ("SIE_DRAIN_GRACE_S", "-1"),
        ("SIE_QUEUE_TIMEOUT_S", "nan"),
        ("SIE_QUEUE_TIMEOUT_S", "0"),
        ("SIE_SELF_TEST_TIMEOUT_S", "0"),
        ("SIE_DISK_PRESSURE_THRESHOLD_PERCENT", "nan"),
        ("SIE_DISK_PRESSURE_THRESHOLD_PERCENT", "101"),
    ],
)
def test_a_value_that_cannot_be_read_is_named(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is '{value}'"):
        read({name: value})


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu.max": "nonsense"}, None),
        ({}, None),
    ],
)
def test_the_cpu_limit_of_a_container_counts_in_both_versions_of_control_groups(
    tmp_path: Path, files: dict[str, str], expected: int | None
) -> None:
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    unlimited = usable_cores(tmp_path / "elsewhere")
    assert usable_cores(tmp_path) == (unlimited if expected is None else expected)


def test_a_variable_that_is_almost_one_of_ours_is_told_and_what_others_read_is_not() -> None:
    env = dict.fromkeys(("SIE_MAX_QUEUE_ITEM", "SIE_PRELOAD", "SIE_ROUTER_LOG_LEVEL", "SIE_API_KEY", "SIE_PORT"), "1")
    assert meaningless(env) == {"SIE_MAX_QUEUE_ITEM": "did you mean SIE_MAX_QUEUE_ITEMS?"}
    assert meaningless(dict.fromkeys(variables(), "1")) == {}


def test_a_variable_of_another_server_of_these_models_is_answered_with_what_does_its_work_here() -> None:
    advice = meaningless(
        {"SIE_ADAPTIVE_BATCHING__MAX_WAIT_MS": "5", "SIE_MAX_ITEM_TEXT_BYTES": "9", "SIE_WHATEVER": ""}
    )
    assert set(advice) == {"SIE_ADAPTIVE_BATCHING__MAX_WAIT_MS", "SIE_MAX_ITEM_TEXT_BYTES"}
    assert "SIE_MAX_ITEM_TEXT_CHARS" in advice["SIE_MAX_ITEM_TEXT_BYTES"]
    assert read({"SIE_MAX_CONCURRENT_REQUESTS": "7"}).max_queue_items == 7
    assert read({"SIE_MAX_CONCURRENT_REQUESTS": "7", "SIE_MAX_QUEUE_ITEMS": "8"}).max_queue_items == 8
