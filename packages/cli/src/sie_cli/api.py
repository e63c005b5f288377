"""What the command line asks a cluster beyond the SDK: raw answers, so that it can judge what is wrong with them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

import httpx
import msgspec

from sie_cli.failing import UNREACHABLE
from sie_protocol.headers import ERROR_CODE, HEALTH, JSON, SDK_VERSION
from sie_protocol.versions import VERSION
from sie_sdk.capacity import ROUTER_TYPES

TIMEOUT_S: Final = 10.0
_UNAUTHENTICATED, _ERRORS_FROM = 401, 400


class RefusedError(RuntimeError):
    """The cluster said no; the message ends with what to do."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. `headers` have lower-case names; `value` is the JSON in it, None when it is none."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str = ""

    @property
    def value(self) -> Any:
        """The body as JSON."""
        try:
            return msgspec.json.decode(self.text)
        except (msgspec.DecodeError, UnicodeEncodeError):
            return None

    @property
    def error(self) -> Mapping[str, Any]:
        """The error object of a refusal; empty when there is none."""
        value = self.value
        inner = value.get("error") if isinstance(value, dict) else None
        return inner if isinstance(inner, dict) else {}

    @property
    def code(self) -> str:
        """The refusal's code, or its status."""
        return str(self.headers.get(ERROR_CODE.lower()) or self.error.get("code") or f"HTTP {self.status}")


class Api:
    """JSON over HTTP with the token and version that every request has. Use as an async context manager."""

    def __init__(self, url: str, api_key: str | None, *, timeout_s: float = TIMEOUT_S) -> None:
        self.url = url
        bearer = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        headers = {"Accept": JSON, SDK_VERSION: VERSION, **bearer}
        self._http = httpx.AsyncClient(base_url=self.url, headers=headers, timeout=timeout_s)

    async def reply(
        self, method: str, path: str, *, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send and read; any status is an answer.

        Raises:
            httpx.HTTPError: there was none.
        """
        sent = {**(headers or {}), **({} if body is None else {"Content-Type": JSON})}
        content = None if body is None else msgspec.json.encode(body)
        response = await self._http.request(method, path, content=content, headers=sent)
        return Reply(
            response.status_code, {name.lower(): value for name, value in response.headers.items()}, response.text
        )

    async def success(self, path: str) -> Reply:
        """The answer to a GET that is JSON and no refusal.

        Raises:
            RefusedError: it is none.
        """
        try:
            reply = await self.reply("GET", path)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise RefusedError(f"no answer from {self.url}: {reason}; {UNREACHABLE}") from error
        if reply.status >= _ERRORS_FROM or reply.value is None:
            said = str(reply.error.get("message") or reply.text[:200])
            step = "; pass --api-key or set SIE_API_KEY" if reply.status == _UNAUTHENTICATED else ""
            raise RefusedError(f"GET {self.url}{path}: {reply.code}: {said}{step}")
        return reply

    async def health(self) -> Reply:
        """What a router tells of its cluster; a worker knows nothing of one.

        Raises:
            RefusedError: there is no answer, or not from a router.
        """
        reply = await self.success(HEALTH)
        kind = reply.value.get("type") if isinstance(reply.value, dict) else None
        if kind not in ROUTER_TYPES:
            what = f"a SIE {kind}" if kind else "something that is no SIE router"
            raise RefusedError(f"{what} answers at {self.url}; point --url to the router, not to a worker")
        return reply

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()
