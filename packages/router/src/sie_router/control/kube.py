"""The Kubernetes API: the only module that speaks to it, and the only one that knows its status codes.

lightkube brings what is different in every cluster: kubeconfig files, service accounts with rotating tokens, exec
plugins, TLS. The six requests are written here, on the HTTP client it sets up: its own watch goes on from nowhere after
"410 Gone" without telling what went missing meanwhile, and waits for ever on a connection that fell silent.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import httpx2
import msgspec
import yaml
from lightkube.config.client_adapter import AsyncClient, ConnectionParams
from lightkube.config.kubeconfig import KubeConfig
from lightkube.core.exceptions import ConfigError

from sie_router.control.kube_objects import Kind, Thing
from sie_router.core.backoff import backoff_s

CONNECT_TIMEOUT_S: Final = 3.0
REQUEST_TIMEOUT_S: Final = 10.0
PAGE_SIZE: Final = 500
WATCH_S: Final = 60  # the API server ends a watch after this time, and we begin the next where it ended
SILENCE_S: Final = 75.0  # a watch that neither spoke nor ended by now is a dead connection
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 10.0
LONGEST_FIRST_PAUSE_S: Final = 2.0  # without a first answer a router serves nobody, and nothing stands that could wait
LASTED_S: Final = 1.0  # a connection that held for this long worked, however it ended
MAX_EVENT_BYTES: Final = 4 << 20  # an object has at most 1.5 MiB in etcd
_NOT_FOUND, _CONFLICT, _GONE = 404, 409, 410
_MISSHAPEN: Final = (AttributeError, KeyError, TypeError)  # lightkube takes any file for a dict of lists of dicts
_BOOKMARK: Final = "BOOKMARK"
_ERROR: Final = "ERROR"

Found = TypeVar("Found")

logger = logging.getLogger(__name__)


class KubeError(Exception):
    """The API refused, or answered what nobody can read. `status` is its HTTP status."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class NotFound(KubeError):  # noqa: N818 - named after the API's own reason
    """The object, or the whole kind, does not exist."""


class Conflict(KubeError):  # noqa: N818 - as above
    """Someone else created or changed the object first: read it again, then decide again."""


class Gone(KubeError):  # noqa: N818 - as above
    """The API has forgotten this version: list again."""


class Unreachable(KubeError):  # noqa: N818 - as above
    """No answer: the connection failed, broke or fell silent, or there are no credentials to ask with."""


@dataclass(frozen=True, slots=True)
class Listed(Generic[Thing]):
    """All objects of a kind, and the version at which a watch goes on from here."""

    items: tuple[Thing, ...]
    version: str


@dataclass(frozen=True, slots=True)
class Change(Generic[Thing]):
    """One event of a watch. `thing` is None when only time passed (a bookmark)."""

    version: str
    name: str
    thing: Thing | None
    is_deleted: bool = False


