import asyncio
import socket
import time

import uvloop

from sie_router.control.ticker import tick


def test_a_process_that_stood_still_hears_the_others_before_it_calls_them_silent() -> None:
    async def stood_still() -> list[str]:
        events: list[str] = []
        here, there = socket.socketpair()
        here.setblocking(False)
        loop = asyncio.get_running_loop()
        loop.add_reader(here, lambda: events.append("heard " + here.recv(1).decode()))
        ticking = asyncio.create_task(tick(lambda: events.append("tick"), every_s=0.05))
        await asyncio.sleep(0)
        there.send(b"1")
        time.sleep(0.2)  # noqa: ASYNC251 - this is what the claim is about
        while len(events) < 3:  # noqa: ASYNC110 - it ends by itself
            await asyncio.sleep(0.01)
        ticking.cancel()
        loop.remove_reader(here)
        here.close()
        there.close()
        return events[:3]  # another tick may have come meanwhile

    for run in (asyncio.run, uvloop.run):
        assert run(stood_still()) == ["tick", "heard 1", "tick"]
