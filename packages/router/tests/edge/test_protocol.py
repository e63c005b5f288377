import asyncio
import re
from collections.abc import Awaitable, Callable

import pytest
from starlette.types import Receive, Scope, Send

from router_builders import MODEL, status
from router_fakes import WAIT_S, Exchange, FakeWorker, eventually, listening, port_of, served, settings

MakeWorker = Callable[..., Awaitable[FakeWorker]]
HEAD = f"POST /v1/encode/{MODEL} HTTP/1.1\r\nhost: x\r\n"


async def said(port: int, request: str) -> bytes:
    """All that the router sends until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request.encode())
    async with asyncio.timeout(WAIT_S):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_pipelined_requests_are_answered_in_their_order(make_worker: MakeWorker) -> None:
    async def slower_first(exchange: Exchange) -> None:
        if exchange.body == b"1":
            await eventually(lambda: bool(router.outcomes) or len(worker.seen) == 1)
        exchange.reply(200, b"answer " + exchange.body)

    worker = await make_worker(status("w", loaded=[MODEL]), slower_first)
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        requests = [f"{HEAD}content-length: 1\r\n\r\n{number}" for number in (1, 2)]
        last = f"{HEAD}content-length: 1\r\nconnection: close\r\n\r\n3"
        answer = await said(router.port, "".join([*requests, last]))
    assert re.findall(rb"answer \d", answer) == [b"answer 1", b"answer 2", b"answer 3"]
    assert answer.count(b"HTTP/1.1 200") == 3
    assert answer.count(b"connection: close") == 1


async def test_an_old_client_gets_its_answer_and_a_closed_connection(make_worker: MakeWorker) -> None:
    worker = await make_worker(status("w", loaded=[MODEL]))
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        answer = await said(router.port, f"{HEAD}content-length: 2\r\n\r\nhi".replace("HTTP/1.1", "HTTP/1.0"))
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\nhi")


async def test_an_old_client_gets_no_chunks_but_the_end_of_the_connection() -> None:
    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await answer_lifespan(receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"one ", b"two"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if scope["path"] != "/cut":
            await send({"type": "http.response.body", "body": b""})

    async with listening(stream) as server:
        port = port_of(server)
        head, _, body = (await said(port, "GET / HTTP/1.0\r\nexpect: 100-continue\r\n\r\n")).partition(b"\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            await said(port, "GET /cut HTTP/1.0\r\n\r\n")
    assert body == b"one two"
    assert head.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in head
    assert b"chunked" not in head


async def test_a_line_break_in_a_value_cannot_make_a_header() -> None:
    async def careless(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = [(b"x-name", b"w\r\nset-cookie: a=b"), (b"content-length", b"0")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body"})
        else:
            await answer_lifespan(receive, send)

    async with listening(careless) as server:
        answer = await said(port_of(server), f"{HEAD}connection: close\r\ncontent-length: 0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 500")
    assert b"INTERNAL_ERROR" in answer
    assert b"set-cookie" not in answer


async def answer_lifespan(receive: Receive, send: Send) -> None:
    while (message := await receive())["type"] != "lifespan.shutdown":
        await send({"type": f"{message['type']}.complete"})
    await send({"type": "lifespan.shutdown.complete"})


async def test_a_request_that_offers_an_upgrade_is_served_as_it_is(make_worker: MakeWorker) -> None:
    worker = await make_worker(status("w", loaded=[MODEL]))
    offer = "connection: upgrade, close\r\nupgrade: h2c\r\n"
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        answer = await said(router.port, f"{HEAD}{offer}content-length: 2\r\n\r\nhi")
    assert answer.startswith(b"HTTP/1.1 200")


async def test_head_has_no_body() -> None:
    async with served(settings()) as router:
        answer = await said(router.port, "HEAD /v1/encode/m HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 405")
    assert body == b""


async def test_an_offer_of_websocket_with_a_body_is_a_request_like_any_other(make_worker: MakeWorker) -> None:
    worker = await make_worker(status("w", loaded=[MODEL]))
    offer = "connection: upgrade, close\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        answer = await said(router.port, f"{HEAD}{offer}content-length: 2\r\n\r\nhi")
    assert answer.startswith(b"HTTP/1.1 200")


async def test_what_has_a_get_has_a_head() -> None:
    async with served(settings()) as router:
        asked, looked = [
            await said(router.port, f"{method} /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            for method in ("GET", "HEAD")
        ]
    assert looked.startswith(b"HTTP/1.1 200")
    assert looked.endswith(b"\r\n\r\n")
    assert b"content-length: 15\r\n" in looked
    assert asked.endswith(b'{"status":"ok"}')
