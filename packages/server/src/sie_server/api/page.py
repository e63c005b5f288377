"""A page for humans who open the worker in a browser."""

import time
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Final

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from sie_protocol.headers import METRICS, MODELS, READYZ
from sie_protocol.status import GpuStatus, ModelStatus, WorkerStatus
from sie_server.api.status_ws import StatusFeed

_LINKS: Final = (MODELS, READYZ, METRICS, "/docs")
_STYLE: Final = "body{font:16px system-ui;margin:3em;max-width:60em}td,th{text-align:left;padding:.2em 1.5em .2em 0}"
_MIB: Final = 1 << 20


def add_page(app: FastAPI, feed: Callable[[], StatusFeed]) -> None:
    """`/`."""

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(render(feed().frame(time.time())))


def render(frame: WorkerStatus) -> str:
    """The page; every name is escaped, and nothing is fetched from elsewhere."""
    state = "draining" if frame.draining else "ready" if frame.ready else "not ready"
    own = (("name", frame.name), ("machine profile", frame.machine_profile), ("pool", frame.pool_name))
    facts = (*own, ("bundle", frame.bundle), ("state", state), ("items waiting", str(frame.queue_depth)))
    links = " &middot; ".join(f'<a href="{path}">{path}</a>' for path in _LINKS)
    about = _table(("this worker", ""), [(name, value or "none") for name, value in facts])
    models = _table(("model", "also asked for as", "state", "waiting", "memory"), map(_model, frame.models))
    devices = _table(("device", "", "memory"), map(_gpu, frame.gpus)) if frame.gpus else ""
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>SIE worker</title><style>{_STYLE}</style>"
        f"<h1>SIE worker {escape(frame.version)}</h1><p>{links}</p>{about}{models}{devices}</html>"
    )


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{title}</th>" for title in titles)
    lines = ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    body = "".join(lines) or f"<tr><td colspan={len(titles)}>none yet</td></tr>"
    return f"<table><tr>{head}</tr>{body}</table>"


def _model(model: ModelStatus) -> tuple[str, ...]:
    return model.name, ", ".join(model.aliases), model.state, str(model.queue_depth), _memory(model.memory_bytes)


def _gpu(gpu: GpuStatus) -> tuple[str, ...]:
    return gpu.device, gpu.name, f"{_memory(gpu.memory_used_bytes)} of {_memory(gpu.memory_total_bytes)}"


def _memory(size_bytes: int) -> str:
    return f"{size_bytes / _MIB:,.0f} MiB"
