"""The one place where the fleet changes."""

from collections.abc import Callable

from sie_router.core.events import Event, apply
from sie_router.core.fleet import Fleet


class FleetStore:
    """Holds the current snapshot. Single writer: everything runs on one event loop, and `publish` never awaits.

    Readers keep the reference they took; a snapshot never changes under them.
    """

    def __init__(self, fleet: Fleet, clock: Callable[[], float]) -> None:
        self._fleet = fleet  # only `publish` assigns it
        self._clock = clock
        self._watchers: list[Callable[[], None]] = []

    def watch(self, changed: Callable[[], None]) -> None:
        """Call this after every event. It must be quick, and must not publish."""
        self._watchers.append(changed)

    def snapshot(self) -> Fleet:
        """The fleet as of the last event."""
        return self._fleet

    def publish(self, event: Event) -> None:
        """Swap in the fleet after this event."""
        self._fleet = apply(self._fleet, event, self._clock())
        for changed in self._watchers:
            changed()
