import asyncio
import threading
from functools import partial

from gated_adapter import until
from sie_server.engine.device import Device, Work


async def test_a_cpu_shares_its_cores_between_the_batches_that_run_or_wait() -> None:
    device, seen, hold = Device("cpu", 4), list[int](), threading.Event()

    def compute(threads: int) -> None:
        seen.append(threads)
        hold.wait(60)

    def work() -> Work[None]:
        return Work(compute, lambda _: None, lambda _: None)

    device.ask("a", work)
    await until(lambda: len(seen) == 1)
    for _ in range(5):
        device.ask("a", work)
    await until(lambda: len(seen) == 4)
    hold.set()
    await until(lambda: len(seen) == 6)
    await device.close()
    assert seen[0] == 4  # alone on the machine
    assert set(seen[1:4]) == {1}  # more want to run than there are cores


async def test_an_accelerator_has_one_thread_and_one_staged_batch() -> None:
    device, started, formed, hold = Device("cuda", 4), list[int](), list[int](), threading.Event()

    def work(number: int) -> Work[int]:
        formed.append(number)

        def compute(_: int) -> int:
            started.append(number)
            hold.wait(60)
            return number

        return Work(compute, lambda _: None, lambda _: None)

    for number in range(3):
        device.ask("a", partial(work, number))
    await until(lambda: len(started) == 1)
    assert formed == [0, 1]
    hold.set()
    await until(lambda: len(started) == 3)
    await device.close()
    assert started == [0, 1, 2]


async def test_who_declines_gives_the_turn_to_the_next() -> None:
    device, done = Device("cpu", 1), asyncio.get_running_loop().create_future()
    device.ask("a", lambda: None)
    device.ask("a", lambda: Work(lambda threads: threads, done.set_result, done.set_exception))
    async with asyncio.timeout(60):
        assert await done == 1
    await device.close()


async def test_a_model_with_long_batches_gets_no_more_of_the_device_than_one_with_short_ones() -> None:
    now, seconds, done = 0.0, {"long": 10.0, "short": 1.0}, {"long": 0, "short": 0}
    device, over = Device("cpu", 1, lambda: now), asyncio.get_running_loop().create_future()

    def ask(party: str) -> None:
        device.ask(party, partial(batch, party))

    def batch(party: str) -> Work[None]:
        ask(party)  # as a queue does: it always has more

        def compute(_: int) -> None:
            nonlocal now
            now += seconds[party]

        def finished(_: None) -> None:
            done[party] += 1
            if done["short"] == 100 and not over.done():
                over.set_result(None)

        return Work(compute, finished, over.set_exception)

    ask("long")
    ask("short")
    async with asyncio.timeout(60):
        await over
    await device.close()
    assert 9 <= done["long"] <= 12  # turns by batch would have made it 100
