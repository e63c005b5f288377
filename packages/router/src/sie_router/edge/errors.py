"""Every error of every route leaves in the one envelope."""

import re

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from sie_protocol.errors import ErrorCode, Problem, no_socket_at
from sie_router.data.answers import refusal

_ALLOW = "Allow"
_PARAMETER = re.compile(r"\{\w+\}")
_OURS = 500  # from here on it is the server that failed
_CODES = {
    404: ErrorCode.NOT_FOUND,
    405: ErrorCode.METHOD_NOT_ALLOWED,
    413: ErrorCode.INPUT_TOO_LONG,
    422: ErrorCode.INVALID_INPUT,
}


def install(app: FastAPI) -> None:
    """Make the framework's own errors look like ours."""

    @app.exception_handler(Problem)
    async def known(_: Request, problem: Problem) -> Response:
        return _response(problem)

    @app.exception_handler(HTTPException)
    async def framework(request: Request, error: HTTPException) -> Response:
        code = _CODES.get(error.status_code, ErrorCode.INVALID_INPUT if error.status_code < _OURS else None)
        message = f"{request.method} {request.url.path}: {error.detail}; GET /openapi.json lists what there is"
        response = _response(Problem(code or ErrorCode.INTERNAL_ERROR, message))
        for name, value in (error.headers or {}).items():
            response.headers[name] = _allowed(request, value) if name == _ALLOW else value
        return response

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return _response(Problem(ErrorCode.INVALID_INPUT, f"{where}: {first['msg']}"))

    @app.exception_handler(Exception)
    async def unexpected(_: Request, __: Exception) -> Response:
        # The server logs the exception with its trace; callers learn nothing of our insides.
        return _response(Problem(ErrorCode.INTERNAL_ERROR, "the router failed on this request; its log says why"))


def no_socket() -> WebSocketRoute:
    """The last route of WebSockets: there is none at any other path."""

    async def refuse(socket: WebSocket) -> None:
        await socket.send_denial_response(_response(no_socket_at(socket.scope["path"])))

    return WebSocketRoute("/{path:path}", refuse)


def _allowed(request: Request, methods: str) -> str:
    """All methods of a path; the framework names those of the first route that has another one."""
    paths = request.app.openapi()["paths"].items()
    here = [own for path, own in paths if re.fullmatch(_PARAMETER.sub("[^/]+", path), request.url.path)]
    return ", ".join(sorted({*methods.split(", "), *(method.upper() for own in here for method in own)}))


def _response(problem: Problem) -> Response:
    answer = refusal(problem)
    response = Response(answer.body, answer.status)
    response.raw_headers = answer.headers
    return response
