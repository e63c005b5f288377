"""A Kubernetes API server in miniature: real HTTP, versions, list in pages, watch, and the ways in which those fail."""

import asyncio
import json
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2

from router_fakes import bound
from sie_router.control.kube import KubeApi
from sie_router.control.kube_objects import Kind

Body = dict[str, Any]


@dataclass(slots=True)
class Asked:
    """One request; `query` holds the last value of each parameter."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Body


@dataclass(slots=True)
class Event:
    """What a watch tells, at the version of its object."""

    version: int
    collection: str
    type: str
    object: Body


@dataclass(slots=True)
class FakeKube:
    """Listens on a free port of 127.0.0.1, which stays its own until `close`.

    Stores whatever is created, under `<collection path>/<name>`.

    `oldest` is the last version that was forgotten: a watch from before it gets 410. `refusing` answers everything with
    this status; `is_mute` accepts requests and never answers.
    """

    objects: dict[str, Body] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    version: int = 1
    oldest: int = 0
    refusing: int = 0
    is_mute: bool = False
    page_size: int = 2
    port: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    writers: dict[asyncio.StreamWriter, "asyncio.Task[None] | None"] = field(default_factory=dict)
    server: asyncio.Server | None = None
    holder: socket.socket | None = None
    is_down: bool = False

    async def start(self) -> "FakeKube":
        """Listen, on the same port as last time."""
        if self.holder is None:
            self.holder = bound()
            self.port = self.holder.getsockname()[1]
        self.is_down = False
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, reuse_address=True)
        return self

    async def stop(self) -> None:
        """Nobody listens any more, and every connection breaks; what is stored stays."""
        if self.server is not None:
            self.is_down = True
            self.server.close()
            self.cut()
            await self.server.wait_closed()
            self.server = None

    async def close(self) -> None:
        """Stop, and let go of the port."""
        await self.stop()
        if self.holder is not None:
            self.holder.close()

    def cut(self) -> None:
        """Break every connection."""
        for writer, task in self.writers.items():
            writer.transport.abort()
            if task is not None:
                task.cancel()

    def api(self) -> KubeApi:
        """A client of this server; close it."""
        return KubeApi(httpx2.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", trust_env=False), "default")

    def watches(self) -> int:
        """How many watches were begun."""
        return sum("watch" in asked.query for asked in self.asked)

    async def put(self, kind: Kind[Any], name: str, body: Body) -> None:
        """Create or replace an object behind everybody's back."""
        await self._store(f"{kind.path}/namespaces/default/{kind.plural}", name, body)

    async def drop(self, kind: Kind[Any], name: str) -> None:
        """Delete an object behind everybody's back."""
        await self._drop(f"{kind.path}/namespaces/default/{kind.plural}", name)

    async def forget(self) -> None:
        """Compact: no watch can go on from before now."""
        self.version += 1
        self.oldest = self.version
        self.events.clear()

    def say(self, line: str) -> None:
        """Send a line of any text to every watch."""
        for writer in self.writers:
            _chunk(writer, line.encode() + b"\n")

    async def _store(self, collection: str, name: str, body: Body) -> Body:
        key = f"{collection}/{name}"
        self.version += 1
        meta = {**body.get("metadata", {}), "name": name, "resourceVersion": str(self.version)}
        stored = {**body, "metadata": meta}
        kind = "MODIFIED" if key in self.objects else "ADDED"
        self.objects[key] = stored
        await self._happened(Event(self.version, collection, kind, stored))
        return stored

    async def _drop(self, collection: str, name: str) -> None:
        last = self.objects.pop(f"{collection}/{name}")
        self.version += 1
        meta = {**last["metadata"], "resourceVersion": str(self.version)}
        await self._happened(Event(self.version, collection, "DELETED", {**last, "metadata": meta}))

    async def _happened(self, event: Event) -> None:
        self.events.append(event)
        async with self.changed:
            self.changed.notify_all()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_down:  # it was accepted before, and is served only now
            writer.transport.abort()
            return
        self.writers[writer] = asyncio.current_task()
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):  # `cut` cancels
            asked = await _read(reader)
            self.asked.append(asked)
            if self.is_mute:
                await reader.read()
            elif self.refusing:
                _answer(writer, self.refusing, {"code": self.refusing, "message": "refused"})
            elif "watch" in asked.query:
                await self._watch(writer, asked)
            else:
                status, body = await self._obey(asked)
                _answer(writer, status, body)
        del self.writers[writer]
        writer.close()

    async def _watch(self, writer: asyncio.StreamWriter, asked: Asked) -> None:
        after = int(asked.query["resourceVersion"])
        if after < self.oldest:
            _answer(writer, 410, {"code": 410, "message": "too old resource version"})
            return
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        with suppress(TimeoutError):
            async with asyncio.timeout(float(asked.query["timeoutSeconds"])):
                while not writer.transport.is_closing():
                    after = self._send(writer, asked, after)
                    async with self.changed:
                        await self.changed.wait()
        _chunk(writer, b"")

    def _send(self, writer: asyncio.StreamWriter, asked: Asked, after: int) -> int:
        if after < self.oldest:
            _event(writer, "ERROR", {"kind": "Status", "code": 410, "message": "too old resource version"})
            return self.version
        for event in self.events:
            if event.version > after and event.collection == asked.path and _is_selected(event.object, asked):
                _event(writer, event.type, event.object)
        return self.version

    def bookmark(self) -> None:
        """Tell every watch how far it has come."""
        for writer in self.writers:
            _event(writer, "BOOKMARK", {"metadata": {"resourceVersion": str(self.version)}})

    def end(self) -> None:
        """End every watch as if its time were up."""
        for writer in self.writers:
            _chunk(writer, b"")
            writer.close()

    async def _obey(self, asked: Asked) -> tuple[int, Body]:
        collection, _, name = asked.path.rpartition("/")
        if asked.method == "POST":
            return await self._create(asked)
        if (
            asked.method == "GET"
            and asked.path not in self.objects
            and collection.rpartition("/")[0].endswith("/namespaces")
        ):
            return 200, self._page(asked)
        stored = self.objects.get(asked.path)
        if stored is None:
            return 404, {"code": 404, "message": f"{name} not found"}
        return (200, stored) if asked.method == "GET" else await self._change(asked, stored)

    async def _change(self, asked: Asked, stored: Body) -> tuple[int, Body]:
        collection, _, name = asked.path.rpartition("/")
        meta = asked.body.get("metadata") or asked.body.get("preconditions") or {}
        if meta.get("resourceVersion") not in {None, stored["metadata"]["resourceVersion"]}:
            return 409, {"code": 409, "message": "the object has been modified"}
        if asked.method == "DELETE":
            await self._drop(collection, name)
            return 200, {"status": "Success"}
        return 200, await self._store(collection, name, asked.body)

    async def _create(self, asked: Asked) -> tuple[int, Body]:
        name = asked.body["metadata"]["name"]
        if f"{asked.path}/{name}" in self.objects:
            return 409, {"code": 409, "message": f"{name} already exists"}
        return 201, await self._store(asked.path, name, asked.body)

    def _page(self, asked: Asked) -> Body:
        inside = [body for key, body in sorted(self.objects.items()) if key.rpartition("/")[0] == asked.path]
        chosen = [body for body in inside if _is_selected(body, asked)]
        start = int(asked.query.get("continue", 0))
        end = start + self.page_size
        meta = {"resourceVersion": str(self.version)} | ({"continue": str(end)} if end < len(chosen) else {})
        return {"metadata": meta, "items": chosen[start:end]}


