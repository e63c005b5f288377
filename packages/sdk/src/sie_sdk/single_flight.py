"""Single flight: of the calls that wait for the same thing, the router keeps one, the leader.

The others sleep here until that one brought news, and leaders never take most of the connections. So a list in parts,
or a thousand calls at once, take one place of the router, and the connections stay free for what can be served.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from sie_sdk.messages import Outcome, ParkKey
from sie_sdk.parking import is_news


class Event(Protocol):
    """An event of threads or of asyncio."""

    def set(self) -> None:
        """Wake whoever waits."""
        ...


E = TypeVar("E", bound=Event)


@dataclass(slots=True)
class Group(Generic[E]):
    """Those who wait for the same; `is_led` while the router keeps a request of one of them."""

    news: E
    size: int = 0
    is_led: bool = False


@dataclass(frozen=True, slots=True)
class Member(Generic[E]):
    """One call: the leader sends its request, for the others `news` is set when there is any."""

    news: E
    is_leader: bool
    came: Callable[[Outcome], None]


class SingleFlight(Generic[E]):
    """At most `limit` leaders, for any number of threads."""

    def __init__(self, limit: int, new_event: Callable[[], E]) -> None:
        self._limit = limit
        self._new_event = new_event
        self._lock = threading.Lock()  # guards the two below
        self._groups: dict[ParkKey, Group[E]] = {}
        self._leaders = 0

    @contextmanager
    def join(self, key: ParkKey) -> Iterator[Member[E]]:
        """One of a group for as long as the block runs; the leader says by `came` what came of its request."""
        with self._lock:
            group = self._groups.setdefault(key, Group(self._new_event()))
            is_leader = not group.is_led and self._leaders < self._limit
            group.size += 1
            group.is_led |= is_leader
            self._leaders += is_leader
        try:
            yield Member(group.news, is_leader, lambda outcome: self._came(key, group, outcome))
        finally:
            with self._lock:
                group.size -= 1
                group.is_led &= not is_leader
                self._leaders -= is_leader
                if not group.size:
                    self._forget(key, group)

    def close(self) -> None:
        """Wake everybody: the client is closed."""
        with self._lock:
            for group in self._groups.values():
                group.news.set()

    def _came(self, key: ParkKey, group: Group[E], outcome: Outcome) -> None:
        if is_news(outcome):
            with self._lock:
                self._forget(key, group)  # whoever waits from now on waits for other news
                group.news.set()

    def _forget(self, key: ParkKey, group: Group[E]) -> None:
        if self._groups.get(key) is group:
            del self._groups[key]
