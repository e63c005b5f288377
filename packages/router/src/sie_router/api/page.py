"""A page for humans who open the router in a browser."""

from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from sie_protocol.headers import HEALTH, METRICS, MODELS
from sie_protocol.status import ClusterStatus, PoolSummary, WorkerInfo
from sie_protocol.versions import VERSION
from sie_router.core.pools import Caller
from sie_router.data.caller import seen_as

_LINKS: Final = (HEALTH, MODELS, METRICS, "/docs")
_STYLE: Final = "body{font:16px system-ui;margin:3em;max-width:60em}td,th{text-align:left;padding:.2em 1.5em .2em 0}"


def page_routes(status: Callable[[Caller], ClusterStatus]) -> APIRouter:
    """`/`."""
    routes = APIRouter()

    @routes.get("/", include_in_schema=False)
    async def page(request: Request) -> HTMLResponse:
        return HTMLResponse(render(status(seen_as(request.scope))))

    return routes


def render(frame: ClusterStatus) -> str:
    """The page; everything workers and callers say is escaped."""
    links = " &middot; ".join(f'<a href="{path}">{path}</a>' for path in _LINKS)
    workers = _table(
        ("worker", "profile", "bundle", "healthy", "breaker", "queue", "models"), map(_worker, frame.workers)
    )
    pools = _table(("pool", "state", "reserves", "workers", "lease"), map(_pool, frame.pools))
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>SIE router</title><style>{_STYLE}</style>"
        f"<h1>SIE router {VERSION}</h1><p>{links}</p>{workers}{pools}</html>"
    )


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{title}</th>" for title in titles)
    lines = ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    body = "".join(lines) or f"<tr><td colspan={len(titles)}>none yet</td></tr>"
    return f"<table><tr>{head}</tr>{body}</table>"


def _worker(worker: WorkerInfo) -> tuple[str, ...]:
    is_healthy = "yes" if worker.healthy else "no"
    models = ", ".join(worker.loaded_models)
    return worker.name, worker.gpu, worker.bundle, is_healthy, worker.breaker, str(worker.queue_depth), models


def _pool(pool: PoolSummary) -> tuple[str, ...]:
    reserves = ", ".join(f"{count} x {profile}" for profile, count in pool.gpus.items())
    lease = "" if pool.lease_s is None else f"{pool.lease_s:.0f} s"
    return pool.name, pool.state, reserves, str(pool.worker_count), lease
