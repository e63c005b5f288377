"""Figures of repeated rounds."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Figures:
    """What one round found, by name: how fast each side was, and how they compare within this round."""

    rates: dict[str, float] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return "  ".join(f"{name} {value:.3g}" for name, value in self.ratios.items())


def table(rounds: Sequence[Mapping[str, float]]) -> str:
    """Median and range of each figure that every round has."""
    return "\n".join(_line(name, [each[name] for each in rounds]) for name in rounds[0])


def _line(name: str, values: Sequence[float]) -> str:
    return f"{name:<52}{statistics.median(values):>10.4g}   ({min(values):.4g} to {max(values):.4g})"
