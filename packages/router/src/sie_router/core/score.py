"""How busy a worker is, and when a busy holder of a model must share it. Knows no requests and no networks."""

from collections.abc import Mapping, Sequence
from typing import Final

from sie_router.core.fleet import Worker

COMFORT: Final = 2  # while one request is computed the next one is read: as good as idle
_WIDER: Final = 4
SPILL_FACTOR: Final = 2
SPILL_SLACK: Final = 8  # below this a worker that holds the model answers sooner than another one loads it


def load(worker: Worker, inflight: Mapping[str, int]) -> int:
    """Items the worker said it has, plus requests this router sent and has no answer to."""
    return worker.queue_depth + inflight.get(worker.url, 0)


def spill_bound(other_load: int) -> int:
    """The highest load at which a holder keeps its model to itself beside another worker with `other_load`."""
    return SPILL_SLACK + SPILL_FACTOR * other_load


def pressure(worker: Worker, inflight: Mapping[str, int]) -> float:
    """How long a further request would wait here, in comparison; a worker that has just begun counts as slower."""
    return (worker.queue_depth + inflight.get(worker.url, 0) + 1) / worker.weight


def pick(urls: Sequence[str], workers: Mapping[str, Worker], inflight: Mapping[str, int], draw: float) -> str:
    """One of the candidates, which are sorted with the lowest ordinal first; `draw` is uniform in [0, 1).

    Under load: the lighter of two drawn ones. That keeps queues nearly level and, unlike a scan for the minimum, costs
    the same for any number of candidates and sends no herd to whoever looked idle in the last status frame. While the
    drawn one is as good as idle, so may be a lower one: windows that begin at the lowest and widen fourfold are
    searched, so that the highest stay without work and can be removed.
    """
    count = len(urls)
    if count == 1:
        return urls[0]
    one, two = _places(count, draw)
    first, second = pressure(workers[urls[one]], inflight), pressure(workers[urls[two]], inflight)
    best, least = (two, second) if second < first else (one, first)
    width = 2
    while least <= COMFORT and width <= count:
        for place in sorted(_places(width, draw)):
            if pressure(workers[urls[place]], inflight) <= COMFORT:
                return urls[place]
        width *= _WIDER
    return urls[best]


def _places(count: int, draw: float) -> tuple[int, int]:
    """Two different places below `count`, which is at least 2."""
    scaled = draw * count
    first = min(int(scaled), count - 1)
    second = min(int((scaled - first) * (count - 1)), count - 2)
    return first, second + (second >= first)
