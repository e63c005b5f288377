"""How long to wait before something that failed is tried again."""

from typing import Final

_MOST_DOUBLINGS: Final = 16


def backoff_s(failures: int, draw: float, first_s: float, longest_s: float) -> float:
    """Seconds to wait after so many failures in a row: `first_s`, then twice as long each time up to `longest_s`.

    `draw` in [0, 1) spreads the herd: at least half of that is waited.
    """
    return min(longest_s, first_s * 2.0 ** min(failures, _MOST_DOUBLINGS)) * (0.5 + draw / 2)
