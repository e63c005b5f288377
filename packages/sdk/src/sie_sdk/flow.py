"""One call as a generator: yields `Send`, `Park` and `Sleep`, is resumed with what happened, returns the result.

Knows nothing of sockets, threads, event loops or clocks; `drivers` runs it, tests run it under virtual time.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, assert_never

from sie_protocol.errors import ErrorCode
from sie_protocol.headers import ATTEMPT, WAIT
from sie_sdk import parking, retry
from sie_sdk.errors import ProvisioningError, RequestError, ServerError, SIEError
from sie_sdk.messages import (
    Answer,
    Effect,
    Flow,
    OnProgress,
    Outcome,
    Parallel,
    Park,
    Plan,
    Request,
    Resume,
    Send,
    Sleep,
    T,
    WaitEvent,
)
from sie_sdk.parking import NO_TRUST, ParkResult, Trust
from sie_sdk.retry import Raise, Return, Terms, Wait, reserve_s


def exchange(request: Request, terms: Terms, start: float) -> Flow[tuple[Answer, float]]:
    """Send the request until it brings a result; returns the answer and when it came.

    Ends within `terms.budget_s` of `start`; every wait is followed by an attempt. For who waits for capacity the router
    keeps the request where it offers that; elsewhere the wait is a sleep.

    Raises:
        SIEError: as `retry` decides.
    """
    tries = _Tries(request, terms, start)
    effect: Effect = tries.attempt(start)
    while True:
        happened = yield effect
        if happened.outcome is None:  # a wait is over
            effect = tries.attempt(happened.now)
            continue
        decided = tries.after(effect, happened.outcome, happened)
        if isinstance(decided, Return):
            return decided.answer, happened.now
        effect = decided


class _Tries:
    """The attempts of one call: what was seen so far, and what to do next."""

    def __init__(self, request: Request, terms: Terms, start: float) -> None:
        self._request = request
        self._terms = terms
        self._start = start
        self._reserved_s = reserve_s(terms)
        self._deadline = start + terms.budget_s - self._reserved_s  # no attempt begins later
        self._trust = Trust() if terms.wait_for_capacity else NO_TRUST
        self._seen: Counter[str] = Counter()
        self._count = 0
        self._began = start  # the effect under way

    def attempt(self, now: float) -> Send:
        """The next attempt, to be answered at once."""
        self._began = now
        # A laptop that slept through the budget still gets its last attempt, hence the lower bound.
        left_s = max(self._deadline - now, 0.0) + self._reserved_s
        return Send(self._marked(), min(self._terms.timeout_s, left_s))

    def after(self, effect: Effect, outcome: Outcome, happened: Resume) -> Return | Sleep | Park:
        """What to do about the outcome of an attempt.

        Raises:
            SIEError: as `retry` decides.
        """
        now = happened.now
        self._count += 1
        result = ParkResult(outcome, self._trust)
        if isinstance(effect, Park):
            result = parking.park_result(outcome, effect.event.delay_s, now - self._began, self._trust)
            self._trust = result.trust
        decision = retry.decide(
            result.outcome,
            asked=str(self._request),
            seen=self._seen,
            now=now,
            deadline=self._deadline,
            terms=self._terms,
            draw=happened.draw,
        )
        match decision:
            case Return():
                return decision
            case Raise(error):
                raise error
            case Wait():
                return self._wait(decision, result, now)
            case _:
                assert_never(decision)

    def _wait(self, told: Wait, result: ParkResult, now: float) -> Sleep | Park:
        refusal = told.refusal
        self._seen[refusal.name] += 1
        self._began = now
        delay_s = told.delay_s if result.most_delay_s is None else min(told.delay_s, result.most_delay_s)
        event = WaitEvent(refusal.name, refusal.message, delay_s, self._count, now - self._start)
        # Should silence come instead of an answer, there is still to be time for an attempt.
        left_s = self._deadline - now
        park_s = parking.park_s(result.outcome, refusal, self._trust, left_s - self._reserved_s) if result.again else 0
        if not park_s:
            return Sleep(event)
        kept = Send(_with(self._marked(), WAIT, park_s), min(park_s + self._terms.timeout_s, left_s))
        key = (self._terms.gpu or "", self._terms.model or "")
        return Park(kept, replace(event, delay_s=float(park_s), held=True), Sleep(event), key)

    def _marked(self) -> Request:
        """The request; routers count clients and not attempts, so all but the first say what they are."""
        return _with(self._request, ATTEMPT, self._count + 1) if self._count else self._request


def _with(request: Request, name: str, value: int) -> Request:
    return replace(request, headers=(*request.headers, (name, str(value))))


def single(request: Request, terms: Terms, parse: Callable[[Answer], T]) -> Plan[T]:
    """A call of one request."""

    def begin(start: float) -> Flow[T]:
        answer, _ = yield from exchange(request, terms, start)
        return parse(answer)

    return begin


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """One request of a call that needs several. `places` says which items it carries; its body is built when it is due.

    `parse` gives one result per item.
    """

    places: slice
    request: Callable[[], Request]
    parse: Callable[[Answer], T]


def many(
    parts: Sequence[Part[Sequence[T]]], total: int, terms: Terms, limit: int, on_progress: OnProgress | None
) -> Plan[list[T]]:
    """A call of several requests, at most `limit` at a time; they share the budget, and results keep their order.

    Raises:
        SIEError: the first that ended a part; its `partial` holds what the others brought.
    """

    def begin(start: float) -> Flow[list[T]]:
        done = 0

        def on_done(at: int) -> None:
            nonlocal done
            done += len(range(*parts[at].places.indices(total)))
            if on_progress is not None:
                on_progress(done, total)

        happened = yield Parallel(tuple(_shared(part, terms, start) for part in parts), limit, on_done)
        results: list[Any] = [None] * total
        for part, result in zip(parts, happened.results, strict=True):
            if result is not None and not isinstance(result, SIEError):
                results[part.places] = result
        failed = next((result for result in happened.results if isinstance(result, SIEError)), None)
        if failed is not None:
            failed.partial = results
            raise failed
        return results

    return begin


def _shared(part: Part[T], terms: Terms, start: float) -> Plan[T]:
    def begin(now: float) -> Flow[T]:
        try:
            answer, _ = yield from exchange(part.request(), _remaining(terms, start, now), now)
            return part.parse(answer)
        except (RequestError, ServerError) as error:  # about what was sent; the others are about the cluster
            raise error.of_part(part.places) from error.__cause__

    return begin


def after(first: Request, request: Request, terms: Terms, parse: Callable[[Answer], T]) -> Plan[T]:
    """A call whose result is that of `request`, made when `first` has succeeded; both share the budget."""

    def begin(start: float) -> Flow[T]:
        _, now = yield from exchange(first, terms, start)
        answer, _ = yield from exchange(request, _remaining(terms, start, now), now)
        return parse(answer)

    return begin


def until(
    request: Request, terms: Terms, parse: Callable[[Answer], T], is_enough: Callable[[T], bool], interval_s: float
) -> Plan[T]:
    """A call that repeats the request every `interval_s` until its result is enough.

    Raises:
        ProvisioningError: the budget is spent.
    """

    def begin(start: float) -> Flow[T]:
        last_start = start + terms.budget_s - reserve_s(terms)
        now = start
        polls = 0
        while True:
            answer, now = yield from exchange(request, _remaining(terms, start, now), now)
            polls += 1
            result = parse(answer)
            if is_enough(result):
                return result
            left_s = last_start - now
            if left_s <= retry.SPENT_S:
                raise _never_ready(terms, polls)
            message = f"no healthy worker of '{terms.gpu}' yet"
            event = WaitEvent(ErrorCode.PROVISIONING, message, min(interval_s, left_s), polls, now - start)
            now = (yield Sleep(event)).now

    return begin


def _remaining(terms: Terms, start: float, now: float) -> Terms:
    left_s = max(start + terms.budget_s - now, reserve_s(terms))
    return replace(terms, budget_s=left_s)


def _never_ready(terms: Terms, polls: int) -> ProvisioningError:
    error = ProvisioningError(
        f"no healthy worker of '{terms.gpu}' within {terms.budget_s:g} s ({polls} looks at the cluster); looking does "
        "not start workers: pass model= to create demand, or wait longer with timeout_s",
        code=ErrorCode.PROVISIONING,
    )
    error.gpu = terms.gpu
    return error
