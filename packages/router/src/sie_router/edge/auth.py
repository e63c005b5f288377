"""Who is calling: static bearer tokens, compared without telling how close a guess was.

An authenticating proxy in front (oauth2-proxy) is believed when it names a user together with a secret that only it and
we know, as HTTP Basic: a header with a name alone is anybody's to write who reaches this router. Else nothing that it
adds is believed.
"""

import hmac
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b, sha256
from types import MappingProxyType
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from sie_protocol.compat import COMPAT_PATHS
from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.headers import (
    AUTHORIZATION,
    CLUSTER_STATUS,
    HEALTH,
    HEALTHZ,
    INFERENCE_OPERATIONS,
    METRICS,
    READYZ,
    operation_path,
)
from sie_router.core.pools import ANYONE, Caller
from sie_router.data.answers import refusal
from sie_router.data.caller import KEY
from sie_router.settings import Exempt

ALWAYS_OPEN: Final = frozenset({HEALTHZ, READYZ})  # probes carry no token, and learn nothing but yes or no
OPERATIONAL: Final = frozenset(
    {"/", HEALTH, METRICS, CLUSTER_STATUS, "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"}
)
EXEMPT: Final = MappingProxyType(
    {Exempt.NOTHING: frozenset[str](), Exempt.METRICS: frozenset({METRICS}), Exempt.OPERATIONAL: OPERATIONAL}
)
ADMIN_ID: Final = "admin"
_HEADER: Final = AUTHORIZATION.lower().encode()
_BEARER: Final = b"bearer"
_BASIC: Final = b"basic"
_INFERENCE: Final = tuple(operation_path(operation, "") for operation in INFERENCE_OPERATIONS)


@dataclass(frozen=True, slots=True)
class _Known:
    digest: bytes
    caller: Caller


class Tokens:
    """The tokens that may call, and the users whom a proxy names. Without any of both, everybody may do everything."""

    def __init__(self, tokens: Iterable[str], admin_token: str | None, proxy_secret: str | None = None) -> None:
        known = [_Known(_digest(_bytes(token)), Caller(token_id(token))) for token in tokens]
        if admin_token is not None:
            known.append(_Known(_digest(_bytes(admin_token)), Caller(ADMIN_ID, is_admin=True)))
        self._known = tuple(known)
        self._proxy = None if proxy_secret is None else _digest(_bytes(proxy_secret))
        self._is_open = not known and proxy_secret is None

    def caller(self, authorization: bytes | None) -> Caller | Problem:
        """Whose token this header holds, `Bearer TOKEN` or the bare token; or, `Basic`, whom the proxy names."""
        if self._is_open:
            return ANYONE
        if authorization is None:
            return _refused("no token was sent; send the header 'Authorization: Bearer TOKEN'")
        if (user := self._user(authorization)) is not None:
            return Caller(user_id(user))
        digest = _digest(_token(authorization))
        found: Caller | None = None
        for known in self._known:  # all of them, whichever matches: the time it takes tells nothing
            if hmac.compare_digest(known.digest, digest):
                found = known.caller
        return found or _refused("the token is not known to this router; check it, and that it has not been replaced")

    def _user(self, authorization: bytes) -> bytes | None:
        """The user that the proxy names; None where it was not the proxy, or it names nobody."""
        scheme, _, rest = authorization.strip().partition(b" ")
        if self._proxy is None or scheme.lower() != _BASIC:
            return None
        try:
            user, _, secret = b64decode(rest.strip(), validate=True).rpartition(b":")
        except NotBase64:
            return None
        return user if hmac.compare_digest(_digest(secret), self._proxy) and user else None

    def see(self, scope: Scope) -> Caller | Problem:
        """The caller of a request, or a refusal; left in its scope."""
        given = None
        if not self._is_open:
            given = next((value for name, value in scope["headers"] if name == _HEADER), None)
        found = scope[KEY] = self.caller(given)
        return found


class Auth:
    """Plain ASGI middleware: every request that goes on has a caller in its scope, or a refusal that it must answer.

    Inference routes answer refusals themselves, so that those are counted and audited like any other answer.
    """

    def __init__(self, app: ASGIApp, tokens: Tokens, exempt: Exempt) -> None:
        self._app = app
        self._tokens = tokens
        self._passed_on = ALWAYS_OPEN.union(COMPAT_PATHS, EXEMPT[exempt])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        found = self._tokens.see(scope)
        path = scope["path"]
        if isinstance(found, Problem) and path not in self._passed_on and not path.startswith(_INFERENCE):
            await _refuse(found, scope, send)
            return
        await self._app(scope, receive, send)


def token_id(token: str) -> str:
    """A short name for a token that does not reveal it; the same on every router, so that it can own pools."""
    return blake2b(_bytes(token), digest_size=6, person=b"sie-token").hexdigest()


def user_id(user: bytes) -> str:
    """The same for a user whom a proxy names; never that of a token."""
    return blake2b(user, digest_size=6, person=b"sie-user").hexdigest()


def _token(authorization: bytes) -> bytes:
    value = authorization.strip()
    scheme, space, rest = value.partition(b" ")
    return rest.strip() if space and scheme.lower() == _BEARER else value


def _bytes(token: str) -> bytes:
    return token.encode("utf-8", "surrogateescape")  # the environment may hold any bytes


def _digest(token: bytes) -> bytes:
    return sha256(token).digest()


def _refused(message: str) -> Problem:
    return Problem(ErrorCode.UNAUTHENTICATED, message)


async def _refuse(problem: Problem, scope: Scope, send: Send) -> None:
    answer = refusal(problem)
    prefix = "websocket.http." if scope["type"] == "websocket" else "http."
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": problem.message})
        return
    await send({"type": f"{prefix}response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": f"{prefix}response.body", "body": answer.body})
