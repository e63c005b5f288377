"""A page for humans who open the router in a browser."""

from collections.abc import Callable
from html import escape
from typing import Final

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from sie_protocol.headers import HEALTH, METRICS, MODELS
from sie_protocol.status import ClusterStatus, WorkerInfo
from sie_protocol.versions import VERSION

_LINKS: Final = (HEALTH, MODELS, METRICS, "/docs")
_STYLE: Final = "body{font:16px system-ui;margin:3em;max-width:60em}td,th{text-align:left;padding:.2em 1.5em .2em 0}"


def page_routes(status: Callable[[], ClusterStatus]) -> APIRouter:
    """`/`."""
    routes = APIRouter()

    @routes.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(render(status()))

    return routes


def render(frame: ClusterStatus) -> str:
    """The page; everything workers say is escaped."""
    links = " &middot; ".join(f'<a href="{path}">{path}</a>' for path in _LINKS)
    head = "".join(f"<th>{title}</th>" for title in ("worker", "profile", "bundle", "healthy", "queue", "models"))
    rows = "".join(_row(worker) for worker in frame.workers) or "<tr><td colspan=6>none yet</td></tr>"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>SIE router</title><style>{_STYLE}</style>"
        f"<h1>SIE router {VERSION}</h1><p>{links}</p><table><tr>{head}</tr>{rows}</table></html>"
    )


def _row(worker: WorkerInfo) -> str:
    cells = (
        worker.name,
        worker.gpu,
        worker.bundle,
        "yes" if worker.healthy else "no",
        str(worker.queue_depth),
        ", ".join(worker.loaded_models),
    )
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
