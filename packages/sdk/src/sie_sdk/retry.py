"""What to do with an outcome: return it, wait, or raise. Pure: time and chance are arguments.

A call may be repeated without harm, so everything that can pass by itself is retried until the call's time is spent.
Two kinds of refusal differ in who decides: *patient* ones (no capacity, no connection) are retried only for callers who
wait for capacity; the others say "a moment, please" and are retried for everybody.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from sie_protocol.errors import RULES as KNOWN
from sie_protocol.errors import ErrorCode
from sie_sdk.errors import Asker, SIEError, error_for
from sie_sdk.messages import Answer, Loss, Outcome
from sie_sdk.refusals import Refusal, read_refusal

MIN_DELAY_S: Final = 0.1  # also for "Retry-After: 0", so that no server can make a client spin
SPENT_S: Final = 0.001  # less time than this is none: clocks and sleeps are not exact
SPREAD: Final = 0.25  # of a delay, so that many clients told the same do not return together
MAX_OOM_RETRIES: Final = 3
LAST_ATTEMPT_S: Final = 5.0  # of the budget are kept for the attempt after the last wait
_UNAVAILABLE: Final = 503
_IF_INVITED: Final = ErrorCode.QUEUE_UNAVAILABLE  # published gateways give it no delay when it is final


@dataclass(frozen=True, slots=True)
class Terms:
    """What the caller of one call agreed to.

    `timeout_s` bounds one attempt, `budget_s` the whole call with all its waits. `gpu` and `model` name what was asked,
    `pool` the pool that the call itself is about. `max_oom_retries`: after the worker ran out of memory.
    """

    timeout_s: float
    budget_s: float
    wait_for_capacity: bool = True
    gpu: str | None = None
    model: str | None = None
    pool: str | None = None
    max_oom_retries: int = MAX_OOM_RETRIES


@dataclass(frozen=True, slots=True)
class Return:
    """The answer is a result."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class Wait:
    """Try again after `delay_s`, because of `refusal`."""

    delay_s: float
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class Raise:
    """Give up."""

    error: SIEError


@dataclass(frozen=True, slots=True)
class Rule:
    """How one code is retried.

    `delay_s` holds when the server names no delay; it grows by `growth` with every repetition up to `max_delay_s`.
    `early` spreads the delay downwards (an estimate: whoever comes sooner may be lucky), otherwise upwards (a request
    to stay away that long). `limit` is the number of retries.
    """

    delay_s: float
    patient: bool = False
    early: bool = False
    growth: float = 1.0
    max_delay_s: float = 30.0
    limit: int | None = None


_TRANSPORT: Final = Rule(1, patient=True, early=True, growth=2, max_delay_s=5)
_SHED: Final = Rule(1)
_UNNAMED: Final = Rule(5)  # a 503 of unknown code whose sender asks to come back

RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        ErrorCode.PROVISIONING: Rule(5, patient=True, early=True),
        ErrorCode.MODEL_LOADING: Rule(5, early=True),
        ErrorCode.LORA_LOADING: Rule(1, early=True, limit=10),
        ErrorCode.QUEUE_FULL: _SHED,
        ErrorCode.RATE_LIMITED: _SHED,
        ErrorCode.SHUTTING_DOWN: _SHED,
        ErrorCode.WORKER_UNAVAILABLE: _SHED,
        ErrorCode.STORE_UNAVAILABLE: _SHED,
        "BILLING_CAPACITY_UNAVAILABLE": _SHED,  # published gateways only
        ErrorCode.RESOURCE_EXHAUSTED: Rule(5, growth=2),
        ErrorCode.DEADLINE_EXCEEDED: Rule(5, patient=True),
        Loss.CONNECT_FAILED: _TRANSPORT,
        Loss.CONNECTION_LOST: _TRANSPORT,
        Loss.TIMED_OUT: _TRANSPORT,
    }
)


def reserve_s(terms: Terms) -> float:
    """How much of the budget no wait may use, so that every wait is followed by an attempt."""
    return min(LAST_ATTEMPT_S, terms.timeout_s, terms.budget_s / 2)


def decide(
    outcome: Outcome, *, asked: str, seen: Mapping[str, int], now: float, deadline: float, terms: Terms, draw: float
) -> Return | Wait | Raise:
    """Decide about one outcome.

    Args:
        outcome: what came of the request.
        asked: the request, for the message of an error.
        seen: how often this call has waited for each code already.
        now: monotonic time.
        deadline: latest time at which one more attempt may begin.
        terms: what the caller agreed to.
        draw: a random number in [0, 1).
    """
    if isinstance(outcome, Answer) and outcome.is_success:
        return Return(outcome)
    refusal = read_refusal(outcome)
    rule = rule_for(refusal)
    attempt = seen.get(refusal.name, 0) + 1
    left_s = deadline - now
    if rule is None or attempt > _limit(refusal, rule, terms) or not _may_retry(rule, left_s, terms):
        asker = Asker(terms.gpu, terms.model, terms.pool)
        waited = _waited(left_s, terms) if terms.wait_for_capacity else None
        return Raise(error_for(refusal, asked, waited=waited, asker=asker))
    return Wait(min(_delay_s(rule, refusal, attempt, draw), left_s), refusal)


def rule_for(refusal: Refusal) -> Rule | None:
    """How this refusal is retried; None: not at all."""
    rule = RULES.get(refusal.name)
    if rule is not None:
        return rule
    is_known = refusal.code in KNOWN and refusal.code != _IF_INVITED  # another attempt meets the same
    invited = refusal.status == _UNAVAILABLE and refusal.retry_after_s is not None
    return _UNNAMED if invited and not is_known else None


def _waited(left_s: float, terms: Terms) -> str:
    """How much of its time a call has spent; the last of it is not for waiting."""
    spent_s = terms.budget_s - reserve_s(terms) - left_s
    rest = ", the rest is kept for one more attempt" if terms.budget_s - spent_s > SPENT_S else ""
    return f"waited {spent_s:.3g} of {terms.budget_s:g} s{rest}"


def _limit(refusal: Refusal, rule: Rule, terms: Terms) -> float:
    if refusal.name == ErrorCode.RESOURCE_EXHAUSTED:
        return terms.max_oom_retries
    return math.inf if rule.limit is None else rule.limit


def _may_retry(rule: Rule, left_s: float, terms: Terms) -> bool:
    return left_s > SPENT_S and (terms.wait_for_capacity or not rule.patient)


def _delay_s(rule: Rule, refusal: Refusal, attempt: int, draw: float) -> float:
    delay_s = refusal.retry_after_s
    if delay_s is None:
        # The exponent is bounded so that a long outage cannot overflow it.
        delay_s = min(rule.delay_s * rule.growth ** min(attempt - 1, 32), rule.max_delay_s)
    return max(MIN_DELAY_S, delay_s * (1 - SPREAD * draw if rule.early else 1 + SPREAD * draw))
