"""Answers "where would this request go, and why": `GET /v1/route/explain`. Routes nothing, and creates no demand."""

from collections.abc import Callable, Mapping
from typing import Any, Final, assert_never

import msgspec
from fastapi import APIRouter, Request, Response

from sie_protocol.headers import JSON, ROUTE_EXPLAIN
from sie_protocol.target import parse_model, parse_target
from sie_router.core.explain import Considered, Explanation, explain
from sie_router.core.fleet import Fleet
from sie_router.core.pools import DEFAULT_POOL
from sie_router.core.route import Ask, Decision, Forward, Provision, Reject
from sie_router.data.caller import caller_of

MOST_WORKERS: Final = 100


def explain_routes(
    snapshot: Callable[[], Fleet], inflight: Callable[[], Mapping[str, int]], draw: Callable[[], float]
) -> APIRouter:
    """`/v1/route/explain`."""
    routes = APIRouter(tags=["inference"])

    @routes.get(ROUTE_EXPLAIN)
    async def explain_route(request: Request, model: str, profile: str = "", pool: str = "") -> Response:
        """Say who would get a request of this model, machine profile and pool now, and why not the others."""
        target = parse_target(profile, pool)
        ask = Ask(parse_model(model), target.profile, target.pool, caller=caller_of(request.scope))
        found = explain(snapshot(), ask, inflight(), draw(), MOST_WORKERS)
        return Response(msgspec.json.encode(_shown(found)), media_type=JSON)

    return routes


def _shown(found: Explanation) -> dict[str, Any]:
    plan = found.plan
    return {
        "decision": _decided(found.decision),
        "model": None if plan is None else plan.model.model_id,
        "bundles": [] if plan is None else plan.model.bundles,
        "profile": None if plan is None else plan.profile,
        "pool": None if plan is None else (DEFAULT_POOL if plan.pool is None else plan.pool.name),
        "counts": found.counts,
        "workers": [_worker(each) for each in found.considered],
        "workers_left_out": sum(found.counts.values()) - len(found.considered),
    }


def _decided(decision: Decision) -> dict[str, Any]:
    match decision:
        case Forward(worker):
            return {"action": "forward", "worker": worker.name, "url": worker.url}
        case Provision(group, is_configured, _, pool):
            where = {"profile": group.profile, "bundle": group.bundle, "pool": pool}
            return {"action": "provision", **where, "creates_demand": is_configured}
        case Reject(code, message):
            return {"action": "reject", "code": code, "message": message}
        case _:
            assert_never(decision)


def _worker(each: Considered) -> dict[str, Any]:
    worker = each.worker
    return {
        "name": worker.name,
        "url": worker.url,
        "profile": worker.profile,
        "bundle": worker.bundle,
        "why": each.why,
        "has_model": each.has_model,
        "load": each.load,
    }
