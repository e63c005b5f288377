import asyncio
import time
from collections.abc import Generator
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sie_protocol.errors import ErrorCode, Problem
from sie_router.data.admission import Admission
from sie_router.data.body import Body, Message
from sie_router.data.named import AT_ONCE_BYTES, model_found, renamed
from sie_router.data.scan import MARK_COST, STEP, Span, member

LENGTH = 29 << 20
SPACE = st.text(" \t\n\r", max_size=3)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def walk(steps: Generator[None, None, Span | None]) -> tuple[Span | None, int]:
    """The result, and how many steps came before it."""
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value, count
        count += 1


def spelled(value: Any, space: str) -> str:
    """JSON with this much between any two tokens, and each name's characters escaped."""
    if isinstance(value, dict):
        members = (f"{escaped(key)}{space}:{space}{spelled(each, space)}" for key, each in value.items())
        return f"{{{space}" + f"{space},{space}".join(members) + f"{space}}}"
    if isinstance(value, list):
        return f"[{space}" + f",{space}".join(spelled(each, space) for each in value) + "]"
    return msgspec.json.encode(value).decode()


def escaped(name: str) -> str:
    return '"' + "".join(f"\\u{ord(each):04x}" if ord(each) < 0x10000 else each for each in name) + '"'


@given(st.dictionaries(st.text() | st.just("model"), json_values), SPACE, st.booleans(), st.integers(2, 70))
@example({"model": "\\" * 8, '"': {"model": '"}'}}, "", False, 2)
def test_a_member_is_where_a_json_library_finds_it(
    fields: dict[str, Any], space: str, is_escaped: bool, step: int
) -> None:
    data = spelled(fields, space).encode() if is_escaped else msgspec.json.encode(fields)
    span, _ = walk(member(data, "model", step))
    if "model" in fields:
        assert span is not None
        assert msgspec.json.decode(data[slice(*span)]) == fields["model"]
    else:
        assert span is None


def test_of_several_the_last_one_counts_as_in_any_json_library() -> None:
    data = b'{"model": "a", "model": "b"}'
    span, _ = walk(member(data, "model"))
    assert span is not None
    assert data[slice(*span)] == b'"b"'
    assert msgspec.json.decode(data) == {"model": "b"}


@given(st.binary() | st.text('{}[]",:\\ a').map(str.encode), st.integers(2, 9))
def test_any_bytes_end(data: bytes, step: int) -> None:
    try:
        span, _ = walk(member(data, "model", step))
    except ValueError:
        return
    assert span is None or 0 < span[0] < span[1] < len(data)


LONG = {
    "one text": b'"%b"' % (b"x" * LENGTH),
    "many texts": b"[%b]" % b",".join([b'"%b"' % (b"words " * 2000)] * (LENGTH // 12000)),
    "numbers": b"[%b]" % b",".join([b"12345"] * (LENGTH // 6)),
    "escapes": b'"%b"' % (rb"\n\"" * (LENGTH // 4)),
    "backslashes": b'"%b"' % (b"\\\\" * (LENGTH // 2)),
    "spaces": b"%b1" % (b" " * LENGTH),
    "one number": b"1" * LENGTH,
    "brackets": b"[%b]" % b",".join([b"[]"] * 300_000),
}


def seconds_of_steps(data: bytes) -> list[float]:
    """CPU time of each step, the one that ends it included."""
    steps, found, ended = member(data, "model"), list[float](), None
    while not ended:
        began = time.thread_time()
        ended = next(steps, "end")
        found.append(time.thread_time() - began)
    return found


@pytest.mark.parametrize("value", LONG.values(), ids=LONG)
def test_no_step_is_long_whatever_the_body_is_like(value: bytes) -> None:
    data = b'{"input":%b,"model":"m"}' % value
    runs = [seconds_of_steps(data) for _ in range(2)]  # a collection of garbage falls into one of them at most
    longest_s = max(min(same) for same in zip(*runs, strict=True))
    count = len(runs[0]) - 1
    marks = data.count(b"[") + data.count(b"]") + data.count(b'"')
    assert len(data) // STEP <= count <= 2 * (len(data) + 4 * MARK_COST * marks) // STEP + 8
    assert longest_s < 0.02  # of CPU; measured: 0.3 to 1 ms


async def of(data: bytes) -> Body:
    async def receive() -> Message:
        return {"type": "http.request", "body": data}

    body = Body(receive, None, 1 << 26, Admission(1, 1 << 26))
    await body.fill(60)
    return body


async def test_others_have_their_turns_while_the_model_of_a_long_body_is_found_and_renamed() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(others())
    body = await of(b'{"input":%b,"model":"b:/M", "n": 1}' % LONG["many texts"])
    asked = await model_found(body)
    assert turns >= LENGTH // STEP - 1
    found = turns
    await renamed(body, asked, "own/m")
    assert turns - found >= (LENGTH // STEP - 1) + (LENGTH // AT_ONCE_BYTES - 1)
    assert (asked.bundle, asked.name) == ("b", "M")
    assert body.data == b'{"input":%b,"model":"own/m", "n": 1}' % LONG["many texts"]
    task.cancel()


@pytest.mark.parametrize(
    ("members", "code", "param"),
    [
        (b'"n": 1', ErrorCode.INVALID_INPUT, "model"),
        (b'"model": 5', ErrorCode.INVALID_INPUT, "model"),
        (b'"model": "%b"' % (b"m" * 5000), ErrorCode.INVALID_INPUT, None),
        (b'"model": "m', ErrorCode.INVALID_INPUT, None),
        (b'"model": "m", "n": [%b]' % (b"[]," * 600_000), ErrorCode.INPUT_TOO_LONG, None),
    ],
)
async def test_a_long_body_is_refused_like_a_short_one(members: bytes, code: ErrorCode, param: str | None) -> None:
    body = await of(b'{"input": "%b", %b}' % (b"x" * AT_ONCE_BYTES, members))
    with pytest.raises(Problem) as refusal:
        await model_found(body)
    assert (refusal.value.code, refusal.value.details.get("param")) == (code, param)
