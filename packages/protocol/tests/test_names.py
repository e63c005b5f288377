import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_protocol.names import MAX_NAMES, alike, suggestion

KNOWN = ("BAAI/bge-m3", "BAAI/bge-small-en-v1.5", "sentence-transformers/all-MiniLM-L6-v2", "intfloat/e5-small-v2")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("baai/bge-m4", "BAAI/bge-m3"),
        ("all-minilm-l6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
        ("intfloat/e5-small-v2/", "intfloat/e5-small-v2"),
        ("sentence-transformer/all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
    ],
)
def test_the_name_that_was_meant_comes_first(name: str, meant: str) -> None:
    assert alike(name, KNOWN)[0] == meant
    assert meant in suggestion(name, KNOWN)


def test_nothing_is_suggested_where_nothing_is_alike() -> None:
    assert suggestion("gpt-9", KNOWN) == ""


@given(st.text(max_size=300))
def test_any_name_gets_a_few_known_ones_at_most(name: str) -> None:
    found = alike(name, KNOWN)
    assert set(found) <= set(KNOWN)
    assert len(found) == len(set(found)) <= MAX_NAMES
