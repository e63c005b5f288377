"""A caller's own httpx client, and the time-outs of one attempt."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

import sdk_answers as published
from sdk_clients import Open
from sdk_server import Reply, ScriptedServer, Serve, Stall
from sie_sdk import SIEAsyncClient, SIEClient, errors, settings
from sie_sdk.messages import Request
from sie_sdk.types import Item
from sie_sdk.wire import Writer

HELLO = Item(text="Hello world")
Encode = Callable[..., Any]


def by_thread(url: str, **own: Any) -> None:
    """One call through an httpx client with these settings, which outlives the client of ours."""
    with httpx.Client(**own) as http:
        with SIEClient(url, api_key="k-1", http_client=http) as client:
            client.encode("org/m", HELLO, wait_for_capacity=False)
        assert not http.is_closed


def by_task(url: str, **own: Any) -> None:
    """The same for asyncio."""

    async def run() -> None:
        async with httpx.AsyncClient(**own) as http:
            async with SIEAsyncClient(url, api_key="k-1", http_client=http) as client:
                await client.encode("org/m", HELLO, wait_for_capacity=False)
            assert not http.is_closed

    asyncio.run(run())


@pytest.fixture(params=[by_thread, by_task])
def encode(request: pytest.FixtureRequest) -> Encode:
    found: Encode = request.param
    return found


def test_a_proxy_is_reached_through_the_callers_own_client(serve: Serve, encode: Encode) -> None:
    proxy: ScriptedServer = serve(published.VECTOR)
    encode("http://sie.example.com", proxy=proxy.url, headers={"X-Own": "yes", "User-Agent": "own"})
    [seen] = proxy.seen
    assert seen.path == "http://sie.example.com/v1/encode/org/m"
    assert (seen.headers["x-own"], seen.headers["authorization"]) == ("yes", "Bearer k-1")
    assert seen.headers["user-agent"].startswith("sie-sdk/")


def test_the_key_follows_no_redirect_of_anybodys_client(serve: Serve, encode: Encode) -> None:
    elsewhere = serve(published.VECTOR)
    server = serve(Reply(307, b"", {"Location": f"{elsewhere.url}/v1/encode/org/m"}))
    with pytest.raises(errors.RequestError, match="307"):
        encode(server.url, follow_redirects=True)
    assert elsewhere.seen == []


def test_threads_share_the_callers_own_client(serve: Serve) -> None:
    server = serve(published.VECTOR)
    with (
        httpx.Client() as http,
        SIEClient(server.url, http_client=http, max_connections=4) as client,
        ThreadPoolExecutor(8) as threads,
    ):
        results = list(threads.map(lambda _: client.encode("org/m", HELLO), range(100)))
    assert all(result["dense"].shape == (2,) for result in results)


def test_a_callers_client_that_is_closed_says_so(serve: Serve) -> None:
    http = httpx.Client()
    with SIEClient(serve(published.VECTOR).url, http_client=http) as client:
        http.close()
        with pytest.raises(errors.SIEConnectionError) as raised:
            client.encode("org/m", HELLO)
        assert raised.value.code == "CLIENT_CLOSED"


def test_a_client_of_the_other_kind_is_refused_at_once() -> None:
    with httpx.Client() as http, pytest.raises(TypeError, match=r"a Client; expected an httpx\.AsyncClient"):
        SIEAsyncClient("http://x", http_client=http)  # type: ignore[arg-type]  # what this is about


def test_the_read_timeout_of_newer_clients_bounds_an_attempt(serve: Serve, open_client: Open) -> None:
    client = open_client(serve(Stall()).url, timeout_s=30, read_timeout_s=0.2)
    with pytest.raises(errors.SIEConnectionError, match=r"within 0\.2 s"):
        client.encode("org/m", HELLO, wait_for_capacity=False)


@pytest.mark.parametrize(("connect_timeout_s", "attempt_s", "expected"), [(2, 30, 2), (10, 1, 1)])
def test_connecting_takes_its_own_time_and_never_more_than_the_attempt(
    connect_timeout_s: float, attempt_s: float, expected: float
) -> None:
    writer = Writer(settings.resolve("http://x", connect_timeout_s=connect_timeout_s, environ={}))
    sent = writer.write(Request("GET", "/health"), attempt_s)
    assert sent.extensions["timeout"] == {"connect": expected, "read": attempt_s, "write": attempt_s, "pool": attempt_s}


def test_a_proxy_of_the_environment_that_cannot_be_reached_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://user:secret@127.0.0.1:9")
    with SIEClient("http://sie.example.com") as client, pytest.raises(errors.SIEConnectionError) as raised:
        client.encode("org/m", HELLO, wait_for_capacity=False)
    assert "no connection to sie.example.com by the proxy 127.0.0.1:9 of HTTP_PROXY: " in str(raised.value)
    assert "secret" not in str(raised.value)
