import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_builders import MODEL
from router_fakes import served, settings
from sie_router.data.preference import preferred_s


@pytest.mark.parametrize(
    ("name", "value", "seconds"),
    [
        (b"prefer", b"wait=30", 30),
        (b"prefer", b"respond-async, WAIT = 30", 30),
        (b"prefer", b'wait="7"; x=1, wait=9', 7),
        (b"prefer", b"wait=30s", 0),
        (b"prefer", b"wait=-1", 0),
        (b"prefer", b"await=3", 0),
        (b"prefer", b"", 0),
        (b"wait", b"30", 0),
    ],
)
def test_a_preference_is_read_or_ignored(name: bytes, value: bytes, seconds: int) -> None:
    assert preferred_s([(b"accept", b"*/*"), (name, value)]) == seconds


@given(st.lists(st.tuples(st.sampled_from([b"prefer", b"a"]), st.binary(max_size=30))))
def test_no_preference_is_an_error(headers: list[tuple[bytes, bytes]]) -> None:
    assert preferred_s(headers) >= 0


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
