"""The law: what is counted is what a decoder would build, whatever the texts hold."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_protocol.errors import Problem
from sie_protocol.headers import JSON, MSGPACK
from sie_server.core import values
from sie_server.core.values import MAX_VALUES, check_values

trees = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=40) | st.dictionaries(st.text(max_size=40), inner, max_size=40),
    max_leaves=60,
)
texts = st.lists(st.text(alphabet='\\",[{:}]ab', max_size=20))


def size_of(value: Any) -> int:
    if isinstance(value, list):
        return 1 + sum(map(size_of, value))
    return 1 + len(value) + sum(map(size_of, value.values())) if isinstance(value, dict) else 1


@given(tree=trees)
def test_every_value_and_key_of_msgpack_counts_once(tree: Any) -> None:
    assert values._msgpack_values(msgspec.msgpack.encode(tree)) == size_of(tree)


def test_long_forms_of_msgpack_count_alike() -> None:
    tree = [
        ["x" * 70_000, b"y" * 70_000, "z" * 300, b"z" * 300],
        [None] * 70_000,
        dict.fromkeys(map(str, range(70_000))),
    ]
    ext = msgspec.msgpack.Ext
    more = [ext(1, b"a" * size) for size in (1, 2, 4, 8, 16, 3, 300, 70_000)]
    assert values._msgpack_values(msgspec.msgpack.encode([tree, more])) == 1 + size_of(tree) + 1 + len(more)


@given(some=texts, piece=st.integers(1, 9))
def test_what_is_inside_of_json_texts_does_not_count(some: list[str], piece: int) -> None:
    assert values._json_values(json.dumps({"a": some}).encode(), piece) == 2 + max(0, len(some) - 1)


@pytest.mark.parametrize(
    ("body", "media"),
    [
        (b"[" + b"{}," * MAX_VALUES + b"{}]", JSON),
        (b"[" + b"0," * MAX_VALUES + b"0]", JSON),
        (b"\xdd" + (MAX_VALUES).to_bytes(4, "big") + b"\x80" * MAX_VALUES, MSGPACK),
        (b"\x91" * (MAX_VALUES + 1), MSGPACK),
    ],
)
def test_too_many_are_refused(body: bytes, media: str) -> None:
    with pytest.raises(Problem, match=f"more than {MAX_VALUES}"):
        check_values(body, media)


def test_a_long_text_is_one_value() -> None:
    text = ',[{"' * MAX_VALUES
    check_values(json.dumps([text]).encode(), JSON)
    check_values(msgspec.msgpack.encode([text]), MSGPACK)
