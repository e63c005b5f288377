import asyncio
import threading

import pytest

from gated_adapter import Kit, engine_of, until
from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.status import MAX_FAILURE_CHARS
from sie_server.adapters.base import LoadError
from sie_server.core.lifecycle import ErrorClass
from sie_server.core.memory import MIN_STAY_S
from sie_server.engine.models import LoadPolicy
from sie_server.engine.results import Encoded


def sized(kit: Kit, **sizes: int) -> None:
    for name, size in sizes.items():
        kit.gates[name].size_bytes = size
        kit.gates[name].open.set()


async def stuck(kit: Kit, text: str = "first", model: str = "a") -> asyncio.Task[Encoded]:
    """A request whose batch has reached the device and stays there."""
    kit.gates[model].open.clear()
    task = kit.send(text, model=model)
    await kit.entered(model)
    return task


async def test_the_model_used_least_recently_makes_room_and_comes_back_when_asked_for() -> None:
    async with engine_of("a", "b", "c", limit_bytes=100) as kit:
        sized(kit, a=40, b=40, c=40)
        await kit.load("a")
        await kit.load("b")
        kit.clock.now += 10
        await kit.encode("a is used", model="a")
        kit.clock.now += 10
        await kit.load("c")
        assert [kit.state(name) for name in "abc"] == ["loaded", "available", "loaded"]
        assert kit.gates["b"].unloaded
        await kit.load("b")  # now `a` was used before `c`
        assert [kit.state(name) for name in "abc"] == ["available", "loaded", "loaded"]
        assert {status.name: status.memory_bytes for status in kit.engine.statuses()} == {"b": 40, "c": 40}


async def test_two_loads_at_once_do_not_take_more_than_there_is() -> None:
    async with engine_of("a", "b", "c", limit_bytes=100) as kit:
        sized(kit, a=60, b=60, c=30)
        tasks = [kit.refused("x", model=name) for name in "abc"]
        await asyncio.gather(*tasks)
        await until(lambda: sum(kit.gates[name].loads for name in "abc") == 2)  # `b` waits for its room
        for name in "abc":
            kit.gates[name].may_load.set()
        await until(lambda: kit.state("b") == "loaded")
        assert kit.memory.held_bytes in ({"b": 60, "c": 30}, {"b": 60})


async def test_a_pinned_model_stays_and_what_cannot_fit_beside_it_says_so() -> None:
    async with engine_of("a", "b", limit_bytes=100, load_policy=LoadPolicy(pinned=("a",))) as kit:
        sized(kit, a=60, b=60)
        await kit.load("a")
        await kit.load("b")
        problem = await kit.refused("x", model="b")
        assert problem.code is ErrorCode.MODEL_LOAD_FAILED
        assert (problem.details["error_class"], problem.details["permanent"]) == ("OOM", False)
        assert kit.state("a") == "loaded"


async def test_a_busy_model_finishes_what_it_accepted_before_it_goes() -> None:
    async with engine_of("a", "b", limit_bytes=100) as kit:
        sized(kit, a=60, b=60)
        await kit.load("a")
        first = await stuck(kit)
        second = kit.send("second")
        await until(lambda: kit.waiting() == 1)
        kit.clock.now += MIN_STAY_S
        kit.gates["b"].may_load.set()
        await kit.refused("x", model="b")
        await until(lambda: kit.state("a") == "unloading")
        late = await kit.refused("late")
        assert (late.code, late.retry_after_s) == (ErrorCode.MODEL_LOADING, 1)
        assert not kit.gates["a"].unloaded
        kit.gates["a"].open.set()
        assert [len((await task).rows) for task in (first, second)] == [1, 1]
        await until(lambda: kit.state("b") == "loaded")
        assert kit.state("a") == "available"


async def test_what_has_not_started_when_the_grace_ends_is_told_to_come_back() -> None:
    async with engine_of("a", drain_s=0.02) as kit:
        sized(kit, a=1)
        await kit.load("a")
        first, second = await stuck(kit), kit.send("second")
        await until(lambda: kit.waiting() == 1)
        unloading = asyncio.create_task(kit.engine.unload("a"))
        with pytest.raises(Problem) as refused:
            await second
        assert (refused.value.code, refused.value.retry_after_s) == (ErrorCode.MODEL_LOADING, 1)
        assert not kit.gates["a"].unloaded  # the first one is still on the device
        kit.gates["a"].open.set()
        await first
        await unloading
        assert kit.gates["a"].unloaded


async def test_a_batch_whose_client_left_still_keeps_its_weights() -> None:
    async with engine_of("a") as kit:
        sized(kit, a=1)
        await kit.load("a")
        gone = await stuck(kit)
        gone.cancel()
        await until(lambda: kit.depth() == 0)
        unloading = asyncio.create_task(kit.engine.unload("a"))
        await until(lambda: kit.state() == "unloading")
        for _ in range(20):
            await asyncio.sleep(0)
        assert not kit.gates["a"].unloaded
        kit.gates["a"].open.set()
        await unloading
        assert kit.gates["a"].unloaded


