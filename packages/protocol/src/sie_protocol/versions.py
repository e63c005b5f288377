"""Versions as data: how each generation of clients wants to hear things, and when two sides are too far apart."""

import re
from dataclasses import dataclass
from typing import Final

VERSION: Final = "0.1.10"

_NUMBERS = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")

Version = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one generation of clients hears two answers.

    `provisioning_status`: 202 (a body that says "provisioning") or 503 (code PROVISIONING).
    `health_type`: the value of `type` in `GET /health` that the client insists on.
    """

    provisioning_status: int
    health_type: str


# First client version of each row; the row holds until the next one starts. Clients that send no version (curl,
# browsers) are treated as the oldest. Published clients flipped at exactly these versions.
DIALECTS: Final[tuple[tuple[Version, Dialect], ...]] = (
    ((0, 0, 0), Dialect(202, "router")),
    ((0, 3, 0), Dialect(202, "gateway")),
    ((0, 6, 5), Dialect(503, "gateway")),
)


def parse_version(text: str | None) -> Version | None:
    """First two or three numbers of a version, or None when there are none (`unknown`, absent)."""
    match = _NUMBERS.match(text or "")
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None


def dialect_for(sdk_version: str | None) -> Dialect:
    """The row of `DIALECTS` for a client's `X-SIE-SDK-Version` header."""
    version = parse_version(sdk_version) or (0, 0, 0)
    return next(dialect for first, dialect in reversed(DIALECTS) if version >= first)


def is_skewed(ours: str | None, theirs: str | None) -> bool:
    """True when both versions are readable and differ in major, or by more than one minor."""
    a, b = parse_version(ours), parse_version(theirs)
    return a is not None and b is not None and (a[0] != b[0] or abs(a[1] - b[1]) > 1)
