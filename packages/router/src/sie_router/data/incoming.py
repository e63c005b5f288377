"""What a client sent, read once: the ask, and the headers that go on to a worker."""

import re
from collections.abc import Callable, MutableMapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from sie_protocol.codec import body_compressed
from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.headers import ATTEMPT, MACHINE_PROFILE, POOL, REQUEST_ID, SDK_VERSION, TIMEOUT, WAIT, operation_path
from sie_protocol.target import ModelRef, parse_model, parse_target
from sie_router.core.fleet import Worker
from sie_router.core.pools import Caller
from sie_router.core.route import Ask
from sie_router.data.caller import caller_of

HOP_BY_HOP: Final = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
        b"trailer", b"trailers", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip
_PROFILE: Final = MACHINE_PROFILE.lower().encode()
_POOL: Final = POOL.lower().encode()
_REQUEST_ID: Final = REQUEST_ID.lower().encode()
_SDK_VERSION: Final = SDK_VERSION.lower().encode()
_TIMEOUT: Final = TIMEOUT.lower().encode()
_WAIT: Final = WAIT.lower().encode()
_ATTEMPT: Final = ATTEMPT.lower().encode()
_READ: Final = frozenset(
    {
        _PROFILE, _POOL, _REQUEST_ID, _TIMEOUT, _WAIT, _ATTEMPT, b"content-length", b"connection",
        b"transfer-encoding",
    }
)  # fmt: skip
# Also those that authenticating proxies in front of us add.
_CREDENTIALS: Final = frozenset(
    {
        b"authorization", b"cookie", b"api-key", b"x-api-key", b"x-forwarded-access-token", b"x-forwarded-user",
        b"x-forwarded-email", b"x-forwarded-groups", b"x-forwarded-preferred-username", b"x-auth-request-access-token",
        b"x-auth-request-user", b"x-auth-request-email", b"x-auth-request-groups",
        b"x-auth-request-preferred-username", b"x-auth-request-redirect",
    }
)  # fmt: skip
# A worker gets no credentials, and the target as the router resolved it.
_DROPPED: Final = HOP_BY_HOP | _READ | _CREDENTIALS | {b"host", b"expect"}
_LASTING: Final = frozenset({b"keep-alive", b"close"})
_VISIBLE: Final = bytes(range(0x21, 0x7F))
_MAX_ID_BYTES: Final = 128
WHOLE_SECONDS: Final = re.compile(rb"\d{1,9}")  # bounded, as anybody may send any digits
_COUNT: Final = re.compile(rb"[1-9]\d{0,8}")
_PATH_SAFE: Final = "/:@!$&'()*+,;=~"

Scope = MutableMapping[str, Any]
RawHeaders = list[tuple[bytes, bytes]]


class Incoming(msgspec.Struct, frozen=True):
    """One request as the router needs it. `lines` are the header lines that go on, ready to be written.

    `content_length` is None for a chunked body. `path` is where it goes on a worker; empty: the operation on the model.
    `timeout_s` is how long the client will wait for the answer, `wait_s` how long it would wait for somebody to serve
    it; None: it did not say. `attempt` counts from 1 the requests of one call.
    """

    operation: str
    ask: Ask
    request_id: bytes
    lines: bytes
    content_length: int | None
    query: bytes
    path: str = ""
    timeout_s: float | None = None
    wait_s: int | None = None
    attempt: int = 1


def read_incoming(scope: Scope, new_id: Callable[[], str], *, is_named: bool = False) -> Incoming:
    """Read path and headers. `is_named`: the model is named in the body, so nobody knows it yet.

    Raises:
        Problem: UNAUTHENTICATED, METHOD_NOT_ALLOWED or INVALID_INPUT.
    """
    caller = caller_of(scope)
    if scope["method"] != "POST":
        raise Problem(ErrorCode.METHOD_NOT_ALLOWED, f"{scope['method']} is not allowed here; use POST")
    path = ""
    if is_named:
        path, operation, model = scope["path"], scope["path"].rpartition("/")[2], ModelRef("")
    else:
        _, _, operation, name = scope["path"].split("/", 3)
        model = parse_model(name)
    read: dict[bytes, bytes] = {}
    kept: RawHeaders = []
    if is_named:
        _check_readable(scope["headers"])
    for header in scope["headers"]:
        name = header[0]
        if name not in _DROPPED:
            kept.append(header)
        elif name in _READ:
            read[name] = header[1]
    if b"connection" in read:
        kept = without_named(kept, read[b"connection"])
    length = None if b"transfer-encoding" in read else int(read.get(b"content-length", b"0"))
    return Incoming(
        operation,
        _ask(model, read, caller),
        _request_id(read.get(_REQUEST_ID), new_id),
        b"".join([b"%b: %b\r\n" % header for header in kept]),
        length,
        scope["query_string"],
        path,
        _timeout_s(read[_TIMEOUT]) if _TIMEOUT in read else None,
        _number(WAIT, read[_WAIT], WHOLE_SECONDS, "whole seconds, 0 or more") if _WAIT in read else None,
        _number(ATTEMPT, read[_ATTEMPT], _COUNT, "1 for the first request of a call") if _ATTEMPT in read else 1,
    )