def slice_of(*addresses: str, service: str = "sie-worker", port: int = 8080, **conditions: bool) -> Body:
    """An EndpointSlice with one endpoint for each address, all in the same condition."""
    return {
        "metadata": {"labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv6" if ":" in "".join(addresses) else "IPv4",
        "endpoints": [{"addresses": [address], "conditions": conditions} for address in addresses],
        "ports": [{"name": "http", "port": port}],
    }


def kubeconfig(folder: Path, port: int, token_file: Path | None = None) -> Path:
    """A file that leads to this server."""
    user = {} if token_file is None else {"tokenFile": str(token_file)}
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u", "namespace": "sie"}}],
        "clusters": [{"name": "k", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": user}],
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config))  # JSON is YAML
    return path


def _is_selected(body: Body, asked: Asked) -> bool:
    """Understands the one form of selector the router uses: `key in (a,b)`."""
    selector = asked.query.get("labelSelector", "")
    if not selector:
        return True
    key, _, values = selector.partition(" in ")
    return body["metadata"].get("labels", {}).get(key) in values.strip("()").split(",")


def _event(writer: asyncio.StreamWriter, kind: str, body: Body) -> None:
    _chunk(writer, json.dumps({"type": kind, "object": body}).encode() + b"\n")


def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


def _answer(writer: asyncio.StreamWriter, status: int, body: Body) -> None:
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n"
    writer.write(f"{head}connection: close\r\n\r\n".encode() + data)


async def _read(reader: asyncio.StreamReader) -> Asked:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    method, target, _ = lines[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    parts = urlsplit(target)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    return Asked(method, parts.path, query, headers, json.loads(body or b"{}"))
