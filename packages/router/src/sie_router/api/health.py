"""Is the router alive, may it be given traffic, and what does the cluster look like."""

from collections.abc import Callable
from enum import Enum

import msgspec
from fastapi import APIRouter, Request, Response

from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.headers import HEALTH, HEALTHZ, JSON, READYZ, SDK_VERSION
from sie_protocol.status import ClusterStatus
from sie_protocol.versions import dialect_for
from sie_router.api.views import live_profiles
from sie_router.core.fleet import Fleet
from sie_router.core.pools import Caller
from sie_router.core.route import waits_for
from sie_router.data.caller import seen_as


class Phase(Enum):
    """Where in its life the router is."""

    STARTING = "starting"
    UNREAD = "waiting for its catalogue"
    SERVING = "serving"
    DRAINING = "draining"


def health_routes(
    snapshot: Callable[[], Fleet], status: Callable[[Caller], ClusterStatus], phase: Callable[[], Phase]
) -> APIRouter:
    """`/healthz`, `/readyz` and `/health`."""
    routes = APIRouter(tags=["health"])

    @routes.get(HEALTHZ)
    async def healthz() -> Response:
        """Always 200 while the process answers at all."""
        return _json({"status": "ok"})

    @routes.get(READYZ)
    async def readyz() -> Response:
        """Tell 200 also without any worker: only a router that gets requests can ask for one."""
        now = phase()
        if now is Phase.DRAINING:
            raise Problem(ErrorCode.SHUTTING_DOWN, f"this router is {now.value}; use another one")
        if now is not Phase.SERVING:
            waiting = f" and waits for {waits_for(snapshot())}" if snapshot().unheard else ""
            raise Problem(ErrorCode.STORE_UNAVAILABLE, f"this router is {now.value}{waiting}; use another one")
        healthy = sum(worker.is_trusted for worker in snapshot().workers.values())
        return _json({"status": "ready", "healthy_workers": healthy})

    @routes.get(HEALTH)
    async def health(request: Request) -> Response:
        """Describe the cluster; `type` is what the client's generation insists on."""
        fleet, frame = snapshot(), status(seen_as(request.scope))
        return _json(
            {
                "status": "healthy" if frame.cluster.worker_count else "degraded",
                "type": dialect_for(request.headers.get(SDK_VERSION)).health_type,
                "cluster": frame.cluster,
                "configured_gpu_types": fleet.profiles,
                "live_gpu_types": live_profiles(fleet),
                "workers": frame.workers,
                "models": frame.models,
                "pools": frame.pools,
            }
        )

    return routes


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type=JSON)
