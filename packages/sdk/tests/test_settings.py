import re
from typing import Any

import pytest

from sie_sdk import settings


def test_arguments_win_over_the_environment_which_wins_over_defaults() -> None:
    environ = {"SIE_BASE_URL": "http://env:1", "SIE_API_KEY": "env-key"}
    from_environ = settings.resolve(None, environ=environ)
    assert (from_environ.base_url, from_environ.api_key) == ("http://env:1", "env-key")
    given = settings.resolve("https://arg/sie/", api_key="arg-key\n", environ=environ)
    assert (given.base_url, given.api_key) == ("https://arg/sie", "arg-key")
    assert (given.timeout_s, given.max_connections, dict(given.options)) == (30.0, 100, {})
    nothing = {"timeout_s": None, "connect_timeout_s": None, "read_timeout_s": None, "max_connections": None}
    assert settings.resolve("https://arg/sie/", api_key="arg-key", environ=environ, **nothing) == given


def test_without_a_base_url_the_error_tells_both_ways_to_give_one() -> None:
    with pytest.raises(ValueError, match="SIE_BASE_URL"):
        settings.resolve(None, environ={})


@pytest.mark.parametrize(
    "url", ["localhost:8080", "ftp://x", "http://", "http://x/?a=1", "http://x/#a", "http://x:99999", "http://[::1"]
)
def test_what_is_no_base_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="http://host:port"):
        settings.resolve(url, environ={})


@pytest.mark.parametrize("name", ["timeout_s", "max_connections"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_limits_are_positive_numbers(name: str, value: float) -> None:
    wrong: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=name):
        settings.resolve("http://x", environ={}, **wrong)


def test_a_key_that_no_header_can_carry_is_refused_without_being_shown() -> None:
    with pytest.raises(ValueError, match="api_key") as refused:
        settings.resolve("http://x", api_key="sécret", environ={})
    assert "cret" not in str(refused.value)


def test_the_key_is_not_shown_in_logs() -> None:
    assert "hush" not in repr(settings.resolve("http://x", api_key="hush", environ={}))


def test_a_call_without_a_target_runs_on_the_clients() -> None:
    ours = settings.resolve("http://x", gpu="l4", environ={})
    assert ours.terms(None, "m", wait_for_capacity=True, budget_s=None).gpu == "l4"
    assert ours.terms("t4", "m", wait_for_capacity=True, budget_s=5).gpu == "t4"
    assert ours.terms(None, "m", wait_for_capacity=True, budget_s=None).budget_s == 900
    with pytest.raises(ValueError, match="greater than 0"):
        ours.terms(None, "m", wait_for_capacity=True, budget_s=0)


@pytest.mark.parametrize(
    ("wrong", "kind", "words"),
    [
        ({"timeout_s": "30"}, TypeError, "timeout_s is '30'; expected a number greater than 0, not a str"),
        ({"gpu": ["l4"]}, TypeError, "gpu is ['l4']; expected a machine profile"),
        ({"gpu": "a/b/c"}, ValueError, "gpu is 'a/b/c'; expected a machine profile"),
        ({"options": "fast"}, TypeError, "options is 'fast'; expected a dict"),
        ({"pool": "tenant"}, TypeError, "pool is 'tenant'; expected what it reserves, such as {'name'"),
        ({"pool": {"nam": "x"}}, TypeError, "pool has no 'nam'; did you mean name?"),
        ({"pool": {"gpus": {"l4": 1}}}, TypeError, "pool has no name"),
        ({"pool": {"name": 7}}, TypeError, "the name of a pool is 7"),
        ({"pool": {"name": "x", "gpus": ["l4"]}}, TypeError, "gpus is ['l4']; expected a dict"),
    ],
)
def test_what_is_of_another_kind_is_named_with_what_is_expected(
    wrong: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=re.escape(words)):
        settings.resolve("http://x", environ={}, **wrong)


@pytest.mark.parametrize("url", ["http://x:1/v1", "http://x:1/v1/"])
def test_an_address_that_ends_in_the_prefix_of_all_paths_is_refused_with_the_right_one(url: str) -> None:
    with pytest.raises(ValueError, match="leave /v1 out of the address: 'http://x:1'"):
        settings.resolve(url, environ={})
