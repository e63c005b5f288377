import asyncio

import pytest

from router_builders import ask, fleet, seen
from sie_router.core.fleet import Fleet
from sie_router.data.parked import ParkedRequests

NOBODY = fleet(seen("w", ready=False))
SOMEBODY = fleet(seen("w"))


class Cluster:
    """What the router sees of it; time stands still."""

    def __init__(self) -> None:
        self.now: Fleet = NOBODY
        self.parked = ParkedRequests(lambda: self.now, lambda: 0.0, max_requests=10, max_bytes=10)

    def park(self) -> "asyncio.Task[bool]":
        return asyncio.create_task(self.parked.wait(ask(), self.now.index, 60.0))

    def becomes(self, fleet: Fleet) -> None:
        self.now = fleet
        self.parked.fleet_changed()


@pytest.mark.parametrize("leaves", [False, True])
async def test_when_a_worker_came_and_went_one_of_those_who_still_wait_goes_on(*, leaves: bool) -> None:
    cluster = Cluster()
    waiting = [cluster.park() for _ in range(12)]  # more than a slow start lets go on at once
    await asyncio.sleep(0)
    cluster.becomes(SOMEBODY)
    await asyncio.sleep(0)
    released = [task for task in waiting if task.done()]
    left = [task for task in waiting if not task.done()]
    assert released
    assert left
    cluster.becomes(NOBODY)
    if leaves:
        left[0].cancel()  # it is woken already, and goes in the same moment
    for _ in range(3):
        await asyncio.sleep(0)
    assert [task.done() for task in left].count(True) == (2 if leaves else 1)
    cluster.parked.close()
    await asyncio.gather(*waiting, return_exceptions=True)
