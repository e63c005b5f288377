"""Watching a real websocket server of the package `websockets`."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from sdk_clients import Open
from sie_sdk import SIEClient, errors, watching


class Watched:
    """Tells numbered frames: `per_connection` of them, then it hangs up.

    `kind` is what GET /health says; empty: there is no such route, as on a worker.
    """

    def __init__(self, kind: str, per_connection: int, refusals: list[HTTPStatus]) -> None:
        self._kind = kind
        self._per_connection = per_connection
        self._refusals = refusals
        self.stopping = threading.Event()
        self.paths: list[str] = []
        self.keys: list[str | None] = []
        self.frames = 0
        self.url = ""

    def before(self, connection: ServerConnection, request: Any) -> Any:
        self.keys.append(request.headers.get("Authorization"))
        if request.path == "/health":
            if not self._kind:
                return connection.respond(HTTPStatus.NOT_FOUND, "there is nothing here\n")
            response = connection.respond(HTTPStatus.OK, json.dumps({"type": self._kind}))
            response.headers["Content-Type"] = "application/json"
            return response
        self.paths.append(request.path)
        return connection.respond(self._refusals.pop(0), "no\n") if self._refusals else None

    def handle(self, connection: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            for _ in range(self._per_connection):
                self.frames += 1
                connection.send(json.dumps({"timestamp": self.frames}))
            if self._per_connection >= 100:
                connection.recv()


@contextmanager
def watched(kind: str, per_connection: int = 2, refusals: tuple[HTTPStatus, ...] = ()) -> Iterator[Watched]:
    about = Watched(kind, per_connection, list(refusals))
    with serve(about.handle, "127.0.0.1", 0, process_request=about.before) as server:
        about.url = f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield about
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("kind", "path"),
    [("router", "/ws/cluster-status"), ("gateway", "/ws/cluster-status"), ("worker", "/ws/status"), ("", "/ws/status")],
)
def test_it_finds_out_whom_it_watches_and_shows_its_key(kind: str, path: str, open_client: Open) -> None:
    with watched(kind) as server:
        client = open_client(server.url, api_key="k-1")
        assert [frame.get("timestamp") for frame in client.watch_some(2)] == [1, 2]
        client.close()
    assert server.paths == [path]
    assert set(server.keys) == {"Bearer k-1"}


def test_it_connects_again_when_the_server_hangs_up_or_is_overloaded(open_client: Open) -> None:
    with watched("router", refusals=(HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS)) as server:
        waits: list[Any] = []
        client = open_client(server.url, on_wait=waits.append)
        assert len(client.watch_some(5, mode="cluster")) == 5
        client.close()
    assert len(server.paths) == 5
    assert [wait.attempt for wait in waits] == [1, 2, 1, 1]
    assert {wait.reason for wait in waits} == {"CONNECTION_LOST"}


def test_a_refusal_for_good_is_raised(open_client: Open) -> None:
    with watched("router", refusals=(HTTPStatus.UNAUTHORIZED,)) as server:
        client = open_client(server.url)
        with pytest.raises(errors.RequestError, match="api_key"):
            client.watch_some(1, mode="worker")
        client.close()


def test_a_redirect_is_not_followed_and_the_key_stays_here(open_client: Open) -> None:
    with watched("router") as other:

        def elsewhere(connection: ServerConnection, _: Any) -> Any:
            response = connection.respond(HTTPStatus.FOUND, "")
            response.headers["Location"] = other.url.replace("http", "ws") + "/ws/cluster-status"
            return response

        with serve(lambda _: None, "127.0.0.1", 0, process_request=elsewhere) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            client = open_client(f"http://127.0.0.1:{server.socket.getsockname()[1]}", api_key="k-1")
            with pytest.raises(errors.RequestError, match="302"):
                client.watch_some(1, mode="cluster")
            client.close()
            server.shutdown()
            thread.join()
    assert other.keys == []


def test_closing_the_client_ends_a_watch_of_another_thread() -> None:
    with watched("router", per_connection=100) as server:
        client, seen = SIEClient(server.url), threading.Event()
        found: list[Any] = []

        def watch() -> None:
            for frame in client.watch(mode="cluster"):
                found.append(frame)
                if len(found) == 100:
                    seen.set()

        watcher = threading.Thread(target=watch)
        watcher.start()
        assert seen.wait(60)
        client.close()
        watcher.join(60)
        assert not watcher.is_alive()


def test_a_mode_that_does_not_exist_is_refused() -> None:
    with SIEClient("http://localhost:1") as client, pytest.raises(ValueError, match="auto, cluster, worker"):
        next(client.watch(mode="clutser"))  # type: ignore[arg-type]  # the typo is the test


@given(st.integers(1, 200), st.floats(0, 1, exclude_max=True))
def test_pauses_grow_and_stay_bounded(attempt: int, draw: float) -> None:
    delay = watching.reconnect("gone", attempt, 0.0, draw).delay_s
    assert 0.25 <= delay <= 10
    assert watching.reconnect("gone", attempt + 1, 0.0, draw).delay_s >= delay
