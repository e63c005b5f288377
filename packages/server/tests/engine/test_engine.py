import asyncio
import threading

import pytest

from gated_adapter import WAIT_S, Kit, engine_of, until
from sie_protocol.errors import ErrorCode, Problem
from sie_server.adapters.base import LoadError
from sie_server.core.lifecycle import COOL_DOWN_S, ErrorClass
from sie_server.engine.loop import QueueLimits
from sie_server.engine.results import Encoded


def rows(encoded: Encoded) -> list[list[float]]:
    return [row["dense"].values.tolist() for row in encoded.rows]


async def stuck(kit: Kit, text: str = "first") -> asyncio.Task[Encoded]:
    """A request whose batch has reached the device and stays there."""
    task = kit.send(text)
    await kit.entered()
    return task


async def test_results_come_in_the_order_of_the_items_across_batches() -> None:
    async with engine_of("a") as kit:
        await kit.load()
        kit.gates["a"].open.set()
        texts = [" ".join(["w"] * (1 + at % 7)) for at in range(30)]  # more tokens than one batch takes
        encoded = await kit.encode(*texts)
    assert rows(encoded) == [[len(text.split()), len(text)] for text in texts]
    assert encoded.cost.input_tokens == sum(len(text.split()) for text in texts)
    assert len(kit.records) > 1
    assert sum(record.items for record in kit.records) == 30


async def test_an_idle_device_starts_at_once_and_a_busy_one_lets_the_queue_fill() -> None:
    async with engine_of("a") as kit:
        await kit.load()
        tasks = [await stuck(kit), *await kit.queued("b", "c", "d")]
        kit.gates["a"].open.set()
        await asyncio.gather(*tasks)
    assert kit.gates["a"].batches == [["first"], ["b", "c", "d"]]


async def test_fifty_concurrent_requests_are_all_answered_with_their_own_vectors() -> None:
    async with engine_of("a", cores=2) as kit:
        await kit.load()
        kit.gates["a"].open.set()
        answers = await asyncio.gather(*(kit.encode("x" * at) for at in range(1, 51)))
        assert [rows(answer)[0][1] for answer in answers] == list(range(1, 51))
        assert kit.depth() == 0


async def test_a_cancelled_request_is_not_computed() -> None:
    async with engine_of("a") as kit:
        await kit.load()
        first, gone, kept = await stuck(kit), kit.send("gone"), kit.send("kept")
        await until(lambda: kit.waiting() == 2)
        gone.cancel()
        await until(lambda: kit.depth() == 2)
        kit.gates["a"].open.set()
        await asyncio.gather(first, kept)
        assert gone.cancelled()
    assert kit.gates["a"].batches == [["first"], ["kept"]]


async def test_what_waits_too_long_fails_while_the_device_is_still_stuck() -> None:
    async with engine_of("a", queue=QueueLimits(64, 1000, timeout_s=1.0)) as kit:  # for tokenising as well
        await kit.load()
        first, late = await stuck(kit), kit.send("late")
        await until(lambda: kit.waiting() == 1)
        kit.clock.now += 2
        with pytest.raises(Problem, match="given up") as refused:
            await late
        assert not first.done()  # as old, but on the device: it will be answered
        kit.gates["a"].open.set()
        assert rows(await first) == [[1, 5]]
    assert refused.value.code is ErrorCode.DEADLINE_EXCEEDED
    assert kit.gates["a"].batches == [["first"]]


async def test_what_waits_too_long_for_the_tokenizer_fails_and_is_not_computed() -> None:
    async with engine_of("a", queue=QueueLimits(64, 1000, 0.02)) as kit:
        await kit.load()
        may_end = threading.Event()
        busy = [asyncio.create_task(kit.engine.pipeline.run(may_end.wait)) for _ in range(2)]
        assert (await kit.refused("late")).code is ErrorCode.DEADLINE_EXCEEDED
        assert kit.depth() == 0
        may_end.set()
        await asyncio.gather(*busy)
        assert kit.gates["a"].batches == []


