"""May the router keep a call until a worker can serve it? Pure: time is an argument.

A router that cannot serve a request says how to go on: come back after `Retry-After`, which may be minutes, or send the
request once more with `X-SIE-Wait` and have it parked there (it offers that by the same header in its answer). A parked
request is answered the moment a worker can. Whatever stands between may spoil that: a proxy that drops the header,
one that cuts connections on which nothing happens, a router without room. Then the call goes back to sleeping.
"""

import re
from dataclasses import dataclass, replace
from typing import Final

from sie_protocol.errors import ErrorCode
from sie_protocol.headers import ERROR_CODE, PREFERENCE_APPLIED, WAIT
from sie_sdk.messages import Answer, Loss, Lost, Outcome
from sie_sdk.refusals import Refusal, read_refusal
from sie_sdk.retry import rule_for

PARK_S: Final = 50.0  # less than the 60 s after which common proxies cut a connection on which nothing happens
MIN_PARK_S: Final = 3.0  # a shorter one is not worth a request
SOON_S: Final = 1.0  # after which to ask again when a router let the request go early: it shuts down
MAX_STRIKES: Final = 2  # parked attempts that came to nothing before the call only sleeps
_ROUNDING_S: Final = 1.0
_EARLY: Final = frozenset({ErrorCode.PROVISIONING.value, ErrorCode.MODEL_LOADING.value, ErrorCode.LORA_LOADING.value})
_SECONDS: Final = re.compile(r"\d{1,9}")
_APPLIED: Final = re.compile(r"\bwait\s*=\s*\"?(\d{1,9})")
_REQUEST_TIMEOUT: Final = 408
_SERVER_ERROR: Final = 500


@dataclass(frozen=True, slots=True)
class Trust:
    """What a call has learnt about parking on its way to the router: the longest that may work, and failures so far."""

    most_s: float = PARK_S
    strikes: int = 0

    @property
    def none_left(self) -> bool:
        """True when the call only sleeps from now on."""
        return self.most_s < MIN_PARK_S or self.strikes >= MAX_STRIKES


NO_TRUST: Final = Trust(most_s=0.0)


@dataclass(frozen=True, slots=True)
class ParkResult:
    """What a parked attempt came to: the outcome to go on with, what to trust now, and how the next wait may be.

    `again`: it was parked to its end, so it may be parked once more at once. `most_delay_s` bounds the sleep otherwise.
    """

    outcome: Outcome
    trust: Trust
    again: bool = True
    most_delay_s: float | None = None


def park_s(outcome: Outcome, refusal: Refusal, trust: Trust, left_s: float) -> int:
    """For how many whole seconds to have the next attempt parked; 0: sleep instead.

    Args:
        outcome: of the last attempt; only a router's own offer is taken up.
        refusal: what that outcome says.
        trust: what the call has learnt.
        left_s: time until the attempt must be over.
    """
    if trust.none_left or refusal.code not in _EARLY or not isinstance(outcome, Answer):
        return 0
    offered = outcome.headers.get(WAIT.lower(), "").strip()
    if not _SECONDS.fullmatch(offered):
        return 0
    whole_s = int(min(int(offered), trust.most_s, left_s))
    return whole_s if whole_s >= MIN_PARK_S else 0


def park_result(outcome: Outcome, asked_s: float, took_s: float, trust: Trust) -> ParkResult:
    """What to make of the outcome of an attempt that was to be parked for `asked_s` and took `took_s`."""
    if isinstance(outcome, Lost):
        return ParkResult(outcome, _after_loss(outcome.loss, took_s, trust))
    if outcome.is_success:
        return ParkResult(outcome, trust)
    if _is_proxys(outcome):
        reason = f"the wait was cut after {took_s:.0f} s, with status {outcome.status}"
        return ParkResult(Lost(Loss.CONNECTION_LOST, reason), _shorter(took_s, trust))
    if read_refusal(outcome).code not in _EARLY:
        return ParkResult(outcome, trust)
    applied = _APPLIED.search(outcome.headers.get(PREFERENCE_APPLIED.lower(), ""))
    kept_s = asked_s if applied is None else int(applied[1])
    if applied is not None and took_s >= kept_s - _ROUNDING_S:
        return ParkResult(outcome, trust)
    less = replace(trust, strikes=trust.strikes + 1)
    return ParkResult(outcome, less, again=False, most_delay_s=None if applied is None else SOON_S)


def is_news(outcome: Outcome) -> bool:
    """True when others who wait for the same need wait no longer: the kept request was served, or never will be."""
    if isinstance(outcome, Lost):
        return False
    return outcome.is_success or (ERROR_CODE.lower() in outcome.headers and rule_for(read_refusal(outcome)) is None)


def _is_proxys(answer: Answer) -> bool:
    """True for an error that is not of a router's making: those name their code in a header."""
    is_error = answer.status >= _SERVER_ERROR or answer.status == _REQUEST_TIMEOUT
    return is_error and ERROR_CODE.lower() not in answer.headers


def _after_loss(loss: Loss, took_s: float, trust: Trust) -> Trust:
    match loss:
        case Loss.TIMED_OUT:  # the answer was swallowed, which took the longest to notice
            return replace(trust, most_s=0.0)
        case Loss.CONNECTION_LOST:
            return _shorter(took_s, trust)
        case _:
            return trust


def _shorter(took_s: float, trust: Trust) -> Trust:
    """Whoever cut the wait may let pass one of half the time; one that hardly began may have met a router's restart."""
    half_s = took_s / 2
    if half_s < MIN_PARK_S:
        return replace(trust, strikes=trust.strikes + 1)
    return replace(trust, most_s=min(trust.most_s, half_s))
