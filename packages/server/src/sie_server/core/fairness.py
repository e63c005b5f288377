"""Whose turn it is on a device that several parties share: that of whoever has had the least of its time.

The way of start-time fair queueing (Goyal, Vin and Cheng 1996). What a batch takes is known only when it is over, so a
party is charged with what its last one took, and the difference is settled at the end. Idleness is no credit: who
comes back starts where the others are, and who was alone owes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Account:
    """`spent` are seconds of the device on a scale that all parties share; `usual` is what the last batch took."""

    spent: float = 0.0
    usual: float = 0.0

    def joins(self, level: float) -> "Account":
        """It wants a turn; `level` is what the party that started last had spent when it did."""
        return replace(self, spent=max(self.spent, level))

    def starts(self) -> "Account":
        """A batch of it starts."""
        return replace(self, spent=self.spent + self.usual)

    def ends(self, charged: float, seconds: float) -> "Account":
        """The batch that was charged with so much has taken so many seconds."""
        return Account(self.spent + seconds - charged, seconds)


def next_turn(waiting: Sequence[Account]) -> int:
    """The place of the one whose turn it is; of equals the one that has waited longest."""
    return min(range(len(waiting)), key=lambda at: waiting[at].spent)
