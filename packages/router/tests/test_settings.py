from pathlib import Path

import pytest

from sie_router.core.fleet import Group
from sie_router.settings import AuthSettings, Exempt, Flags, Kubernetes, Settings, meaningless, read_settings


def test_nothing_said_means_the_defaults() -> None:
    assert read_settings(Flags(), {}) == Settings()


def test_flags_win_over_the_environment() -> None:
    environ = {
        "SIE_ROUTER_WORKERS": "http://a:1, http://b:2",
        "SIE_ROUTER_RETRY_AFTER_S": "5",
        "SIE_ROUTER_ESTIMATED_WAIT_S": "6",
        "SIE_ROUTER_GROUPS": "l4:default,a100",
        "SIE_LOG_JSON": "true",
        "SIE_LOG_LEVEL": "DEBUG",
    }
    read = read_settings(Flags(), environ)
    assert read.workers == ("http://a:1", "http://b:2")
    assert read.groups == (Group("l4", "default"), Group("a100", "default"))
    assert (read.retry_after_s, read.estimated_wait_s, read.json_logs, read.log_level) == (5, 6, True, "debug")
    flags = Flags(workers=("http://c:3/",), retry_after_s=1, groups=("x:y",), json_logs=False, log_level="info")
    won = read_settings(flags, environ)
    assert (won.workers, won.retry_after_s, won.groups) == (("http://c:3",), 1, (Group("x", "y"),))
    assert (won.json_logs, won.log_level) == (False, "info")


def test_kubernetes_is_described_by_flags_or_environment() -> None:
    assert read_settings(Flags(kubernetes=True), {}).kubernetes == Kubernetes()
    environ = {
        "SIE_ROUTER_KUBERNETES": "true",
        "SIE_ROUTER_K8S_NAMESPACE": "ml",
        "SIE_ROUTER_K8S_SERVICE": "l4, a100",
        "SIE_ROUTER_K8S_PORT": "http",
        "SIE_ROUTER_K8S_RELEASE": "r",
        "KUBECONFIG": "/k",
    }
    assert read_settings(Flags(), environ).kubernetes == Kubernetes("ml", ("l4", "a100"), "http", Path("/k"), "r")
    flags = Flags(k8s_namespace="x", k8s_services=("y",), k8s_port="1", kubeconfig=Path("/z"))
    assert read_settings(flags, environ).kubernetes == Kubernetes("x", ("y",), "1", Path("/z"), "r")
    assert read_settings(Flags(kubernetes=False), environ).kubernetes is None


def test_configured_profiles_get_the_default_bundle() -> None:
    assert read_settings(Flags(), {"SIE_ROUTER_CONFIGURED_GPUS": "l4,a100"}).groups == (
        Group("l4", "default"),
        Group("a100", "default"),
    )


def test_a_gpu_type_is_no_profile_where_profiles_are_described() -> None:
    environ = {"SIE_ROUTER_CONFIGURED_GPUS": "l4,l4-spot", "SIE_ROUTER_MACHINE_PROFILES": '{"l4-spot": {"spot": true}}'}
    assert read_settings(Flags(), environ).profiles == ("l4-spot",)


