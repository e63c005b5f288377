"""Keeps a task alive that is to run as long as the router: whatever ends it is logged, and it is begun again."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, MutableMapping
from typing import Final

from sie_router.core.backoff import backoff_s

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0  # half of the time after which a silent worker gets nothing new
LASTED_S: Final = 60.0  # a task that ran this long begins anew with the first pause

logger = logging.getLogger(__name__)


async def supervise(
    name: str,
    begin: Callable[[], Coroutine[None, None, None]],
    restarts: MutableMapping[str, int],
    draw: Callable[[], float],
) -> None:
    """Run what `begin` makes, again and again; never returns, cancel it.

    `restarts` counts under `name` how often the task ended. `draw` is uniform in [0, 1).
    """
    clock = asyncio.get_running_loop().time
    failures = 0
    while True:
        began = clock()
        try:
            await begin()
            logger.error("the task '%s' ended by itself and is begun again", name)
        except Exception:
            logger.exception("the task '%s' failed and is begun again", name)
        restarts[name] = restarts.get(name, 0) + 1
        failures = 0 if clock() - began > LASTED_S else failures
        await asyncio.sleep(backoff_s(failures, draw(), FIRST_PAUSE_S, LONGEST_PAUSE_S))
        failures += 1
