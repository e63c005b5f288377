"""Why does a request go where it goes? The plan and the choice of `decide`, with everybody who was passed over.

Costs a walk over the fleet, so it is for people, not for requests.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from sie_router.core.fleet import Fleet, Worker
from sie_router.core.pools import DEFAULT_POOL
from sie_router.core.route import Ask, Decision, Plan, Reject, decide, make_plan
from sie_router.core.score import load


class Why(StrEnum):
    """Why a worker may or may not take a request; the first that applies."""

    OTHER_POOL = "other_pool"
    WRONG_PROFILE = "wrong_profile"
    WRONG_BUNDLE = "wrong_bundle"
    DISCONNECTED = "disconnected"
    STALE = "stale"
    DRAINING = "draining"
    NOT_READY = "not_ready"
    EJECTED = "ejected"
    ELIGIBLE = "eligible"


@dataclass(frozen=True, slots=True)
class Considered:
    """One worker. `load` is what the choice between eligible ones weighs, `has_model` what it prefers."""

    worker: Worker
    why: Why
    has_model: bool
    load: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """`plan` is None where the request was refused before anybody was considered.

    `counts` is about all workers; `considered` shows the first ones, eligible ones before others.
    """

    decision: Decision
    plan: Plan | None
    counts: Mapping[Why, int]
    considered: tuple[Considered, ...]


def explain(fleet: Fleet, ask: Ask, inflight: Mapping[str, int], draw: float, most: int) -> Explanation:
    """What `decide` answers for these arguments, and why; at most `most` workers of the caller's own pool are shown."""
    decision = decide(fleet, ask, inflight, draw)
    plan = make_plan(fleet, ask)
    if isinstance(plan, Reject):
        return Explanation(decision, None, {}, ())
    rotation = {url for ready in plan.candidates() for url in ready.urls}
    pool = DEFAULT_POOL if plan.pool is None else plan.pool.name
    looked_at = [
        Considered(
            worker,
            _why(fleet, plan, pool, worker, is_in_rotation=worker.url in rotation),
            plan.model.key in worker.loaded,
            load(worker, inflight),
        )
        for worker in fleet.workers.values()
    ]
    # Workers of other pools are other tenants' business: they are counted, never shown.
    shown = [each for each in looked_at if each.why is not Why.OTHER_POOL]
    shown.sort(key=lambda each: (each.why is not Why.ELIGIBLE, each.worker.ordinal, each.worker.name, each.worker.url))
    return Explanation(decision, plan, Counter(each.why for each in looked_at), tuple(shown[:most]))


def _why(fleet: Fleet, plan: Plan, pool: str, worker: Worker, *, is_in_rotation: bool) -> Why:
    reasons = (
        (fleet.pool_of(worker) != pool, Why.OTHER_POOL),
        (plan.profile not in {None, worker.profile.lower()}, Why.WRONG_PROFILE),
        (worker.bundle.lower() not in plan.model.bundles, Why.WRONG_BUNDLE),
        (not worker.is_connected, Why.DISCONNECTED),
        (worker.is_stale, Why.STALE),
        (worker.is_draining, Why.DRAINING),
        (not worker.is_ready, Why.NOT_READY),
        (not is_in_rotation, Why.EJECTED),
    )
    return next((why for applies, why in reasons if applies), Why.ELIGIBLE)
