import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_builders import MODEL
from router_fakes import served, settings
from sie_router.data.preference import preferred_s, unasked_s


@pytest.mark.parametrize(
    ("name", "value", "seconds"),
    [
        (b"prefer", b"wait=30", 30),
        (b"prefer", b"respond-async, WAIT = 30", 30),
        (b"prefer", b'wait="7"; x=1, wait=9', 7),
        (b"prefer", b"wait=30s", None),
        (b"prefer", b"wait=-1", None),
        (b"prefer", b"await=3", None),
        (b"prefer", b"", None),
        (b"wait", b"30", None),
    ],
)
def test_a_preference_is_read_or_ignored(name: bytes, value: bytes, seconds: int | None) -> None:
    assert preferred_s([(b"accept", b"*/*"), (name, value)]) == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([(b"x-stainless-lang", b"js")], 50),
        ([(b"x-stainless-lang", b"python"), (b"x-stainless-read-timeout", b"600.0")], 50),
        ([(b"x-stainless-lang", b"js"), (b"x-stainless-timeout", b"20")], 15),
        ([(b"x-stainless-lang", b"python"), (b"x-stainless-read-timeout", b"3")], 0),
        ([(b"x-fern-language", b"Python")], 50),
        ([(b"user-agent", b"curl/8")], 0),
    ],
)
def test_a_package_of_another_service_waits_unasked_for_less_than_it_and_proxies_allow(
    headers: list[tuple[bytes, bytes]], seconds: int
) -> None:
    assert unasked_s(headers) == seconds < 60


@given(st.lists(st.tuples(st.sampled_from([b"prefer", b"x-stainless-lang", b"x-stainless-timeout"]), st.binary())))
def test_no_preference_is_an_error(headers: list[tuple[bytes, bytes]]) -> None:
    assert (preferred_s(headers) or 0) >= 0
    assert 0 <= unasked_s(headers) <= 50


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *(("X-SIE-Wait", value, "whole seconds") for value in ("soon", "-1", "2.5", "30s", "", "9" * 10, "nan")),
        *(("X-SIE-Attempt", value, "1 for the first") for value in ("first", "-1", "0", "")),
        *(("X-SIE-Timeout", value, "a number of seconds above 0") for value in ("soon", "-1", "0", "inf", "nan", "")),
    ],
)
async def test_a_header_of_ours_that_makes_no_sense_is_refused_in_words_that_say_what_does(
    name: str, value: str, expected: str
) -> None:
    async with served(settings()) as router, httpx.AsyncClient(base_url=router.url) as client:
        answer = await client.post(f"/v1/encode/{MODEL}", headers={name: value, "prefer": "wait=-1"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "INVALID_INPUT")
    assert f"{name} is '{value}'; expected {expected}" in answer.json()["error"]["message"]
