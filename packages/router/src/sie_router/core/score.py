"""How busy a worker is, and when a busy holder of a model must share it. Knows no requests and no networks."""

from collections.abc import Mapping, Sequence
from typing import Final

from sie_router.core.fleet import Worker

SPILL_FACTOR: Final = 2
SPILL_SLACK: Final = 8  # below this a worker that holds the model answers sooner than another one loads it


def load(worker: Worker, inflight: Mapping[str, int]) -> int:
    """Items the worker said it has, plus requests this router sent and has no answer to."""
    return worker.queue_depth + inflight.get(worker.url, 0)


def spill_bound(other_load: int) -> int:
    """The highest load at which a holder keeps its model to itself beside another worker with `other_load`."""
    return SPILL_SLACK + SPILL_FACTOR * other_load


def lighter_of_two(urls: Sequence[str], workers: Mapping[str, Worker], inflight: Mapping[str, int], draw: float) -> str:
    """The less busy of two different candidates, drawn by `draw` in [0, 1); equally busy: the first drawn.

    Two random choices keep queues nearly level and, unlike a scan for the minimum, cost the same for any number of
    candidates and do not send a herd to whoever looked idle in the last status frame.
    """
    count = len(urls)
    if count == 1:
        return urls[0]
    scaled = draw * count
    first = min(int(scaled), count - 1)
    second = min(int((scaled - first) * (count - 1)), count - 2)
    if second >= first:
        second += 1
    one, two = workers[urls[first]], workers[urls[second]]
    return two.url if load(two, inflight) < load(one, inflight) else one.url
