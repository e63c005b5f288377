import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_router.data.preference import wait_s


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
        (b"prefer", b"wait=999", 60),
        (b"x-sie-wait", b"30", 30),
        (b"x-sie-wait", b"soon", 0),
        (b"wait", b"30", 0),
    ],
)
def test_a_wish_is_read_or_ignored(name: bytes, value: bytes, seconds: int) -> None:
    assert wait_s([(b"accept", b"*/*"), (name, value)], 60) == seconds


@given(
    st.lists(st.tuples(st.sampled_from([b"prefer", b"x-sie-wait", b"a"]), st.binary(max_size=30))), st.integers(0, 99)
)
def test_no_header_makes_a_request_wait_longer_than_allowed(headers: list[tuple[bytes, bytes]], most: int) -> None:
    assert 0 <= wait_s(headers, most) <= most
