"""A batch that is computed in steps takes turns with what other models have to do."""

import asyncio

import pytest

from gated_adapter import STEP_S, Kit, engine_of, until
from sie_protocol.errors import ErrorCode, Problem
from sie_server.engine.results import Encoded


def rows(encoded: Encoded) -> list[list[float]]:
    return [row["dense"].values.tolist() for row in encoded.rows]


def steps(kit: Kit) -> list[str]:
    return [each for each in kit.memory.events if "step" in each or "dropped" in each]


async def begun(kit: Kit, *texts: str) -> asyncio.Task[Encoded]:
    """A request whose first step has begun, and waits for the gate."""
    task = kit.send(*texts, model="slow")
    await kit.entered("slow")
    return task


async def test_another_model_has_its_turn_before_a_batch_in_steps_is_done() -> None:
    async with engine_of("slow", "slow too") as kit:
        await kit.load("slow")
        await kit.load("slow too")
        kit.gates["slow too"].open.set()
        one, other = await begun(kit, "one two three"), kit.send("other", model="slow too")
        await until(lambda: kit.waiting("slow too") == 1)
        kit.gates["slow"].open.set()
        assert rows(await one) == [[3, 13]]
        assert rows(await other) == [[1, 5]]
    assert steps(kit)[:2] == ["slow step 0", "slow too step 0"]
    assert len(steps(kit)) == 4


async def test_a_batch_in_steps_is_one_batch_whose_time_is_that_of_its_turns() -> None:
    async with engine_of("slow") as kit:
        await kit.load("slow")
        kit.gates["slow"].open.set()
        assert rows(await kit.encode("one two", "x", model="slow")) == [[2, 7], [1, 1]]
    [record] = kit.records
    assert (record.items, record.tokens) == (2, 3)
    assert record.seconds == pytest.approx(2 * STEP_S)


@pytest.mark.parametrize(("model", "batches"), [("a", [1, 1]), ("slow", [2])])
async def test_a_batch_in_steps_is_as_large_as_the_model_may_have_it_also_on_a_cpu(
    model: str, batches: list[int]
) -> None:
    ten_words = "w " * 10  # of two, more than the CPU's cache is said to hold
    async with engine_of(model) as kit:
        await kit.load(model)
        kit.gates[model].open.set()
        await kit.encode(ten_words, ten_words, model=model)
        loop = kit.engine.lookup(model).slot.loop
        assert loop is not None
        assert loop.max_decoded == (5 if model == "slow" else 2)
    assert [record.items for record in kit.records] == batches


async def test_a_batch_that_nobody_waits_for_stops_between_two_steps() -> None:
    async with engine_of("slow") as kit:
        await kit.load("slow")
        task = await begun(kit, "one two three four")
        task.cancel()
        await until(lambda: kit.depth() == 0)
        kit.gates["slow"].open.set()
        await until(lambda: "slow dropped" in kit.memory.events)
        assert rows(await kit.encode("next", model="slow")) == [[1, 4]]
    assert steps(kit)[:2] == ["slow step 0", "slow dropped"]


async def test_a_batch_goes_on_while_any_of_its_requests_waits() -> None:
    async with engine_of("slow") as kit:
        await kit.load("slow")
        first = await begun(kit, "first")
        gone, kept = kit.send("gone", model="slow"), kit.send("kept kept", model="slow")
        await until(lambda: kit.waiting("slow") == 2)
        kit.gates["slow"].open.set()
        await kit.entered("slow")
        gone.cancel()
        assert rows(await kept) == [[2, 9]]
        assert rows(await first) == [[1, 5]]
    assert "slow dropped" not in kit.memory.events


async def test_a_step_that_fails_spoils_the_request_of_its_batch_only() -> None:
    async with engine_of("slow") as kit:
        await kit.load("slow")
        kit.gates["slow"].run_error = RuntimeError("of its own")
        first = await begun(kit, "first")
        good, bad = kit.send("two words", model="slow"), kit.send("bad", "and two", model="slow")
        await until(lambda: kit.waiting("slow") == 3)
        kit.gates["slow"].open.set()
        assert rows(await first) == [[1, 5]]
        assert rows(await good) == [[2, 9]]
        with pytest.raises(Problem) as refused:
            await bad
    assert refused.value.code is ErrorCode.INFERENCE_ERROR


async def test_what_is_between_two_turns_is_refused_when_the_worker_closes() -> None:
    async with engine_of("slow") as kit:
        await kit.load("slow")
        task = await begun(kit, "one two three")
        closing = asyncio.create_task(kit.engine.close())
        await until(lambda: kit.depth() == 0 or closing.done())
        kit.gates["slow"].open.set()
        with pytest.raises(Problem) as refused:
            await task
        await closing
    assert refused.value.code is ErrorCode.SHUTTING_DOWN
    assert steps(kit) == ["slow step 0", "slow dropped"]