async def test_a_load_for_which_the_device_has_no_memory_after_all_is_tried_once_more_with_another_model_gone() -> None:
    async with engine_of("a", "b") as kit:
        sized(kit, a=10, b=10)
        await kit.load("a")
        gate = kit.gates["b"]
        gate.load_error = LoadError(ErrorClass.OOM, "no room")
        await kit.load("b")
        assert (gate.loads, kit.state("a"), kit.state("b")) == (2, "available", "failed")


async def test_idle_models_go_and_used_and_pinned_ones_load_policy() -> None:
    async with engine_of("a", "b", "c", load_policy=LoadPolicy(idle_s=0.05, pinned=("c",))) as kit:
        sized(kit, a=1, b=1, c=1)
        for name in "abc":
            await kit.load(name)
        used = await stuck(kit, "used")  # a look at what is idle may come at any time
        kit.clock.now += 0.06
        kit.gates["a"].open.set()
        await used
        await until(lambda: kit.state("b") == "available")
        assert [kit.state(name) for name in "ac"] == ["loaded", "loaded"]
        assert kit.memory.events == ["b idle"]
        kit.clock.now += 0.06
        await until(lambda: kit.state("a") == "available")
        assert kit.state("c") == "loaded"


async def test_readiness_waits_for_preloads_and_a_failed_one_does_not_hold_it_back() -> None:
    async with engine_of("a", "b", load_policy=LoadPolicy(preload=("a", "b"))) as kit:
        assert kit.engine.unready == "loading a, b"
        kit.engine.preload()
        kit.gates["a"].may_load.set()
        await until(lambda: kit.state("a") == "loaded")
        assert kit.engine.unready == "loading b"
        kit.gates["b"].load_error = LoadError(ErrorClass.NOT_FOUND, "no such folder " + "x" * 1000)
        kit.gates["b"].may_load.set()
        await until(lambda: kit.engine.unready is None)
        assert kit.engine.info_of("b")["last_error"] is not None
        told = {status.name: status.failure for status in kit.engine.statuses()}
        failure = told["b"]
        assert told["a"] is None
        assert failure is not None
        assert (failure.error_class, failure.attempts, failure.permanent) == ("NOT_FOUND", 1, True)
        assert failure.message.startswith("no such folder")
        assert len(failure.message) == MAX_FAILURE_CHARS


async def test_a_load_that_takes_too_long_fails_and_what_it_brings_later_is_dropped() -> None:
    policy = LoadPolicy(load_timeout_s=1.0)  # longer than a busy machine needs to begin it
    async with engine_of("a", load_policy=policy) as kit:
        sized(kit, a=7)
        await kit.refused("x")
        await until(lambda: kit.state() == "failed")
        problem = await kit.refused("x")
        assert (problem.code, problem.details["error_class"]) == (ErrorCode.MODEL_LOAD_FAILED, "TIMEOUT")
        kit.gates["a"].may_load.set()
        await until(lambda: kit.gates["a"].unloaded)


async def test_a_slow_load_blocks_no_other() -> None:
    async with engine_of("a", "b") as kit:
        sized(kit, a=1, b=1)
        await kit.refused("x", model="a")
        await kit.load("b")
        assert (kit.state("a"), kit.state("b")) == ("loading", "loaded")


async def test_a_load_that_was_given_up_keeps_its_own_room_until_it_ends_and_no_other_s() -> None:
    async with engine_of("a", "b", limit_bytes=100, load_policy=LoadPolicy(load_timeout_s=0.02)) as kit:
        sized(kit, a=40, b=60)
        gate, given_up = kit.gates["a"], kit.gates["a"].may_load

        async def fail(name: str) -> None:
            kit.clock.now += 60  # the time after which such a load may be tried again
            await kit.refused("x", model=name)
            await until(lambda: kit.state(name) == "failed")

        while gate.loads < 1:
            await fail("a")
        gate.may_load = threading.Event()
        while gate.loads < 2:
            await fail("a")
        await fail("b")
        assert kit.gates["b"].loads == 0, "both loads still read their files, nobody waits for either"
        given_up.set()
        await until(lambda: gate.unloaded and not kit.memory.held_bytes)
        sized(kit, b=70)
        await fail("b")
        assert kit.gates["b"].loads == 0, "the second load does not end with the first"
        gate.may_load.set()
        sized(kit, b=60)
        kit.gates["b"].may_load.set()
        kit.clock.now += 60
        while kit.state("b") != "loaded":
            await kit.refused("x", model="b")
            await until(lambda: kit.state("b") != "loading")
            kit.clock.now += 60
