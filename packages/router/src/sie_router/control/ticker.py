"""Lets time pass: nothing else makes a silent worker stale or an old wish expire."""

import asyncio
from collections.abc import Callable
from typing import Final

EVERY_S: Final = 1.0


async def tick(*actions: Callable[[], None]) -> None:
    """Do all of this once a second; never returns, cancel it."""
    while True:
        for action in actions:
            action()
        await asyncio.sleep(EVERY_S)
