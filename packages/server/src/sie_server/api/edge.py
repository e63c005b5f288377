"""What every HTTP answer of the worker has: a request id, the version, and one shape for every error."""

import json
import logging
import random
import re
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sie_protocol.errors import MAX_SHOWN, ErrorCode, Problem, envelope
from sie_protocol.headers import JSON, REQUEST_ID, SERVER_VERSION
from sie_protocol.versions import VERSION

REQUEST_ID_KEY = "sie.request_id"  # where the scope carries it
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_VERSION_HEADER = (SERVER_VERSION.lower().encode(), VERSION.encode())
_ID_NAME = REQUEST_ID.lower().encode()

log = logging.getLogger(__name__)


class Edge:
    """The outermost layer of the app: names each request, stamps each answer, logs what nobody expected."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _asked_id(scope) or _new_id()
        scope[REQUEST_ID_KEY] = request_id.decode()
        if is_head := scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        stamps = [_VERSION_HEADER, (_ID_NAME, request_id)]
        started = False

        async def stamped(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), *stamps]
            elif is_head:
                message["body"] = b""
            await send(message)

        try:
            await self._app(scope, receive, stamped)
        except Exception:
            log.exception("request %s to %s failed", scope[REQUEST_ID_KEY], scope["path"])
            if not started:
                await error_response(unexpected())(scope, receive, stamped)


def error_response(problem: Problem) -> Response:
    """A refusal as an HTTP answer; always JSON."""
    shape = envelope(problem)
    return Response(json.dumps(shape.body), shape.status, dict(shape.headers), JSON)


async def on_problem(_: Request, error: Exception) -> Response:
    """Handler of `Problem`."""
    assert isinstance(error, Problem)  # noqa: S101 - it is registered for this type
    return error_response(error)


async def on_http_error(request: Request, error: Exception) -> Response:
    """Handler of what the routing raises: no such path, no such method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for this type
    response = error_response(_routing_problem(request.scope, error))
    response.headers.update(error.headers or {})  # Allow
    return response


async def on_bug(_: Request, __: Exception) -> Response:
    """Handler of everything else; the text stays in the log, which `Edge` writes."""
    return error_response(unexpected())


def header(scope: Mapping[str, Any], name: bytes) -> str | None:
    """One request header by its lower-case name."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


def unexpected() -> Problem:
    """The refusal of a request that met a bug."""
    return Problem(ErrorCode.INTERNAL_ERROR, "an unexpected error; the worker's log has it under the X-Request-ID")


def _routing_problem(scope: Scope, error: HTTPException) -> Problem:
    path = scope["path"][:MAX_SHOWN]
    match error.status_code:
        case 404:
            return Problem(ErrorCode.NOT_FOUND, f"there is nothing at {path}; GET /docs lists what is")
        case 405:
            return Problem(ErrorCode.METHOD_NOT_ALLOWED, f"{scope['method']} is not allowed at {path}")
        case status if status < 500:  # noqa: PLR2004 - the line between the caller's errors and ours
            return Problem(ErrorCode.INVALID_INPUT, str(error.detail))
        case _:
            return unexpected()


def _new_id() -> bytes:
    """One that nobody else has. Nothing depends on its being hard to guess; asking the system for chance is slow."""
    return b"%032x" % random.getrandbits(128)


def _asked_id(scope: Scope) -> bytes | None:
    asked = next((value for key, value in scope["headers"] if key == _ID_NAME), None)
    return asked if asked is not None and _REQUEST_ID.fullmatch(asked) else None
