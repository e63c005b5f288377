"""Lets time pass: nothing else makes a silent worker stale or old demand expire."""

import asyncio
from collections.abc import Callable
from typing import Final

EVERY_S: Final = 1.0
LISTEN_S: Final = 0.1  # enough to read what is there


async def tick(*actions: Callable[[], None], every_s: float = EVERY_S) -> None:
    """Do all of this once a second; never returns, cancel it.

    A process that stood still for a while first hears what the others said meanwhile: the silence was its own.
    """
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        if loop.time() - due > every_s:
            await asyncio.sleep(LISTEN_S)
        for action in actions:
            action()
        due = loop.time() + every_s
        await asyncio.sleep(every_s)
