"""The worker's routes: inference as plain ASGI, the rest through FastAPI, one error shape for all."""

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
from fastapi import FastAPI, WebSocket
from fastapi.responses import PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from sie_protocol import headers
from sie_protocol.compat import described, listed
from sie_protocol.errors import Problem, no_socket_at
from sie_protocol.items import EncodeRequest, ExtractRequest, ScoreRequest
from sie_protocol.versions import VERSION
from sie_server.api.compat import compat_error
from sie_server.api.edge import Edge, error_response, on_bug, on_http_error, on_problem
from sie_server.api.embeddings import EmbeddingsRequest, embeddings
from sie_server.api.encode import encode
from sie_server.api.extract import extract
from sie_server.api.openapi import Described, describe
from sie_server.api.page import add_page
from sie_server.api.rerank import RerankRequest, rerank
from sie_server.api.score import score
from sie_server.api.status_ws import StatusFeed
from sie_server.api.tasks import TaskContext, TaskEndpoint

DESCRIBED = (
    Described(headers.operation_path("encode", "{model}"), "Items to vectors", EncodeRequest, speaks_msgpack=True),
    Described(headers.operation_path("score", "{model}"), "Items by relevance", ScoreRequest, speaks_msgpack=True),
    Described(
        headers.operation_path("extract", "{model}"), "What is in each item", ExtractRequest, speaks_msgpack=True
    ),
    Described(headers.EMBEDDINGS, "Embeddings, as OpenAI's clients ask for them", EmbeddingsRequest),
    Described(headers.RERANK, "Reranking, as Cohere's and Jina's clients ask for it", RerankRequest),
    Described(headers.RERANK_V2, "The same under Cohere's newer path", RerankRequest),
)


class Serving(NamedTuple):
    """What the routes that only read answer from."""

    context: TaskContext
    feed: StatusFeed


def document() -> dict[str, Any]:
    """The OpenAPI document of every worker of this version; needs none of them."""

    def nobody() -> Serving:
        raise LookupError("there is no worker behind a document")

    return _described(nobody).openapi()


def build_api(context: TaskContext, feed: StatusFeed) -> Edge:
    """The ASGI app of one worker."""
    serving = Serving(context, feed)
    app = _described(lambda: serving)
    inference = [
        _task("encode", TaskEndpoint("encode", context, encode)),
        _task("score", TaskEndpoint("score", context, score)),
        _task("extract", TaskEndpoint("extract", context, extract)),
        *_compat_routes(context),
    ]
    app.router.routes[:0] = inference
    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(Exception, on_bug)
    return Edge(Direct(inference, app))


class Direct:
    """Goes straight to an inference route: the layers of FastAPI around it are a fifth of a request's cost to the loop.

    Everything else, and what an inference route does not take, is FastAPI's.
    """

    def __init__(self, routes: Sequence[Route], app: ASGIApp) -> None:
        self._routes = routes
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        for route in self._routes:
            match, found = route.matches(scope)
            if match is Match.FULL:
                await route.handle({**scope, **found}, receive, send)
                return
        await self._app(scope, receive, send)


def _task(name: str, endpoint: TaskEndpoint) -> Route:
    return Route(headers.operation_path(name, "{model:path}"), endpoint, methods=["POST"])


def _compat_routes(context: TaskContext) -> list[Route]:
    to_embeddings = TaskEndpoint("embeddings", context, embeddings, compat_error)
    to_rerank = TaskEndpoint("rerank", context, rerank, compat_error)
    named = ((headers.EMBEDDINGS, to_embeddings), (headers.RERANK, to_rerank), (headers.RERANK_V2, to_rerank))
    return [Route(path, endpoint, methods=["POST"]) for path, endpoint in named]


def _described(serving: Callable[[], Serving]) -> FastAPI:
    """The framework's part of the app, with a document of all parts; `serving` is called when a request comes."""
    app = FastAPI(title="SIE worker", version=VERSION, redirect_slashes=False)
    _add_reads(app, serving)
    add_page(app, lambda: serving().feed)
    describe(app, DESCRIBED)
    return app


def _add_reads(app: FastAPI, serving: Callable[[], Serving]) -> None:
    @app.get(headers.MODELS)
    async def models() -> Response:
        """Every model this worker can run, and what state it is in."""
        return _json(listed(serving().context.engine.info()))

    @app.get(headers.MODELS + "/{model:path}")
    async def model_info(model: str) -> Response:
        """One model."""
        return _json(described(serving().context.engine.info_of(model)))

    @app.get(headers.HEALTHZ)
    async def healthz() -> PlainTextResponse:
        """Whether the process answers."""
        return PlainTextResponse("ok")

    @app.get(headers.READYZ)
    async def readyz() -> PlainTextResponse:
        """Whether it should get requests."""
        problem = serving().context.engine.unready
        return PlainTextResponse("ok") if problem is None else _not_ready(problem)

    @app.get(headers.LIVEZ)
    async def livez() -> PlainTextResponse:
        """Whether the device computes; when it does not, a restart may help."""
        problem = serving().context.engine.health.problem
        return PlainTextResponse("ok") if problem is None else _not_ready(problem)

    @app.get(headers.METRICS)
    async def metrics() -> Response:
        """Prometheus exposition."""
        body, media = serving().context.metrics.render()
        return Response(body, media_type=media)

    @app.websocket(headers.WORKER_STATUS)
    async def status(socket: WebSocket) -> None:
        await serving().feed.serve(socket)

    @app.websocket("/{path:path}")
    async def no_socket(socket: WebSocket) -> None:
        await socket.send_denial_response(error_response(no_socket_at(socket.scope["path"])))


def _not_ready(why: str) -> PlainTextResponse:
    return PlainTextResponse(f"not ready: {why}", HTTPStatus.SERVICE_UNAVAILABLE)


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type=headers.JSON)
