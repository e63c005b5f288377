"""Versions as data: how each generation of clients wants to hear things, and when two sides are too far apart."""

import re
from dataclasses import dataclass, replace
from typing import Final

from sie_protocol.errors import Envelope, ErrorCode, Problem, envelope

VERSION: Final = "0.1.10"

_NUMBERS = re.compile(r"(\d{1,9})\.(\d{1,9})(?:\.(\d{1,9}))?")  # anybody may send any digits

Version = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one generation of clients hears some answers.

    `provisioning_status`: 202 (a body that says "provisioning") or 503 (code PROVISIONING).
    `health_type`: the value of `type` in `GET /health` that the client insists on.
    `passing_code`: what it hears for `PASSING`; None: these codes, because it tries any 503 again.
    `typo_status`: that of GPU_NOT_CONFIGURED, which no client should try again.
    """

    provisioning_status: int
    health_type: str
    passing_code: ErrorCode | None = None
    typo_status: int = 503


# What passes within seconds, in codes that end the call of every published client that reads codes.
PASSING: Final = frozenset({ErrorCode.WORKER_UNAVAILABLE, ErrorCode.STORE_UNAVAILABLE, ErrorCode.SHUTTING_DOWN})


# First client version of each row; the row holds until the next one starts. Published clients flipped at exactly these
# versions: the oldest retry any 503 for 15 minutes, those from 0.6.5 on only the codes they know.
DIALECTS: Final[tuple[tuple[Version, Dialect], ...]] = (
    ((0, 0, 0), Dialect(202, "router", typo_status=400)),
    ((0, 3, 0), Dialect(202, "gateway", typo_status=400)),
    ((0, 6, 5), Dialect(503, "gateway", ErrorCode.MODEL_LOADING)),
    ((0, 9, 0), Dialect(503, "gateway", ErrorCode.QUEUE_UNAVAILABLE)),
)
NO_VERSION: Final = Dialect(202, "router")  # curl, browsers


def parse_version(text: str | None) -> Version | None:
    """First two or three numbers of a version, or None when there are none (`unknown`, absent)."""
    match = _NUMBERS.match(text or "")
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None


def dialect_for(sdk_version: str | None) -> Dialect:
    """The row of `DIALECTS` for a client's `X-SIE-SDK-Version` header."""
    version = parse_version(sdk_version)
    if version is None:
        return NO_VERSION
    return next(dialect for first, dialect in reversed(DIALECTS) if version >= first)


def envelope_for(problem: Problem, sdk_version: str | None) -> Envelope:
    """A refusal as this generation of clients understands it; of another code, `reason` is the one it had."""
    dialect = dialect_for(sdk_version)
    if problem.code is ErrorCode.GPU_NOT_CONFIGURED:
        return replace(envelope(problem), status=dialect.typo_status)
    if dialect.passing_code is None or problem.code not in PASSING:
        return envelope(problem)
    details = {**problem.details, "reason": str(problem.code)}
    return envelope(
        Problem(dialect.passing_code, problem.message, retry_after_s=problem.retry_after_s, details=details)
    )


def is_skewed(ours: str | None, theirs: str | None) -> bool:
    """True when both versions are readable and differ in major, or by more than one minor."""
    a, b = parse_version(ours), parse_version(theirs)
    return a is not None and b is not None and (a[0] != b[0] or abs(a[1] - b[1]) > 1)
