import asyncio
import threading
from functools import partial

from gated_adapter import until
from sie_server.engine.device import Device, Work


async def test_a_cpu_shares_its_cores_between_the_batches_that_run_or_wait() -> None:
    device, seen, hold = Device("cpu", 4), list[int](), threading.Event()

    def compute(threads: int) -> None:
        seen.append(threads)
        hold.wait(10)

    def work() -> Work[None]:
        return Work(compute, lambda _: None, lambda _: None)

    device.ask(work)
    await until(lambda: len(seen) == 1)
    for _ in range(5):
        device.ask(work)
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
            hold.wait(10)
            return number

        return Work(compute, lambda _: None, lambda _: None)

    for number in range(3):
        device.ask(partial(work, number))
    await until(lambda: len(started) == 1)
    assert formed == [0, 1]
    hold.set()
    await until(lambda: len(started) == 3)
    await device.close()
    assert started == [0, 1, 2]


async def test_who_declines_gives_the_turn_to_the_next() -> None:
    device, done = Device("cpu", 1), asyncio.get_running_loop().create_future()
    device.ask(lambda: None)
    device.ask(lambda: Work(lambda threads: threads, done.set_result, done.set_exception))
    async with asyncio.timeout(10):
        assert await done == 1
    await device.close()
