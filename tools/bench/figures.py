"""Figures of repeated rounds."""

import statistics


class Figures:
    """Values by name, one for each round."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}

    def add(self, name: str, value: float) -> None:
        """One round's value."""
        self._values.setdefault(name, []).append(value)

    def line(self) -> str:
        """The last round."""
        return "  ".join(f"{name} {values[-1]:.4g}" for name, values in self._values.items())

    def table(self) -> str:
        """Median and range of each."""
        return "\n".join(
            f"{name:<52}{statistics.median(values):>10.4g}   ({min(values):.4g} to {max(values):.4g})"
            for name, values in self._values.items()
        )
