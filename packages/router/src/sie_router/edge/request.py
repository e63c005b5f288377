"""What a request's head says, beside what the parser knows."""

import asyncio
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote

import httptools
import msgspec

from sie_router.data.incoming import RawHeaders

_SHORT_BYTES: Final = 256


class Target(msgspec.Struct, frozen=True):
    """The parts of a request's target, as ASGI wants them."""

    path: str
    raw_path: bytes
    query: bytes


def target_of(url: bytes) -> Target:
    """Take a target apart; costs as much as choosing a worker, where it is not one of the last.

    Raises:
        httptools.HttpParserInvalidURLError, UnicodeDecodeError: it is none.
    """
    return _remembered(url) if len(url) <= _SHORT_BYTES else _parsed(url)


def _parsed(url: bytes) -> Target:
    parts = httptools.parse_url(url)
    raw = parts.path or b"/"
    path = raw.decode("ascii")
    return Target(unquote(path) if "%" in path else path, raw, parts.query or b"")


_remembered = lru_cache(maxsize=1024)(_parsed)


def offers_websocket(headers: RawHeaders) -> bool:
    """True when the client wants to go on with WebSocket."""
    offer = dict(headers)
    return b"upgrade" in offer.get(b"connection", b"").lower() and offer.get(b"upgrade", b"").lower() == b"websocket"


def head_again(scope: Any, url: bytes, *, is_offer: bool) -> bytes:
    """The head of a request as it came; without its offer to upgrade, if it is not to be one."""
    lines: list[bytes] = []
    for name, value in scope["headers"]:
        if is_offer or name not in {b"connection", b"upgrade"}:
            lines.append(b"%b: %b\r\n" % (name, value))
        elif b"close" in value.lower():
            lines.append(b"connection: close\r\n")
    version, method = scope["http_version"].encode(), scope["method"].encode()
    return b"%b %b HTTP/%b\r\n%b\r\n" % (method, url, version, b"".join(lines))


def address(transport: asyncio.BaseTransport, name: str) -> tuple[str, int] | None:
    """Host and port of one end of a connection."""
    found = transport.get_extra_info(name)
    return (str(found[0]), int(found[1])) if isinstance(found, tuple) else None
