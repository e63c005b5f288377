import asyncio
import threading

from gated_adapter import Clock, until
from sie_server.adapters.shared.accelerator import self_test
from sie_server.engine.device import Device, Work
from sie_server.engine.health import DeviceHealth, HealthLimits
from sie_server.engine.signal import Signal


def wait(event: threading.Event) -> None:
    assert event.wait(60)


async def test_a_device_that_fails_is_found_and_one_that_recovers_is_trusted_again() -> None:
    device, errors = Device("cpu", 1), [RuntimeError("gone")]

    def test(_: str) -> None:
        if errors:
            raise errors.pop()

    health = DeviceHealth(device, test, HealthLimits(), Clock(), Signal())
    found = []
    for _ in range(2):
        await health.check()
        found.append(health.problem)
    assert found == ["it failed its self-test", None]
    await device.close()


async def test_a_device_that_hangs_is_found_and_trusted_when_it_moves_again() -> None:
    device, hold, changed = Device("cuda", 1), threading.Event(), Signal()
    health = DeviceHealth(device, lambda _: wait(hold), HealthLimits(1, 0.02), Clock(), changed)
    checking = asyncio.create_task(health.check())
    await until(lambda: "computed nothing" in str(health.problem))
    hold.set()
    await checking
    await until(lambda: health.problem is None)
    assert changed.version == 2  # routers hear of both
    await device.close()


async def test_a_processor_that_is_busy_with_a_long_batch_computes() -> None:
    device, hold, begun = Device("cpu", 1), threading.Event(), threading.Event()

    def long(_: int) -> None:
        begun.set()
        wait(hold)

    device.ask("a", lambda: Work(long, lambda _: None, lambda _: None))
    await until(begun.is_set)
    health = DeviceHealth(device, lambda _: None, HealthLimits(1, 0), Clock(), Signal())
    await health.check()
    assert health.problem is None
    hold.set()
    await device.close()


async def test_a_device_that_computes_is_not_tried() -> None:
    device, clock, tried = Device("cpu", 1), Clock(), list[str]()
    health = DeviceHealth(device, tried.append, HealthLimits(0.01, 1), clock, Signal())
    watching = asyncio.create_task(health.watch())
    for _ in range(3):
        health.computed()
        await asyncio.sleep(0.02)  # the watch looks, and sees no time pass
    assert not tried
    clock.now += 1
    await until(lambda: bool(tried))
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await device.close()


def test_this_machine_computes() -> None:
    self_test("cpu")