class _Version(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    resource_version: str = ""


class _Head(msgspec.Struct, frozen=True):
    metadata: _Version = _Version()
    code: int = 0
    message: str = ""


class _Event(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class _Page(msgspec.Struct, frozen=True):
    metadata: dict[str, Any]
    items: tuple[msgspec.Raw, ...] | None = ()


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient a follower is, in seconds."""

    watch_s: int = WATCH_S
    silence_s: float = SILENCE_S
    first_pause_s: float = FIRST_PAUSE_S
    longest_pause_s: float = LONGEST_PAUSE_S
    longest_first_pause_s: float = LONGEST_FIRST_PAUSE_S

    def backoff_s(self, failures: int, draw: float, *, is_first: bool = False) -> float:
        """How long to wait after so many failures in a row; `draw` in [0, 1) spreads the herd.

        `is_first`: nothing is known yet.
        """
        longest_s = min(self.longest_pause_s, self.longest_first_pause_s) if is_first else self.longest_pause_s
        return backoff_s(failures, draw, self.first_pause_s, longest_s)


class KubeApi:
    """One API server. Owner of its connections: `close` it. Every method raises `KubeError` or one of its kinds.

    `namespace` is where objects live when a caller names no other.
    """

    def __init__(self, http: httpx2.AsyncClient, namespace: str) -> None:
        self._http = http
        self.namespace = namespace
        self.url = str(http.base_url)

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def list(self, kind: Kind[Thing], *, namespace: str = "", selector: str = "") -> Listed[Thing]:
        """All objects with these labels, in pages."""
        path = self._path(kind, namespace)
        params: dict[str, str | int] = {"limit": PAGE_SIZE, **_selected(selector)}
        items: list[Thing] = []
        while True:
            page = _decoded(await self._request("GET", path, params=params), _Page)
            items.extend(_decoded(raw, kind.type) for raw in page.items or ())
            rest = page.metadata.get("continue")
            if not rest:
                return Listed(tuple(items), str(page.metadata.get("resourceVersion", "")))
            params["continue"] = rest

    async def watch(
        self, kind: Kind[Thing], *, version: str, namespace: str = "", selector: str = "", pace: Pace | None = None
    ) -> AsyncGenerator[Change[Thing]]:
        """Changes after this version, as they happen; ends when the API server ends it.

        Raises:
            Gone: the version is too old.
            Unreachable: the connection broke, or stayed silent for longer than the server was asked to wait.
        """
        pace = pace or Pace()
        params: dict[str, str | int] = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": pace.watch_s,
            **_selected(selector),
        }
        patience = httpx2.Timeout(CONNECT_TIMEOUT_S, read=pace.silence_s)
        path = self._path(kind, namespace)
        try:
            async with self._http.stream("GET", path, params=params, timeout=patience) as reply:
                if not reply.is_success:
                    raise _refusal(reply.status_code, await reply.aread())
                async with aclosing(_lines(reply)) as lines:
                    async for line in lines:
                        yield _change(_decoded(line, _Event), kind)
        except (httpx2.HTTPError, ConfigError, OSError) as error:
            raise _no_answer("watch", path, error) from error

    async def get(self, kind: Kind[Thing], name: str, *, namespace: str = "") -> Thing:
        """One object. Raises `NotFound`."""
        return _decoded(await self._request("GET", self._path(kind, namespace, name)), kind.type)

    async def create(self, kind: Kind[Thing], thing: Thing, *, namespace: str = "") -> Thing:
        """Create an object; returns it as stored. Raises `Conflict` when the name is taken."""
        reply = await self._request("POST", self._path(kind, namespace), body=_encoded(kind, thing))
        return _decoded(reply, kind.type)

    async def put(self, kind: Kind[Thing], thing: Thing, *, namespace: str = "") -> Thing:
        """Replace an object; returns it as stored.

        With a `resource_version` in its metadata this raises `Conflict` if somebody changed the object since; without,
        the last writer wins. Raises `NotFound` when it does not exist.
        """
        path = self._path(kind, namespace, thing.metadata.name)
        return _decoded(await self._request("PUT", path, body=_encoded(kind, thing)), kind.type)

    async def delete(self, kind: Kind[Thing], name: str, *, namespace: str = "", version: str = "") -> None:
        """Delete an object; with a `version`, only that one, else `Conflict`. Raises `NotFound`."""
        body = msgspec.json.encode({"preconditions": {"resourceVersion": version}}) if version else None
        await self._request("DELETE", self._path(kind, namespace, name), body=body)

    def _path(self, kind: Kind[Thing], namespace: str, name: str = "") -> str:
        path = f"{kind.path}/namespaces/{namespace or self.namespace}/{kind.plural}"
        return f"{path}/{name}" if name else path

    async def _request(
        self, method: str, path: str, *, params: Mapping[str, str | int] | None = None, body: bytes | None = None
    ) -> bytes:
        headers = {} if body is None else {"content-type": "application/json"}
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                reply = await self._http.request(method, path, params=params, content=body, headers=headers)
        except (httpx2.HTTPError, ConfigError, OSError) as error:
            raise _no_answer(method, path, error) from error
        if not reply.is_success:
            raise _refusal(reply.status_code, reply.content)
        return reply.content


def connect(kubeconfig: Path | None) -> KubeApi:
    """A client for the cluster of this file, or without one for the cluster this process runs in.

    Nothing is sent yet, so the API server need not be up.

    Raises:
        ValueError: there is no such file, or no service account here.
    """
    try:
        config = KubeConfig.from_service_account() if kubeconfig is None else KubeConfig.from_file(kubeconfig)
        chosen = config.get()
        if chosen is None:
            raise ValueError(f"'{kubeconfig}' names no current context")
        # No proxy: the API server is a neighbour, whatever the environment says about the outside world.
        http = AsyncClient(chosen, ConnectionParams(httpx2.Timeout(CONNECT_TIMEOUT_S), trust_env=False))
    except (*_MISSHAPEN, ConfigError, OSError, msgspec.ValidationError, yaml.YAMLError) as error:
        where = "not in a cluster (pass --kubeconfig)" if kubeconfig is None else f"cannot use '{kubeconfig}'"
        empty = "it is empty, or something in it is missing or of another kind"
        reason = empty if isinstance(error, _MISSHAPEN) else error
        raise ValueError(f"no access to Kubernetes: {where}: {reason}") from error
    return KubeApi(http, chosen.namespace)


async def follow(
    api: KubeApi,
    kind: Kind[Thing],
    *,
    draw: Callable[[], float],
    namespace: str = "",
    selector: str = "",
    pace: Pace | None = None,
) -> AsyncGenerator[Mapping[str, Thing]]:
    """Yield the whole set of objects, by name, each time it changed; never ends, never raises for an outage.

    The first set comes from a list, so an empty one is yielded as well. While the API is away the last set stands.
    After "410 Gone" everything is listed again, so what came and went meanwhile shows as one change. `draw` is uniform
    in [0, 1).
    """
    pace = pace or Pace()
    clock = asyncio.get_running_loop().time
    known: dict[str, Thing] | None = None
    version, failures = "", 0
    while True:
        began = clock()
        try:
            if not version:
                listed = await api.list(kind, namespace=namespace, selector=selector)
                fresh = {each.metadata.name: each for each in listed.items}
                is_news, known, version = fresh != known, fresh, listed.version
                if is_news:
                    yield dict(known)
            stream = api.watch(kind, version=version, namespace=namespace, selector=selector, pace=pace)
            async with aclosing(stream) as changes:
                async for change in changes:
                    version = change.version
                    if known is not None and _merge(known, change):
                        yield dict(known)
        except Unreachable as error:
            if known is not None:
                logger.warning("lost the %s of the cluster, the last ones known stay: %s", kind.plural, error)
            elif not failures:  # once: nothing changes until there is an answer, and that is told by what it brings
                logger.warning("no %s yet, %s does not answer, trying on: %s", kind.plural, api.url, error)
        except KubeError as error:
            logger.warning("must list the %s of the cluster again: %s", kind.plural, error)
            version = ""
        # Before the first answer nothing held, however long an attempt took.
        failures = 0 if known is not None and clock() - began > LASTED_S else failures
        await asyncio.sleep(pace.backoff_s(failures, draw(), is_first=known is None))
        failures += 1


def _merge(known: dict[str, Thing], change: Change[Thing]) -> bool:
    """Bring the set up to date; false when nothing changed."""
    if change.is_deleted:
        return known.pop(change.name, None) is not None
    if change.thing is None or known.get(change.name) == change.thing:
        return False
    known[change.name] = change.thing
    return True


async def _lines(reply: httpx2.Response) -> AsyncGenerator[bytes]:
    rest = b""
    async for data in reply.aiter_bytes():
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if line:
                yield line
        if len(rest) > MAX_EVENT_BYTES:
            raise KubeError(f"an event of a watch is longer than {MAX_EVENT_BYTES} bytes")


def _change(event: _Event, kind: Kind[Thing]) -> Change[Thing]:
    head = _decoded(event.object, _Head)
    if event.type == _ERROR:
        raise _error(head.code, head.message)
    version, name = head.metadata.resource_version, head.metadata.name
    if event.type == _BOOKMARK:
        return Change(version, name, None)
    return Change(version, name, _decoded(event.object, kind.type), is_deleted=event.type == "DELETED")


def _selected(selector: str) -> dict[str, str]:
    return {"labelSelector": selector} if selector else {}


def _encoded(kind: Kind[Thing], thing: Thing) -> bytes:
    shape = {"apiVersion": kind.group_version, "kind": kind.name, **msgspec.to_builtins(thing)}
    return msgspec.json.encode(shape)


def _decoded(data: bytes | msgspec.Raw, shape: type[Found]) -> Found:
    try:
        return msgspec.json.decode(data, type=shape)
    except msgspec.MsgspecError as error:
        raise KubeError(f"the API server sent what is no {shape.__name__}: {error}") from error


def _refusal(status: int, body: bytes) -> KubeError:
    try:
        message = msgspec.json.decode(body, type=_Head).message
    except msgspec.MsgspecError:
        message = body[:200].decode(errors="replace")
    return _error(status, message)


def _error(status: int, message: str) -> KubeError:
    kinds = {_NOT_FOUND: NotFound, _CONFLICT: Conflict, _GONE: Gone}
    return kinds.get(status, KubeError)(f"{status}: {message}", status)


def _no_answer(what: str, path: str, error: Exception) -> Unreachable:
    return Unreachable(f"{what} {path}: {error or type(error).__name__}")