async def test_a_queue_that_is_full_of_items_refuses_with_a_delay() -> None:
    async with engine_of("a", queue=QueueLimits(2, 1000, 60)) as kit:
        await kit.load()
        tasks = [await stuck(kit), kit.send("b")]
        await until(lambda: kit.waiting() == 1)
        problem = await kit.refused("c")
        assert (problem.code, problem.retry_after_s) == (ErrorCode.QUEUE_FULL, 1)
        kit.gates["a"].open.set()
        await asyncio.gather(*tasks)
        assert rows(await kit.encode("c")) == [[1, 1]]


async def test_a_queue_that_is_full_of_tokens_refuses() -> None:
    async with engine_of("a", queue=QueueLimits(64, 5, 60)) as kit:
        await kit.load()
        tasks = [await stuck(kit), kit.send("b b b")]
        await until(lambda: kit.waiting() == 1)
        assert (await kit.refused("c c c")).code is ErrorCode.QUEUE_FULL
        kit.gates["a"].open.set()
        await asyncio.gather(*tasks)
        assert rows(await kit.encode("c c c c c c c")) == [[7, 13]]  # an idle queue takes any one request


async def test_a_large_request_comes_in_while_at_most_half_of_the_queue_is_taken() -> None:
    async with engine_of("a", queue=QueueLimits(64, 10, 60)) as kit:
        await kit.load()
        tasks = [await stuck(kit), *await kit.queued("b b b b b", "c " * 30)]
        assert (await kit.refused("d")).code is ErrorCode.QUEUE_FULL  # now it is more than full
        kit.gates["a"].open.set()
        await asyncio.gather(*tasks)


async def test_a_request_that_can_never_fit_is_told_to_split() -> None:
    async with engine_of("a", queue=QueueLimits(2, 1000, 60)) as kit:
        await kit.load()
        assert (await kit.refused("a", "b", "c")).code is ErrorCode.INPUT_TOO_LONG


async def test_a_failing_batch_fails_its_requests_only() -> None:
    async with engine_of("a") as kit:
        await kit.load()
        gate = kit.gates["a"]
        gate.run_error = RuntimeError("secret of the adapter")
        bad = kit.send("bad")
        await kit.entered()
        good = kit.send("good")
        await until(lambda: kit.waiting() == 1)
        gate.open.set()
        with pytest.raises(Problem) as refused:
            await bad
        assert refused.value.code is ErrorCode.INFERENCE_ERROR
        assert "secret" not in refused.value.message
        assert rows(await good) == [[1, 4]]
        assert kit.depth() == 0


async def test_a_model_that_had_nothing_of_the_device_is_next() -> None:
    async with engine_of("a", "b") as kit:
        await kit.load("a")
        await kit.load("b")
        tasks = [await stuck(kit), *(kit.send("w " * 16) for _ in range(3)), kit.send("b", model="b")]
        await until(lambda: kit.waiting("a") == 3 and kit.waiting("b") == 1)
        kit.gates["a"].open.set()
        await kit.entered("b")
        assert len(kit.gates["a"].batches) == 1  # the one that was stuck; b has had nothing yet
        kit.gates["b"].open.set()
        await asyncio.gather(*tasks)


async def test_closing_answers_everybody() -> None:
    async with engine_of("a") as kit:
        await kit.load()
        first, second = await stuck(kit), kit.send("second")
        await until(lambda: kit.waiting() == 1)
    assert rows(await first) == [[1, 5]]
    with pytest.raises(Problem) as refused:
        await second
    assert refused.value.code is ErrorCode.SHUTTING_DOWN
    assert kit.gates["a"].unloaded


