"""What to do with a batch that failed. Knows nothing of devices, queues or what the failure said.

Lack of memory: free what is only cached, then halve the batch down to single items, then have another model go, then
give up on those items alone. Anything else may be the fault of one input: the requests of the batch run apart, once.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MAX_SPLITS: Final = 6  # a batch has at most 64 items by default: single ones at the end


@dataclass(frozen=True, slots=True)
class History:
    """What a batch has behind it."""

    cleared: bool = False
    splits: int = 0
    evicted: bool = False
    apart: bool = False


class Step(StrEnum):
    """What comes next."""

    CLEAR_CACHES = "clear_caches"
    SPLIT = "split"
    EVICT = "evict"
    ISOLATE = "isolate"
    GIVE_UP = "give_up"


def next_step(history: History, *, items: int, requests: int, is_out_of_memory: bool) -> Step:
    """What to do with a failed batch of so many items of so many requests."""
    if not is_out_of_memory:
        return Step.ISOLATE if requests > 1 and not history.apart else Step.GIVE_UP
    if not history.cleared:
        return Step.CLEAR_CACHES
    if items > 1 and history.splits < MAX_SPLITS:
        return Step.SPLIT
    return Step.GIVE_UP if history.evicted else Step.EVICT
