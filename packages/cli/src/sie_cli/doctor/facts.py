"""What the doctor saw, as values. Who reads them decides; who gathers them does not."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any, Final

from sie_cli.api import Reply

OK: Final = 200


class Gap(StrEnum):
    """Why there is no answer at all."""

    NAME = auto()  # nobody has this host name
    REFUSED = auto()  # nobody listens
    TLS = auto()
    TIMEOUT = auto()
    OTHER = auto()


@dataclass(frozen=True, slots=True)
class NoReply:
    """No answer arrived; `reason` is the system's word for it."""

    gap: Gap
    reason: str


Heard = Reply | NoReply


@dataclass(frozen=True, slots=True)
class Asked:
    """What the doctor was told to try. `routers`: replicas that Prometheus should scrape, None when not known."""

    url: str
    model: str  # empty: none, so nothing is asked
    version: str
    profile: str | None = None
    pool: str | None = None
    has_key: bool = False
    prometheus: str | None = None
    routers: int | None = None
    wait_s: float = 60.0


@dataclass(frozen=True, slots=True)
class PrometheusFacts:
    """`routers`: how many are scraped. `demand`: what the autoscaler's query gave, None for no series.

    `trouble` is set, and the others mean nothing, when Prometheus did not answer.
    """

    routers: int = 0
    demand: float | None = None
    query: str = ""
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of the planted request, `at` seconds after the first one."""

    at: float
    heard: Heard


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that was seen; what could not be asked any more is None or empty.

    `demand`: pools that wait, by (machine profile, bundle), after the first try; None when metrics cannot be read.
    """

    asked: Asked
    health: Heard
    model: Heard | None = None
    route: Heard | None = None
    attempts: tuple[Attempt, ...] = ()
    metrics: Heard | None = None
    demand: Mapping[tuple[str, str], float] | None = None
    prometheus: PrometheusFacts | None = None


def decision_of(route: Heard | None) -> Mapping[str, Any]:
    """Where the router would send the request; empty when it did not say."""
    value = route.value if isinstance(route, Reply) and route.status == OK else None
    decision = value.get("decision") if isinstance(value, dict) else None
    return decision if isinstance(decision, dict) else {}
