"""Request bodies: read up to a limit each and a limit in all, and given up when the client is gone or stops."""

import asyncio
from collections.abc import Callable

from starlette.types import Receive, Scope

from sie_protocol.codec import PAUSE_S, body_compressed, body_stopped, body_too_long
from sie_protocol.errors import ErrorCode, Problem
from sie_server.api.edge import header


class ClientGoneError(Exception):
    """The client closed the connection; there is nobody to answer."""


class Bodies:
    """Bytes of all bodies that a worker holds: at most so many, but one body of any size is always let in.

    `what` they are bodies of, in the plural.
    """

    def __init__(self, limit_bytes: int, what: str = "requests") -> None:
        self._limit = limit_bytes
        self._what = what
        self._total = 0

    def open(self) -> "BodyBytes":
        """Room for one request's body, which grows as it comes."""
        return BodyBytes(self)

    def take(self, size: int, own: int) -> None:
        """Count more bytes of a body of which so many are held.

        Raises:
            Problem: QUEUE_FULL when bodies of others leave no room.
        """
        others = self._total - own
        if others and self._total + size > self._limit:
            message = (
                f"this worker holds {self._total} bytes of {self._what} and takes at most {self._limit}; try again"
            )
            raise Problem(ErrorCode.QUEUE_FULL, message)
        self._total += size

    def give(self, size: int) -> None:
        """These bytes are gone."""
        self._total -= size


class BodyBytes:
    """What one request holds, until `release`."""

    __slots__ = ("_bodies", "size")

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self.size = 0

    def grow(self, size: int) -> None:
        """More has come.

        Raises:
            Problem: QUEUE_FULL.
        """
        self._bodies.take(size, self.size)
        self.size += size

    def release(self) -> None:
        """The request is over."""
        self._bodies.give(self.size)
        self.size = 0


async def read_body(
    scope: Scope, receive: Receive, limit_bytes: int, own: BodyBytes, pause_s: float = PAUSE_S
) -> bytes:
    """The whole body.

    Raises:
        Problem: INVALID_INPUT when it is compressed, or stops before its end; INPUT_TOO_LONG as soon as more than the
            limit is announced or sent; QUEUE_FULL when other bodies leave no room for it.
        ClientGoneError: the client left before the body was complete.
    """
    _check_headers(scope, limit_bytes)
    parts: list[bytes] = []
    while True:
        try:
            async with asyncio.timeout(pause_s):
                message = await receive()
        except TimeoutError as error:
            raise body_stopped(own.size, pause_s) from error
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part: bytes = message.get("body", b"")
        if own.size + len(part) > limit_bytes:
            raise body_too_long(own.size + len(part), limit_bytes)
        own.grow(len(part))
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _check_headers(scope: Scope, limit_bytes: int) -> None:
    announced = header(scope, b"content-length") or "0"
    if not announced.isdigit():
        raise Problem(ErrorCode.INVALID_INPUT, f"Content-Length is '{announced[:40]}'; expected a number of bytes")
    if int(announced) > limit_bytes:
        raise body_too_long(int(announced), limit_bytes)
    encoding = header(scope, b"content-encoding") or "identity"
    if encoding.lower() != "identity":
        raise body_compressed(encoding)


async def when_gone(receive: Receive, act: Callable[[], object]) -> None:
    """After the body: call `act` once the client closes the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
    act()