async def test_a_draining_engine_finishes_what_it_accepted_and_takes_nothing_new() -> None:
    async with engine_of("a") as kit:
        await kit.load()
        first = await stuck(kit)
        kit.engine.drain()
        problem = await kit.refused("new")
        assert (problem.code, problem.retry_after_s) == (ErrorCode.SHUTTING_DOWN, 1)
        idle = asyncio.create_task(kit.engine.idle())
        await asyncio.sleep(0)
        assert not idle.done()
        kit.gates["a"].open.set()
        assert rows(await first) == [[1, 5]]
        async with asyncio.timeout(WAIT_S):
            await idle


async def test_many_requests_start_one_load_and_hear_how_long_it_has_taken() -> None:
    async with engine_of("a") as kit:
        for elapsed, expected in ((0.0, 1), (1.2, 1), (1.9, 3), (40.0, 5)):
            kit.clock.now += elapsed
            problem = await kit.refused("x")
            assert (problem.code, problem.retry_after_s) == (ErrorCode.MODEL_LOADING, expected)
            assert kit.state() == "loading"
        await until(lambda: kit.gates["a"].loads == 1)
        kit.gates["a"].may_load.set()
        await until(lambda: kit.state() == "loaded")
        assert kit.gates["a"].loads == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (LoadError(ErrorClass.NOT_FOUND, "no such folder"), ErrorClass.NOT_FOUND),
        (LoadError(ErrorClass.GATED, "accept the terms"), ErrorClass.GATED),
        (ImportError("no module"), ErrorClass.DEPENDENCY),
        (RuntimeError("secret"), ErrorClass.UNKNOWN),
    ],
)
async def test_a_permanent_failure_is_remembered_and_never_tried_again(error: Exception, expected: ErrorClass) -> None:
    async with engine_of("a") as kit:
        kit.gates["a"].load_error = error
        await kit.load()
        for _ in range(5):
            kit.clock.now += 1e6
            problem = await kit.refused("x")
            assert problem.code is ErrorCode.MODEL_LOAD_FAILED
            assert problem.retry_after_s is None
            assert problem.details["error_class"] == str(expected)
            assert (problem.details["attempts"], problem.details["permanent"]) == (1, True)
            assert "secret" not in problem.message
        assert kit.gates["a"].loads == 1
        assert kit.engine.info_of("a")["last_error"] is not None


async def test_a_file_that_the_worker_may_not_read_is_named() -> None:
    async with engine_of("a") as kit:
        kit.gates["a"].load_error = PermissionError(13, "Permission denied", "/models/config.json")
        await kit.load()
        assert "'/models/config.json' cannot be read: Permission denied" in (await kit.refused("x")).message


@pytest.mark.parametrize(
    ("error", "may_pass"),
    [(OSError(5, "Input/output error"), True), (FileNotFoundError(2, "No such file"), False)],
)
async def test_trouble_of_a_disk_may_pass_and_a_file_that_is_missing_stays_so(error: OSError, may_pass: bool) -> None:
    async with engine_of("a") as kit:
        kit.gates["a"].load_error = error
        await kit.load()
        assert (await kit.refused("x")).details["permanent"] is not may_pass


@pytest.mark.parametrize("kind", [ErrorClass.NETWORK, ErrorClass.OOM])
async def test_a_failure_that_may_pass_is_tried_again_after_its_cool_down(kind: ErrorClass) -> None:
    async with engine_of("a") as kit:
        gate = kit.gates["a"]
        gate.load_error = LoadError(kind, "later, perhaps")
        await kit.load()
        kit.clock.now += COOL_DOWN_S[kind] - 0.1
        problem = await kit.refused("x")
        assert (problem.code, problem.details["permanent"]) == (ErrorCode.MODEL_LOAD_FAILED, False)
        assert gate.loads == 1
        kit.clock.now += 0.2
        gate.load_error = None
        await kit.load()
        gate.open.set()
        assert rows(await kit.encode("x")) == [[1, 1]]
        assert gate.loads == 2
        assert kit.engine.info_of("a")["last_error"] is None
