"""Request bodies: read up to a limit, and given up when the client is gone."""

from collections.abc import Callable

from starlette.types import Receive, Scope

from sie_protocol.codec import body_too_long
from sie_protocol.errors import ErrorCode, Problem
from sie_server.api.edge import header


class ClientGoneError(Exception):
    """The client closed the connection; there is nobody to answer."""


async def read_body(scope: Scope, receive: Receive, limit_bytes: int) -> bytes:
    """The whole body.

    Raises:
        Problem: INPUT_TOO_LONG as soon as more than the limit is announced or sent.
        ClientGoneError: the client left before the body was complete.
    """
    announced = header(scope, b"content-length") or "0"
    if not announced.isdigit():
        raise Problem(ErrorCode.INVALID_INPUT, f"Content-Length is '{announced[:40]}'; expected a number of bytes")
    if int(announced) > limit_bytes:
        raise body_too_long(int(announced), limit_bytes)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit_bytes:
            raise body_too_long(size, limit_bytes)
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def when_gone(receive: Receive, act: Callable[[], object]) -> None:
    """After the body: call `act` once the client closes the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
    act()
