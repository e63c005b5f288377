"""Images of requests on their way to the device: bounded, in turns with other requests, refused one by one.

The gated adapter reads texts, and nothing on this way looks at what an input is.
"""

import asyncio

import numpy as np
import pytest

from gated_adapter import Kit, engine_of, until
from sie_protocol.errors import ErrorCode, Problem
from sie_server.engine.images import AT_ONCE, ReadImage
from sie_server.engine.loop import ModelLoop, QueueLimits

ROOM = QueueLimits(64, 1000, 60.0)


def send(kit: Kit, count: int, text: str = "x") -> asyncio.Task[dict[int, int]]:
    """A request of so many inputs, with places from 100 on; the answer is the characters of each."""

    async def read() -> dict[int, int]:
        inputs = {100 + at: text * (1 + at) for at in range(count)}
        found = (await kit.engine.run_images(kit.engine.lookup("a"), inputs)).found
        rows = {at: np.asarray(each.row["dense"]) for at, each in found.items() if isinstance(each, ReadImage)}
        return {at: int(row[1]) for at, row in rows.items()}

    return asyncio.create_task(read())


def loop_of(kit: Kit) -> ModelLoop:
    loop = kit.engine.lookup("a").slot.loop
    assert loop is not None
    return loop


def under_way(kit: Kit) -> int:
    """Inputs that are decoded, or on the way there, and not computed."""
    loop = loop_of(kit)
    return loop.max_decoded - loop.decoding._value


@pytest.mark.parametrize(("cores", "most"), [(1, 2), (8, AT_ONCE)])
async def test_a_request_has_a_few_under_way_and_all_of_its_places_in_the_queue(cores: int, most: int) -> None:
    async with engine_of("a", queue=ROOM, cores=cores) as kit:
        await kit.load()
        task = send(kit, 20)
        await until(lambda: under_way(kit) == most)
        await kit.entered()
        assert (kit.depth(), under_way(kit)) == (20, most)
        kit.gates["a"].open.set()
        assert await task == {100 + at: 1 + at for at in range(20)}
        assert (kit.depth(), under_way(kit)) == (0, 0)


async def test_all_requests_together_have_no_more_under_way_than_fit_and_take_turns() -> None:
    async with engine_of("a", queue=ROOM, cores=4) as kit:
        await kit.load()
        tasks = [send(kit, 10) for _ in range(5)]
        await until(lambda: under_way(kit) == 5)
        late = send(kit, 1)
        await until(lambda: kit.depth() == 51)
        with pytest.raises(Problem, match="takes at most 64") as refused:
            await send(kit, 20)
        assert refused.value.code is ErrorCode.QUEUE_FULL
        assert under_way(kit) == loop_of(kit).max_decoded == 5
        kit.gates["a"].open.set()
        assert [await task for task in tasks] == [{100 + at: 1 + at for at in range(10)}] * 5
        assert await late == {100: 1}


async def test_a_cancelled_request_makes_room() -> None:
    async with engine_of("a", queue=ROOM) as kit:
        await kit.load()
        gone = send(kit, 20)
        await until(lambda: under_way(kit) == 2)
        kept = send(kit, 3)
        await until(lambda: kit.depth() == 23)
        gone.cancel()
        await until(lambda: kit.depth() == 3)
        kit.gates["a"].open.set()
        assert await kept == {100: 1, 101: 2, 102: 3}
        assert gone.cancelled()
        assert under_way(kit) == 0


async def test_what_finds_no_room_in_time_is_given_up() -> None:
    async with engine_of("a", queue=QueueLimits(64, 1000, timeout_s=0.5)) as kit:
        await kit.load()
        first = send(kit, 2)
        await until(lambda: under_way(kit) == 2)
        with pytest.raises(Problem, match="given up") as refused:
            await send(kit, 1)
        assert refused.value.code is ErrorCode.DEADLINE_EXCEEDED
        kit.gates["a"].open.set()
        assert await first == {100: 1, 101: 2}


async def test_one_that_fails_ends_its_request_only_and_says_its_place() -> None:
    async with engine_of("a", queue=ROOM) as kit:
        await kit.load()
        kit.gates["a"].open.set()
        broken, fine = send(kit, 1, "nan"), send(kit, 3)
        with pytest.raises(Problem, match="item 100") as refused:
            await broken
        assert refused.value.code is ErrorCode.INFERENCE_ERROR
        assert await fine == {100: 1, 101: 2, 102: 3}
        assert kit.depth() == 0
