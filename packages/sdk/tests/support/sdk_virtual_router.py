"""A router that a worker joins at some moment, and what may stand between it and a client; under virtual time."""

import math
from dataclasses import dataclass, field, replace

import sdk_answers as published
from sdk_virtual_time import Scripted, answer
from sie_sdk.messages import Outcome, Request

VECTOR = answer(published.VECTOR)
NEVER = math.inf


@dataclass
class VirtualRouter:
    """Serves from `ready_at` on, and until then offers to keep requests for `max_wait_s`; 0: it knows nothing of that.

    `is_full`: it offers, and then has no room. `drops`: a proxy takes the wish away. `cut_after_s`: a proxy ends what
    takes longer, with the outcome `cut`, or with silence. `lets_go_at`: it shuts down then, and keeps nothing any more.
    `kept` are the seconds for which requests were to be kept.
    """

    ready_at: float = NEVER
    max_wait_s: int = 120
    retry_after_s: float = 120
    is_full: bool = False
    drops: bool = False
    cut_after_s: float = NEVER
    cut: Outcome | None = None
    lets_go_at: float = NEVER
    kept: list[int] = field(default_factory=list)

    def __call__(self, request: Request, now: float) -> Scripted:
        """What comes of a request."""
        if now >= self.ready_at:
            return Scripted(VECTOR)
        asked_s = int(dict(request.headers).get("X-SIE-Wait", "0"))
        if asked_s:
            self.kept.append(asked_s)
        is_kept = asked_s and self.max_wait_s and not (self.is_full or self.drops) and now < self.lets_go_at
        if not is_kept:
            return Scripted(self._come_back(now))
        allowed_s = min(asked_s, self.max_wait_s)
        until = min(now + allowed_s, self.ready_at, self.lets_go_at)
        if until - now > self.cut_after_s:
            return Scripted(VECTOR, NEVER) if self.cut is None else Scripted(self.cut, self.cut_after_s)
        if until == self.ready_at:
            return Scripted(VECTOR, until - now)
        applied = {"preference-applied": f"wait={allowed_s}"}
        return Scripted(self._come_back(until, **applied), until - now)

    def _come_back(self, now: float, **headers: str) -> Outcome:
        found = answer(published.said(202, {"gpu": "l4", "message": "one is started"}))
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        offers = {"x-sie-wait": str(self.max_wait_s)} if self.max_wait_s and now < self.lets_go_at else {}
        delay = {"retry-after": f"{self.retry_after_s:g}"}
        return replace(found, headers={**found.headers, **delay, **named, **offers})
