"""Keeps reserved pools: which lease is due, and what a renewal's outcome means.

A pool lives as long as somebody renews its lease. `keep` is the flow that does so for as long as its client is open; it
is driven like any call, in the background, until the client is closed. Knows nothing of clocks, threads or logs.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from sie_sdk import retry
from sie_sdk.errors import PoolNotFoundError, SIEError
from sie_sdk.messages import Flow, Loss, Pause, Plan, Request, Send
from sie_sdk.retry import Raise, Terms

RENEW_EVERY_S: Final = 60.0
PER_LEASE: Final = 4  # renewals in the time of one lease, so that several in a row may fail
RETRY_S: Final = 1.0
MAX_RETRY_S: Final = 15.0
MIN_ATTEMPT_S: Final = 1.0
SPREAD: Final = 0.1  # of an interval, so that clients that started together do not renew together for ever


@dataclass(frozen=True, slots=True, eq=False)
class Lease:
    """One pool to keep. `create` makes it, and makes it anew when it is gone; `made_at` is monotonic."""

    name: str
    create: Request
    renew: Request
    delete: Request
    made_at: float
    every_s: float = RENEW_EVERY_S


@dataclass(frozen=True, slots=True)
class Due:
    """When a lease is to be renewed, and how many attempts in a row failed."""

    at: float
    failures: int = 0


class Change(StrEnum):
    """What became of a lease, told when it becomes so and not at every renewal."""

    FAILING = "FAILING"
    RECOVERED = "RECOVERED"
    CREATED_ANEW = "CREATED_ANEW"


Tell = Callable[[str, Change, SIEError | None], None]


class LeaseBook:
    """The pools that a client keeps, by name. Calls add and drop leases; the keeper reads them and writes failures."""

    def __init__(self, begin: Callable[[], None], tell: Tell) -> None:
        self._begin = begin
        self._tell = tell
        self._leases: dict[str, Lease] = {}
        self.failures: dict[str, SIEError] = {}

    def hold(self, lease: Lease) -> None:
        """Keep a pool from now on, in the place of an older lease of the same name."""
        self._leases[lease.name] = lease
        self.failures.pop(lease.name, None)
        self._begin()

    def drop(self, name: str) -> None:
        """Keep it no longer."""
        self._leases.pop(name, None)
        self.failures.pop(name, None)

    def get(self, name: str) -> Lease | None:
        """The lease of a pool, if it is kept."""
        return self._leases.get(name)

    def holds(self, lease: Lease) -> bool:
        """True unless it was dropped or replaced."""
        return self._leases.get(lease.name) is lease

    def leases(self) -> tuple[Lease, ...]:
        """All that are kept."""
        return tuple(self._leases.values())

    def note(self, lease: Lease, error: SIEError | None, *, is_new: bool) -> None:
        """Write down what became of a renewal."""
        if not self.holds(lease):
            return
        failed_before = lease.name in self.failures
        if error is not None:
            self.failures[lease.name] = error
            if not failed_before:
                self._tell(lease.name, Change.FAILING, error)
            return
        self.failures.pop(lease.name, None)
        if is_new:
            self._tell(lease.name, Change.CREATED_ANEW, None)
        elif failed_before:
            self._tell(lease.name, Change.RECOVERED, None)


def interval_s(lease_s: float | None) -> float:
    """How often to renew a lease of this length; None: the server did not say."""
    return RENEW_EVERY_S if lease_s is None else min(RENEW_EVERY_S, lease_s / PER_LEASE)


def after(lease: Lease, failures: int, now: float, draw: float) -> Due:
    """When to renew next, after this many failures in a row; 0: it has just worked."""
    delay_s = lease.every_s
    if failures:
        delay_s = min(RETRY_S * 2 ** min(failures - 1, 10), MAX_RETRY_S, lease.every_s)
    return Due(now + delay_s * (1 - SPREAD * draw), failures)


def keep(book: LeaseBook, terms: Terms) -> Plan[None]:
    """Renew every lease of the book when it is due, until the driver is closed. Only closing ends it."""

    def begin(start: float) -> Flow[None]:
        due: dict[Lease, Due] = {}
        now = start
        while True:
            due = {lease: due.get(lease, Due(lease.made_at + lease.every_s)) for lease in book.leases()}
            lease = min(due, key=lambda each: due[each].at, default=None)
            # A lease that is made during the pause is due later than this one, so nobody has to wake the keeper.
            pause_s = RENEW_EVERY_S / PER_LEASE if lease is None else due[lease].at - now
            if lease is None or pause_s > 0:
                now = (yield Pause(pause_s)).now
                continue
            now, draw, failed = yield from _renew(book, lease, terms)
            due[lease] = after(lease, due[lease].failures + 1 if failed else 0, now, draw)

    return begin


def _renew(book: LeaseBook, lease: Lease, terms: Terms) -> Flow[tuple[float, float, bool]]:
    """Renew once, or make the pool anew if it is gone; returns the time, a random number and whether that failed."""
    now, draw, error = yield from _attempt(lease.renew, lease, terms)
    is_gone = isinstance(error, PoolNotFoundError) and book.holds(lease)
    if is_gone:
        now, draw, error = yield from _attempt(lease.create, lease, terms)
        if error is None and not book.holds(lease):
            yield from _attempt(lease.delete, lease, terms)  # it was deleted while it was being made
    book.note(lease, error, is_new=is_gone)
    return now, draw, error is not None


def _attempt(request: Request, lease: Lease, terms: Terms) -> Flow[tuple[float, float, SIEError | None]]:
    happened = yield Send(request, min(terms.timeout_s, max(lease.every_s, MIN_ATTEMPT_S)))
    assert happened.outcome is not None  # noqa: S101 - a driver without an outcome is a bug
    # No time left for retries: when to try again is the keeper's own decision.
    asker = replace(terms, pool=lease.name)
    decision = retry.decide(
        happened.outcome, asked=str(request), seen={}, now=0.0, deadline=0.0, terms=asker, draw=happened.draw
    )
    error = decision.error if isinstance(decision, Raise) else None
    if error is not None and error.code == Loss.CLIENT_CLOSED:
        raise error
    return happened.now, happened.draw, error