def _check_readable(headers: RawHeaders) -> None:
    """Refuse what would look like no JSON: the model stands in the body."""
    for name, value in headers:
        if name == b"content-encoding" and value.lower() != b"identity":
            raise body_compressed(value.decode("latin-1"))


def with_model(incoming: Incoming, model: ModelRef) -> Incoming:
    """The same request, once its body has told the model."""
    return replace(incoming, ask=replace(incoming.ask, model=model))


def head_for(incoming: Incoming, worker: Worker, model_id: str, body_bytes: int | None) -> bytes:
    """The request head for one worker; without a length the body is sent in chunks.

    The path is built anew from parsed parts: canonical model id, no bundle prefix, everything unsafe escaped.
    """
    target = incoming.path.encode() or _target(incoming.operation, model_id)
    query = b"?" + incoming.query if incoming.query else b""
    framing = b"transfer-encoding: chunked" if body_bytes is None else b"content-length: %d" % body_bytes
    profile = b"%b: %b\r\n" % (_PROFILE, worker.profile.encode()) if worker.profile else b""
    return b"POST %b%b HTTP/1.1\r\nhost: %b\r\n%b\r\n%b%b: %b\r\n%b\r\n" % (
        target,
        query,
        worker.url.partition("://")[2].encode(),
        framing,
        profile,
        _REQUEST_ID,
        incoming.request_id,
        incoming.lines,
    )


@lru_cache(maxsize=1024)  # models that are asked for now; escaping one costs as much as choosing a worker
def _target(operation: str, model_id: str) -> bytes:
    return quote(operation_path(operation, model_id), safe=_PATH_SAFE).encode()


def without_named(headers: RawHeaders, connection: bytes) -> RawHeaders:
    """The headers without those that the Connection header declares to be about this one connection."""
    value = connection.lower()
    if value in _LASTING:
        return headers
    named = {token.strip() for token in value.split(b",")}
    return [header for header in headers if header[0].lower() not in named]


def sdk_version(scope: Scope) -> str | None:
    """The version a client announced; read only when an answer depends on it."""
    found = (value for name, value in scope["headers"] if name == _SDK_VERSION)
    return next(found, b"").decode("latin-1") or None


def request_id(scope: Scope, new_id: Callable[[], str]) -> bytes:
    """The id of a request that was refused before it was read."""
    given = [value for name, value in scope["headers"] if name == _REQUEST_ID]
    return _request_id(given[-1] if given else None, new_id)


def _ask(model: ModelRef, read: dict[bytes, bytes], caller: Caller) -> Ask:
    if _PROFILE not in read and _POOL not in read:
        return Ask(model, caller=caller)
    target = parse_target(read.get(_PROFILE, b"").decode("latin-1"), read.get(_POOL, b"").decode("latin-1"))
    return Ask(model, target.profile, target.pool, caller=caller)


def _timeout_s(text: bytes) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        message = f"{TIMEOUT} is '{text[:20].decode('latin-1')}'; expected a number of seconds above 0"
        raise Problem(ErrorCode.INVALID_INPUT, message)
    return seconds


def _number(name: str, text: bytes, allowed: re.Pattern[bytes], expected: str) -> int:
    if not allowed.fullmatch(text.strip()):
        raise Problem(ErrorCode.INVALID_INPUT, f"{name} is '{text[:20].decode('latin-1')}'; expected {expected}")
    return int(text)


def _request_id(given: bytes | None, new_id: Callable[[], str]) -> bytes:
    if given and len(given) <= _MAX_ID_BYTES and not given.translate(None, _VISIBLE):
        return given
    return new_id().encode()
