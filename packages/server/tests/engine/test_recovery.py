import asyncio

import pytest

from gated_adapter import Kit, engine_of, until
from sie_protocol.errors import ErrorCode, Problem
from sie_server.engine.recovery import OomEvent
from sie_server.engine.results import Encoded


def rows(encoded: Encoded) -> list[list[float]]:
    return [row["dense"].values.tolist() for row in encoded.rows]


async def together(kit: Kit, *texts: str) -> list[asyncio.Task[Encoded]]:
    """Requests that share a batch, in this order."""
    first = kit.send("first")
    await kit.entered()
    tasks = await kit.queued(*texts)
    kit.gates["a"].open.set()
    await first
    return tasks


async def test_a_batch_that_is_too_large_for_the_memory_is_halved_until_it_fits() -> None:
    async with engine_of("a") as kit:
        await kit.load()
        kit.gates["a"].fits = 2
        tasks = await together(kit, *"bcdefg")
        assert [rows(await task) for task in tasks] == [[[1, 1]]] * 6
        assert all(len(batch) <= 2 for batch in kit.gates["a"].batches[-3:])
        assert kit.memory.releases == 1
        counts = [kit.memory.counted(event) for event in OomEvent]
        assert dict(zip(OomEvent, counts, strict=True)) == {
            OomEvent.ATTEMPTED: 1,
            OomEvent.SUCCEEDED: 1,
            OomEvent.TERMINAL: 0,
            OomEvent.CLEARED: 1,
            OomEvent.EVICTED: 0,
            OomEvent.SPLIT: 3,
        }


async def test_only_the_request_that_never_fits_is_refused_and_may_come_back() -> None:
    async with engine_of("a") as kit:
        await kit.load()
        kit.gates["a"].fits = 3
        small, large, other = await together(kit, "b", "l l l l", "c")
        assert rows(await small) == rows(await other) == [[1, 1]]
        with pytest.raises(Problem) as refused:
            await large
        assert (refused.value.code, refused.value.retry_after_s) == (ErrorCode.RESOURCE_EXHAUSTED, 5)
        assert kit.memory.counted(OomEvent.TERMINAL) == 1
        assert kit.memory.counted(OomEvent.SUCCEEDED) == 0
        assert kit.depth() == 0


async def test_another_model_goes_before_a_single_item_is_given_up() -> None:
    async with engine_of("a", "b") as kit:
        kit.gates["b"].size_bytes = 10
        await kit.load("a")
        await kit.load("b")
        kit.gates["a"].open.set()
        kit.gates["a"].fits = 1
        problem = await kit.refused("l l")
        assert problem.code is ErrorCode.RESOURCE_EXHAUSTED
        assert (kit.state("a"), kit.state("b")) == ("loaded", "available")
        assert kit.memory.counted(OomEvent.EVICTED) == 1


async def test_one_poisonous_input_fails_alone() -> None:
    async with engine_of("a") as kit:
        await kit.load()
        kit.gates["a"].run_error = RuntimeError("of its own")
        good, bad, fine = await together(kit, "b", "bad", "c")
        assert rows(await good) == rows(await fine) == [[1, 1]]
        with pytest.raises(Problem) as refused:
            await bad
        assert refused.value.code is ErrorCode.INFERENCE_ERROR
        batches = [batch for batch in kit.gates["a"].batches if "bad" in batch]
        assert batches == [["b", "bad", "c"], ["bad"]]  # once with the others, once alone


async def test_numbers_that_are_not_finite_fail_their_request_only() -> None:
    async with engine_of("a") as kit:
        await kit.load()
        good, bad = await together(kit, "b", "nan")
        assert rows(await good) == [[1, 1]]
        with pytest.raises(Problem, match="item 0 that are not finite") as refused:
            await bad
        assert refused.value.code is ErrorCode.INFERENCE_ERROR


async def test_who_left_between_two_attempts_is_not_tried_again() -> None:
    async with engine_of("a") as kit:
        await kit.load()
        kit.gates["a"].fits = 3
        kit.memory.may_release.clear()
        gone, kept = await together(kit, "two words", "more words")
        await until(lambda: kit.memory.releases == 1)
        gone.cancel()
        await until(lambda: kit.depth() == 1)
        kit.memory.may_release.set()
        assert rows(await kept) == [[2, 10]]
        assert kit.gates["a"].batches[1:] == [["two words", "more words"], ["more words"]]


async def test_closing_answers_what_is_between_two_attempts() -> None:
    async with engine_of("a") as kit:
        await kit.load()
        kit.gates["a"].fits = 1
        task = kit.send("two words")
        await kit.entered()
        kit.gates["a"].open.set()
        await kit.engine.close()
        with pytest.raises(Problem) as refused:
            await task
        assert refused.value.code in (ErrorCode.SHUTTING_DOWN, ErrorCode.RESOURCE_EXHAUSTED)


async def test_a_rescue_that_fails_itself_leaves_nobody_without_an_answer() -> None:
    async with engine_of("a") as kit:
        await kit.load()
        kit.gates["a"].open.set()
        kit.gates["a"].fits = 1
        kit.memory.release_error = RuntimeError("an illegal memory access")
        assert (await kit.refused("two words")).code is ErrorCode.RESOURCE_EXHAUSTED
        assert kit.memory.counted(OomEvent.TERMINAL) == 1
        assert kit.depth() == 0
        assert rows(await kit.encode("x")) == [[1, 1]]


async def test_another_model_that_does_not_unload_in_order_is_gone_all_the_same() -> None:
    async with engine_of("a", "b") as kit:
        for name in ("a", "b"):
            kit.gates[name].size_bytes = 10
            await kit.load(name)
        kit.gates["b"].unload_error = RuntimeError("of its own")
        kit.gates["a"].open.set()
        kit.gates["a"].fits = 1
        assert (await kit.refused("l l")).code is ErrorCode.RESOURCE_EXHAUSTED
        assert (kit.state("a"), kit.state("b")) == ("loaded", "available")
        assert kit.memory.counted(OomEvent.EVICTED) == 1
