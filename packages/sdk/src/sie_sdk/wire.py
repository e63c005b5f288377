"""Between the SDK's values and httpx: requests one way, answers and failures the other. Sends nothing itself."""

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Final
from urllib.request import getproxies, proxy_bypass

import httpx

from sie_protocol.headers import SDK_VERSION
from sie_protocol.versions import VERSION
from sie_sdk.messages import Answer, Loss, Lost, Request
from sie_sdk.settings import Settings

# Shorter than the 5 s after which common servers close an idle connection: they never close one while we write to it.
KEEPALIVE_S: Final = 4.0
CLOSED: Final = Lost(Loss.CLIENT_CLOSED, "the client was closed")

NO_HTTP: Final = "illegal status line"  # h11, of what does not begin as an answer does
NO_TLS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")  # OpenSSL, of an answer in plain HTTP
_MAX_CAUSES: Final = 8


class Writer:
    """Turns requests into httpx's, with what all requests of a client share.

    `build`: what makes them; that of a caller's own httpx client adds its headers and cookies.
    """

    def __init__(self, settings: Settings, build: Callable[..., httpx.Request] = httpx.Request) -> None:
        self._build = build
        self._connect_timeout_s = settings.connect_timeout_s
        authorization = [("Authorization", f"Bearer {settings.api_key}")] if settings.api_key else []
        self._base_url = settings.base_url
        self._headers = [
            ("User-Agent", f"sie-sdk/{VERSION}"),
            (SDK_VERSION, VERSION),
            ("Accept-Encoding", "identity"),  # vectors do not compress
            *authorization,
            *settings.headers.items(),
        ]

    def write(self, request: Request, timeout_s: float) -> httpx.Request:
        """The request as httpx sends it, each phase bounded by the timeout."""
        timeouts = httpx.Timeout(timeout_s, connect=min(timeout_s, self._connect_timeout_s))
        return self._build(
            request.method,
            self._base_url + request.path,
            headers=[*self._headers, *request.headers],
            content=request.body,
            extensions={"timeout": timeouts.as_dict()},
        )


def check_kind(given: object, kind: type) -> None:
    """Refuse a caller's client of the wrong kind before it fails in the middle of a call.

    Raises:
        TypeError: it is neither None nor of this kind.
    """
    if given is not None and not isinstance(given, kind):
        raise TypeError(f"http_client is a {type(given).__name__}; expected an httpx.{kind.__name__}")


def limits(connections: int) -> httpx.Limits:
    """At most so many connections, all of which may stay open for a while."""
    return httpx.Limits(
        max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=KEEPALIVE_S
    )


def read(response: httpx.Response, body: bytes) -> Answer:
    """The answer with its whole body."""
    return Answer(response.status_code, dict(response.headers), body, time.time())


def timed_out(timeout_s: float) -> Lost:
    """No complete answer came in time."""
    return Lost(Loss.TIMED_OUT, f"no complete answer within {timeout_s:g} s")


def no_connection_free(timeout_s: float) -> Lost:
    """All connections that the client may open were in use all the time."""
    return Lost(Loss.TIMED_OUT, f"every connection was in use for {timeout_s:g} s; raise max_connections")


def lost(error: httpx.RequestError, timeout_s: float) -> Lost:
    """Why there is no answer."""
    reason = str(error) or type(error).__name__
    match error:
        case httpx.ConnectError() | httpx.ConnectTimeout() | httpx.ProxyError():
            loss = Loss.CONNECT_IMPOSSIBLE if any(map(_is_lasting, causes(error))) else Loss.CONNECT_FAILED
            return Lost(loss, f"no connection to {error.request.url.netloc.decode()}{_by_proxy(error)}: {reason}")
        case httpx.PoolTimeout():
            return no_connection_free(timeout_s)
        case httpx.TimeoutException():
            return timed_out(timeout_s)
        case httpx.RemoteProtocolError() if NO_HTTP in reason:
            return Lost(Loss.CONNECT_IMPOSSIBLE, f"{error.request.url.netloc.decode()} speaks no HTTP: {reason:.120}")
        case httpx.UnsupportedProtocol() | httpx.LocalProtocolError():
            return Lost(Loss.CONNECT_IMPOSSIBLE, reason)
        case _:
            return Lost(Loss.CONNECTION_LOST, reason)


def _by_proxy(error: httpx.RequestError) -> str:
    """Which proxy the environment puts in between: then it is more likely that one than the server."""
    url = error.request.url
    found = None if proxy_bypass(url.host) else getproxies().get(url.scheme, getproxies().get("all"))
    return f" by the proxy {found.rpartition('@')[2]} of {url.scheme.upper()}_PROXY" if found else ""


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and those behind it, the nearest first; at most eight."""
    found: BaseException | None = error
    for _ in range(_MAX_CAUSES):
        if found is None:
            return
        yield found
        found = found.__cause__ or found.__context__


def _is_lasting(error: BaseException) -> bool:
    """True for failures to connect that time does not heal: a name nobody has, a certificate nobody trusts."""
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_NONAME
    speaks_no_tls = isinstance(error, ssl.SSLError) and error.reason in NO_TLS
    return speaks_no_tls or isinstance(error, ssl.SSLCertVerificationError)