@pytest.mark.parametrize(
    ("flags", "environ", "named"),
    [
        (Flags(workers=("https://a",)), {}, "https://a"),
        (Flags(workers=("http://a:1/path",)), {}, "HOST:PORT"),
        (Flags(workers=("http://a:x",)), {}, "HOST:PORT"),
        (Flags(workers=("dns+https://a:1",)), {}, "dns"),
        (Flags(kubernetes=True, k8s_port="70000"), {}, "70000"),
        (Flags(kubernetes=True, k8s_services=("a b",)), {}, "a b"),
        (Flags(kubernetes=True, k8s_namespace="../x"), {}, "namespace"),
        (Flags(port=70000), {}, "70000"),
        (Flags(groups=(":default",)), {}, "PROFILE:BUNDLE"),
        (Flags(models_dir=Path("x")), {}, "go together"),
        (Flags(log_level="loud"), {}, "loud"),
        (Flags(retry_after_s=0), {}, "SIE_ROUTER_RETRY_AFTER_S"),
        (Flags(), {"SIE_ROUTER_RETRY_AFTER_S": "soon"}, "soon"),
        (Flags(), {"SIE_LOG_JSON": "perhaps"}, "perhaps"),
        (Flags(), {"SIE_ROUTER_MACHINE_PROFILES": "[]"}, "SIE_ROUTER_MACHINE_PROFILES"),
        (Flags(), {"SIE_ROUTER_REQUEST_TIMEOUT_S": "nan"}, "SIE_ROUTER_REQUEST_TIMEOUT_S"),
        (Flags(), {"SIE_AUTH_MODE": "statik", "SIE_AUTH_TOKENS": "a"}, "statik"),
        (Flags(), {"SIE_AUTH_MODE": "static"}, "without a token"),
        (Flags(), {"SIE_AUTH_MODE": "token", "SIE_AUTH_TOKENS": " , "}, "without a token"),
        (Flags(), {"SIE_AUTH_TOKEN": "a"}, "SIE_AUTH_MODE is not"),
        (Flags(), {"SIE_AUTH_MODE": "static", "SIE_AUTH_TOKENS": "a,b", "SIE_ADMIN_TOKEN": "b"}, "an admin"),
        (Flags(), {"SIE_AUTH_PROXY_SECRET": "s" * 16}, "SIE_AUTH_MODE is not"),
        (Flags(), {"SIE_AUTH_MODE": "static", "SIE_AUTH_PROXY_SECRET": "s" * 15}, "16 or more"),
        (Flags(), {"SIE_AUTH_MODE": "static", "SIE_AUTH_PROXY_SECRET": "s" * 16 + ":"}, "without ':'"),
        (
            Flags(),
            {"SIE_AUTH_MODE": "static", "SIE_AUTH_PROXY_SECRET": "s" * 16, "SIE_AUTH_TOKENS": "s" * 16},
            "name any user",
        ),
    ],
)
def test_what_cannot_be_used_is_named(flags: Flags, environ: dict[str, str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        read_settings(flags, environ)


def test_the_workers_of_one_token_are_bounded_where_that_is_said() -> None:
    assert read_settings(Flags(), {}).max_workers_per_owner is None
    said = read_settings(Flags(), {"SIE_ROUTER_MAX_WORKERS_PER_OWNER": "9", "SIE_ROUTER_MAX_POOLS_PER_OWNER": "3"})
    assert (said.max_workers_per_owner, said.max_pools_per_owner) == (9, 3)


@pytest.mark.parametrize("mode", ["static", "Token", " STATIC "])
def test_tokens_are_read_from_either_variable(mode: str) -> None:
    one = read_settings(Flags(), {"SIE_AUTH_MODE": mode, "SIE_AUTH_TOKEN": "a, b"}).auth
    assert one == AuthSettings(("a", "b"))
    environ = {"SIE_AUTH_MODE": mode, "SIE_AUTH_TOKENS": "c", "SIE_AUTH_TOKEN": "a", "SIE_ADMIN_TOKEN": "root"}
    both = read_settings(Flags(), environ | {"SIE_AUTH_EXEMPT_OPERATIONAL": "true"}).auth
    assert both == AuthSettings(("c",), "root", Exempt.OPERATIONAL)
    for said in ("metrics", "Metrics"):
        some = read_settings(Flags(), environ | {"SIE_AUTH_EXEMPT_OPERATIONAL": said}).auth
        assert some == AuthSettings(("c",), "root", Exempt.METRICS)


def test_a_proxy_that_names_users_needs_no_tokens_beside_it() -> None:
    environ = {"SIE_AUTH_MODE": "static", "SIE_AUTH_PROXY_SECRET": "s" * 16}
    assert read_settings(Flags(), environ).auth == AuthSettings(proxy_secret="s" * 16)


def test_an_open_router_ignores_tokens_only_where_that_is_said() -> None:
    assert read_settings(Flags(), {"SIE_AUTH_MODE": "none", "SIE_AUTH_TOKEN": "a"}).auth == AuthSettings()


def test_a_misspelt_variable_is_told_with_the_one_that_was_meant_and_those_of_others_are_not() -> None:
    env = {
        "SIE_ROUTER_LEASE": "3",
        "SIE_ROUTER_K8S_SERVICES": "a",
        "SIE_ROUTER_LEASE_S": "3",
        "SIE_ROUTER_K8S_PORT": "8080",
        "SIE_ROUTER_PORT": "tcp://10.0.0.1:8080",  # Kubernetes, of a Service named sie-router
        "SIE_ROUTER_SERVICE_HOST": "10.0.0.1",
        "SIE_DEVICE": "cpu",
    }
    assert meaningless(env) == {
        "SIE_ROUTER_LEASE": "SIE_ROUTER_LEASE_S",
        "SIE_ROUTER_K8S_SERVICES": "SIE_ROUTER_K8S_SERVICE",
    }
