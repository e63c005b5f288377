import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import httpx
import msgspec
import pytest

from router_builders import L4, MODEL, status
from router_fakes import Exchange, FakeWorker, Served, eventually, served, settings
from sie_protocol.codec import MAX_BODY_BYTES
from sie_router.core.demand import wanted
from sie_router.data.body import REPLAY_BYTES

MakeWorker = Callable[..., Awaitable[FakeWorker]]
PATH = f"/v1/encode/{MODEL}"
WARM = status("w", loaded=[MODEL])


async def post(router: Served, path: str = PATH, body: bytes = b"{}", **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=router.url, timeout=20) as client:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return await client.post(path, content=body, headers=names)


async def raw(router: Served, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    writer.write(request)
    return reader, writer


async def test_bytes_pass_unchanged_both_ways(make_worker: MakeWorker) -> None:
    worker = await make_worker(WARM)
    body = bytes(range(256)) * 40
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        answer = await post(router, PATH + "?a=1&b=%20", body, content_type="application/msgpack")
    assert (answer.status_code, answer.content) == (200, body)
    assert answer.headers["content-length"] == str(len(body))
    request = worker.seen[0]
    assert (request.method, request.target, request.body) == ("POST", PATH + "?a=1&b=%20", body)
    assert request.header("content-type") == "application/msgpack"
    assert request.header("content-length") == str(len(body))
    assert request.header("host") == worker.url.removeprefix("http://")


async def test_an_answer_names_worker_request_and_exactly_one_version(make_worker: MakeWorker) -> None:
    async def versioned(exchange: Exchange) -> None:
        exchange.reply(X_SIE_Server_Version="9.9.9", X_Request_ID="worker's own", X_Queue_Time="1.00")

    worker = await make_worker(WARM, versioned)
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        answer = await post(router, X_Request_ID="abc-123")
        made = await post(router, X_Request_ID="not visible")
    assert answer.headers["x-sie-worker"] == "w"
    assert answer.headers.get_list("x-sie-server-version") == ["0.1.10"]
    assert answer.headers.get_list("x-request-id") == ["abc-123"] == [worker.seen[0].header("x-request-id")]
    assert answer.headers["x-queue-time"] == "1.00"
    assert made.headers["x-request-id"] == worker.seen[1].header("x-request-id") != "not visible"


async def test_a_worker_gets_its_own_profile_and_no_credentials(make_worker: MakeWorker) -> None:
    worker = await make_worker(status("w", profile="l4-spot"))
    async with served(settings(worker, groups=())) as router:
        await eventually(lambda: router.healthy() == 1)
        answer = await post(
            router,
            X_SIE_MACHINE_PROFILE="default/L4",
            X_SIE_Pool="ignored",
            Authorization="Bearer secret",
            Cookie="a=b",
            Accept="application/msgpack",
        )
    assert answer.status_code == 200
    request = worker.seen[0]
    assert request.header("x-sie-machine-profile") == "l4-spot"
    assert request.header("accept") == "application/msgpack"
    assert not [name for name, _ in request.headers if name in {"authorization", "cookie", "x-sie-pool"}]


async def test_hop_by_hop_headers_end_at_the_router(make_worker: MakeWorker) -> None:
    async def chatty(exchange: Exchange) -> None:
        exchange.reply(Connection="keep-alive, X-Private", X_Private="1", Keep_Alive="timeout=5", X_Public="2")

    worker = await make_worker(WARM, chatty)
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        answer = await post(router, Connection="X-Hop, keep-alive", X_Hop="1", TE="trailers", X_End="2")
    names = {name for name, _ in worker.seen[0].headers}
    assert not names & {"connection", "x-hop", "te", "keep-alive", "transfer-encoding", "upgrade"}
    assert "x-end" in names
    assert not {"x-private", "keep-alive"} & set(answer.headers)
    assert answer.headers["x-public"] == "2"


async def test_the_path_is_built_from_parsed_parts(make_worker: MakeWorker) -> None:
    worker = await make_worker(status("w"))
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        await post(router, "/v1/score/DEFAULT:/BAAI/bge-m3")
        await post(router, "/v1/extract/BAAI%2Fbge-m3")
        await post(router, "/v1/encode/a%20b%0d%0ax:%3F%25")
    assert [request.target for request in worker.seen] == [
        "/v1/score/BAAI/bge-m3",
        "/v1/extract/BAAI/bge-m3",
        "/v1/encode/a%20b%0D%0Ax:%3F%25",
    ]


@pytest.mark.parametrize("is_chunked", [True, False])
async def test_a_long_answer_is_streamed_whole(make_worker: MakeWorker, is_chunked: bool) -> None:
    body = bytes(range(256)) * 12_000

    async def long(exchange: Exchange) -> None:
        if not is_chunked:
            exchange.reply(200, body)
            return
        exchange.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for start in range(0, len(body), 100_000):
            piece = body[start : start + 100_000]
            exchange.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await asyncio.sleep(0)
        exchange.write(b"0\r\n\r\n")

    worker = await make_worker(WARM, long)
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        for _ in range(2):
            answer = await post(router)
            assert (answer.status_code, answer.content) == (200, body)
        await eventually(lambda: len(worker.connections) == 1)
        assert len(worker.seen) == 2


async def test_a_connection_is_used_again(make_worker: MakeWorker) -> None:
    worker = await make_worker(WARM)
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        for _ in range(5):
            assert (await post(router)).status_code == 200
        assert len({id(request.connection) for request in worker.seen}) == 1


async def test_what_a_worker_says_unasked_is_no_answer_to_the_next_request(make_worker: MakeWorker) -> None:
    connections: list[object] = []

    async def talkative(exchange: Exchange) -> None:
        connections.append(exchange.connection)
        if len(connections) == 1:
            surplus = b"HTTP/1.1 200 X\r\ncontent-le"
            exchange.write(b"HTTP/1.1 200 X\r\ncontent-length: 5\r\n\r\nasked" + surplus)
        elif connections.count(exchange.connection) == 1:
            exchange.reply(200, b"asked")
        else:
            exchange.write(b"ngth: 7\r\n\r\nunasked")

    worker = await make_worker(WARM, talkative)
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        assert [(await post(router)).content for _ in range(2)] == [b"asked"] * 2


async def test_a_kept_connection_that_dies_as_it_is_used_costs_nobody_anything(make_worker: MakeWorker) -> None:
    async def once(exchange: Exchange) -> None:
        if exchange.connection in used:
            exchange.cut()
        else:
            used.append(exchange.connection)
            exchange.reply()

    used: list[object] = []
    worker = await make_worker(WARM, once)
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        assert [(await post(router)).status_code for _ in range(3)] == [200, 200, 200]
    assert len(worker.seen) == 5


async def test_an_informational_response_is_not_the_answer(make_worker: MakeWorker) -> None:
    async def hinted(exchange: Exchange) -> None:
        exchange.write(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n")
        exchange.reply(200, b"real")

    worker = await make_worker(WARM, hinted)
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        answer = await post(router)
    assert (answer.status_code, answer.content, "link" in answer.headers) == (200, b"real", False)


async def test_a_worker_that_refuses_connections_is_replaced_by_another(make_worker: MakeWorker) -> None:
    gone, there = await make_worker(WARM), await make_worker(status("there"))
    async with served(settings(gone, there)) as router:
        await eventually(lambda: router.healthy() == 2)
        gone.stop_listening()
        answer = await post(router)
    assert (answer.status_code, answer.headers["x-sie-worker"]) == (200, "there")


async def test_a_worker_killed_in_the_middle_of_a_request_is_invisible(make_worker: MakeWorker) -> None:
    async def die(_: Exchange) -> None:
        first.kill()

    first, second = await make_worker(WARM, die), await make_worker(status("second"))
    async with served(settings(first, second)) as router:
        await eventually(lambda: router.healthy() == 2)
        answer = await post(router, body=b"again")
    assert (answer.status_code, answer.content) == (200, b"again")
    assert len(first.seen) == 1


async def test_a_short_answer_that_is_cut_is_asked_for_again(make_worker: MakeWorker) -> None:
    async def half(exchange: Exchange) -> None:
        exchange.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        await asyncio.sleep(0)
        exchange.cut()

    first, second = await make_worker(WARM, half), await make_worker(status("second"))
    async with served(settings(first, second)) as router:
        await eventually(lambda: router.healthy() == 2)
        answer = await post(router, body=b"whole")
    assert (answer.status_code, answer.content) == (200, b"whole")


async def test_a_long_answer_that_is_cut_never_looks_complete(make_worker: MakeWorker) -> None:
    async def half(exchange: Exchange) -> None:
        exchange.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        await eventually(router_got.is_set)
        exchange.cut()

    router_got = asyncio.Event()
    worker = await make_worker(WARM, half)
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        async with httpx.AsyncClient(base_url=router.url) as client:
            with pytest.raises(httpx.RemoteProtocolError):  # noqa: PT012 - the stream is the claim
                async with client.stream("POST", PATH, content=b"{}") as answer:
                    async for piece in answer.aiter_raw():
                        assert piece == b"half"
                        router_got.set()
        await eventually(lambda: bool(router.outcomes))
        assert router.outcomes[0].status == 502


async def test_an_answer_without_framing_is_not_trusted(make_worker: MakeWorker) -> None:
    async def unframed(exchange: Exchange) -> None:
        exchange.write(b"HTTP/1.1 200 OK\r\n\r\nperhaps all of it")
        exchange.connection.transport.close()

    worker = await make_worker(WARM, unframed)
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        answer = await post(router)
    assert answer.status_code == 503


async def test_one_broken_connection_is_not_taken_for_a_dead_worker(make_worker: MakeWorker) -> None:
    async def second_time_lucky(exchange: Exchange) -> None:
        exchange.cut() if len(worker.seen) == 1 else exchange.reply()

    worker = await make_worker(WARM, second_time_lucky)
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        assert (await post(router)).status_code == 200
        assert router.healthy() == 1


async def test_a_request_that_every_worker_drops_ends_with_a_code(make_worker: MakeWorker) -> None:
    async def drop(exchange: Exchange) -> None:
        exchange.cut()

    worker = await make_worker(WARM, drop)
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        answer = await post(router)
    assert (answer.status_code, answer.headers["x-sie-error-code"]) == (503, "WORKER_UNAVAILABLE")
    assert len(worker.seen) == 2


async def test_when_the_only_worker_dies_clients_wait_for_capacity(make_worker: MakeWorker) -> None:
    async def die(_: Exchange) -> None:
        worker.kill()

    worker = await make_worker(WARM, die)
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        answer = await post(router)
        assert (answer.status_code, answer.headers["retry-after"]) in {(202, "2"), (202, "3")}, "it may be back soon"
        assert wanted(router.app.store.snapshot(), 0)[L4, "default"] == 1


async def test_a_published_client_hears_what_passes_in_a_code_that_it_tries_again(make_worker: MakeWorker) -> None:
    async def drop(exchange: Exchange) -> None:
        exchange.cut()

    worker = await make_worker(WARM, drop)
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        answer = await post(router, x_sie_sdk_version="0.10.1")
    assert (answer.status_code, answer.headers["x-sie-error-code"]) == (503, "QUEUE_UNAVAILABLE")
    assert (answer.json()["error"]["reason"], "retry-after" in answer.headers) == ("WORKER_UNAVAILABLE", True)


@pytest.mark.parametrize("code", ["QUEUE_FULL", "SHUTTING_DOWN"])
async def test_a_worker_that_says_not_me_is_replaced_by_another(make_worker: MakeWorker, code: str) -> None:
    async def refuse(exchange: Exchange) -> None:
        exchange.refuse(code)

    first, second = await make_worker(WARM, refuse), await make_worker(status("second"))
    async with served(settings(first, second)) as router:
        await eventually(lambda: router.healthy() == 2)
        answer = await post(router)
    assert (answer.status_code, answer.headers["x-sie-worker"]) == (200, "second")


@pytest.mark.parametrize("code", ["INTERNAL_ERROR", ""])
async def test_a_worker_that_fails_is_replaced_by_another(make_worker: MakeWorker, code: str) -> None:
    async def fail(exchange: Exchange) -> None:
        exchange.reply(500, b"broken", **({"X_SIE_Error_Code": code} if code else {}))

    first, second = await make_worker(WARM, fail), await make_worker(status("second"))
    async with served(settings(first, second)) as router:
        await eventually(lambda: router.healthy() == 2)
        answer = await post(router)
    assert (answer.status_code, answer.headers["x-sie-worker"]) == (200, "second")


async def test_what_fails_everywhere_is_tried_twice_and_passed_on(make_worker: MakeWorker) -> None:
    async def fail(exchange: Exchange) -> None:
        exchange.reply(500, b"broken", X_SIE_Error_Code="INTERNAL_ERROR")

    workers = [await make_worker(status(name, loaded=[MODEL]), fail) for name in ("a", "b", "c")]
    async with served(settings(*workers)) as router:
        await eventually(lambda: router.healthy() == 3)
        answer = await post(router)
    assert (answer.status_code, answer.content) == (500, b"broken")
    assert sum(len(worker.seen) for worker in workers) == 2


async def test_the_more_useful_of_two_refusals_is_passed_on(make_worker: MakeWorker) -> None:
    async def full(exchange: Exchange) -> None:
        exchange.refuse("QUEUE_FULL")

    async def loading(exchange: Exchange) -> None:
        exchange.refuse("MODEL_LOADING")

    first, second = await make_worker(WARM, full), await make_worker(status("second"), loading)
    async with served(settings(first, second)) as router:
        await eventually(lambda: router.healthy() == 2)
        answer = await post(router)
    assert answer.headers["x-sie-error-code"] == "MODEL_LOADING"
    assert answer.headers["x-sie-worker"] == "second"
    assert (len(first.seen), len(second.seen)) == (1, 1)


@pytest.mark.parametrize("code", ["MODEL_LOADING", "LORA_LOADING"])
async def test_what_loads_on_one_worker_is_not_loaded_on_another_by_a_retry(make_worker: MakeWorker, code: str) -> None:
    async def loading(exchange: Exchange) -> None:
        exchange.refuse(code)

    first, second = await make_worker(status("a"), loading), await make_worker(status("b"), loading)
    async with served(settings(first, second)) as router:
        await eventually(lambda: router.healthy() == 2)
        answer = await post(router)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert len(first.seen) + len(second.seen) == 1


async def test_when_the_only_worker_shuts_down_clients_wait_for_capacity(make_worker: MakeWorker) -> None:
    async def leaving(exchange: Exchange) -> None:
        exchange.refuse("SHUTTING_DOWN")

    worker = await make_worker(WARM, leaving)
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        answer = await post(router, X_SIE_SDK_Version="0.10.1")
    assert (answer.status_code, answer.headers["x-sie-error-code"]) == (503, "PROVISIONING")


async def test_other_errors_of_a_worker_are_the_clients_to_see(make_worker: MakeWorker) -> None:
    async def bad(exchange: Exchange) -> None:
        exchange.reply(500, b"{}", X_SIE_Error_Code="INFERENCE_ERROR")

    first, second = await make_worker(WARM, bad), await make_worker(status("second"))
    async with served(settings(first, second)) as router:
        await eventually(lambda: router.healthy() == 2)
        answer = await post(router)
    assert (answer.status_code, answer.content, second.seen) == (500, b"{}", [])


async def test_a_client_that_leaves_cancels_its_request(make_worker: MakeWorker) -> None:
    async def never(_: Exchange) -> None:
        await asyncio.Event().wait()

    worker = await make_worker(WARM, never)
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        _, writer = await raw(router, b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}" % PATH.encode())
        await eventually(lambda: len(worker.seen) == 1)
        assert router.app.inflight.workers == {worker.url: 1}
        writer.transport.abort()
        await eventually(lambda: not worker.connections)
        await eventually(lambda: bool(router.outcomes))
        assert router.outcomes[0].status == 499
        assert router.app.inflight.workers == {}
        writer.close()


async def test_a_client_that_leaves_in_the_middle_of_an_answer_stops_it(make_worker: MakeWorker) -> None:
    async def endless(exchange: Exchange) -> None:
        exchange.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while not exchange.connection.transport.is_closing():
            if exchange.connection.transport.get_write_buffer_size() < 1 << 16:
                exchange.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
            await asyncio.sleep(0)

    worker = await make_worker(WARM, endless)
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        reader, writer = await raw(router, b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n" % PATH.encode())
        await reader.readexactly(100_000)
        writer.transport.abort()
        await eventually(lambda: not worker.connections and bool(router.outcomes))
        assert router.app.inflight.workers == {}
        writer.close()


async def test_a_worker_that_takes_too_long_ends_the_request(make_worker: MakeWorker) -> None:
    async def never(_: Exchange) -> None:
        await asyncio.Event().wait()

    worker = await make_worker(WARM, never)
    async with served(settings(worker, request_timeout_s=0.05)) as router:
        await eventually(lambda: router.healthy() == 1)
        answer = await post(router)
        assert (answer.status_code, answer.headers["x-sie-error-code"]) == (504, "DEADLINE_EXCEEDED")
        await eventually(lambda: not worker.connections)


@pytest.mark.parametrize("is_chunked", [True, False])
async def test_a_body_beyond_the_replay_limit_is_passed_through(make_worker: MakeWorker, is_chunked: bool) -> None:
    body = b"0123456789abcdef" * (REPLAY_BYTES // 16 + 70_000)
    worker = await make_worker(WARM)

    async def pieces() -> object:
        for start in range(0, len(body), 1 << 20):
            yield body[start : start + (1 << 20)]

    async with served(settings(worker)) as router, httpx.AsyncClient(base_url=router.url, timeout=30) as client:
        await eventually(lambda: router.healthy() == 1)
        content = pieces() if is_chunked else body
        answer = await client.post(PATH, content=content)  # type: ignore[arg-type]
        assert answer.status_code == 200
        assert worker.seen[0].body == body
        assert (worker.seen[0].header("content-length") is None) == is_chunked
        assert router.outcomes[0].body_bytes == len(body)


async def test_a_chunked_body_within_the_limit_gets_its_length(make_worker: MakeWorker) -> None:
    worker = await make_worker(WARM)
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        request = b"POST %b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        reader, writer = await raw(router, request % PATH.encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
    assert (worker.seen[0].body, worker.seen[0].header("content-length")) == (b"abcde", "5")


@pytest.mark.parametrize("is_announced", [True, False])
async def test_a_body_beyond_the_limit_is_refused(make_worker: MakeWorker, is_announced: bool) -> None:
    worker = await make_worker(WARM)
    async with served(settings(worker, max_body_bytes=1000)) as router:
        await eventually(lambda: router.healthy() == 1)
        framing = b"content-length: 1001" if is_announced else b"transfer-encoding: chunked"
        body = b"x" * 1001 if is_announced else b"3e9\r\n" + b"x" * 1001 + b"\r\n"
        reader, writer = await raw(
            router, b"POST %b HTTP/1.1\r\nhost: x\r\n%b\r\n\r\n%b" % (PATH.encode(), framing, body)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 413")
        assert b"x-sie-error-code: INPUT_TOO_LONG" in head
        writer.close()
    assert not worker.seen


async def test_a_stream_that_turns_out_too_long_is_refused(make_worker: MakeWorker) -> None:
    worker = await make_worker(WARM)
    piece = b"%x\r\n%b\r\n" % (1 << 20, b"x" * (1 << 20))
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        reader, writer = await raw(
            router, b"POST %b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" % PATH.encode()
        )
        for _ in range(MAX_BODY_BYTES // (1 << 20) + 1):
            writer.write(piece)
            await writer.drain()
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 413")
        writer.close()
        await eventually(lambda: not worker.connections)
    assert not worker.seen


async def test_a_body_is_only_invited_when_it_is_wanted(make_worker: MakeWorker) -> None:
    worker = await make_worker(WARM)
    head = b"POST %b HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n"
    async with served(settings(worker, max_body_bytes=1000)) as router:
        await eventually(lambda: router.healthy() == 1)
        reader, writer = await raw(router, head % (PATH.encode(), 2))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        writer.write(b"{}")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()
        reader, writer = await raw(router, head % (PATH.encode(), 2000))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 413")
        writer.close()


async def test_more_requests_than_the_router_may_carry_are_refused(make_worker: MakeWorker) -> None:
    async def wait(exchange: Exchange) -> None:
        await release.wait()
        exchange.reply()

    release = asyncio.Event()
    worker = await make_worker(WARM, wait)
    async with served(settings(worker, max_concurrency=2)) as router:
        await eventually(lambda: router.healthy() == 1)
        waiting = [asyncio.create_task(post(router)) for _ in range(2)]
        await eventually(lambda: len(worker.seen) == 2)
        refused = await post(router)
        assert (refused.status_code, refused.headers["x-sie-error-code"]) == (503, "QUEUE_FULL")
        release.set()
        assert [(await task).status_code for task in waiting] == [200, 200]
        assert (await post(router)).status_code == 200


async def test_a_worker_gets_no_more_connections_than_allowed(make_worker: MakeWorker) -> None:
    async def wait(exchange: Exchange) -> None:
        await release.wait()
        exchange.reply()

    release = asyncio.Event()
    worker = await make_worker(WARM, wait)
    async with served(settings(worker, max_connections_per_worker=1)) as router:
        await eventually(lambda: router.healthy() == 1)
        waiting = asyncio.create_task(post(router))
        await eventually(lambda: len(worker.seen) == 1)
        assert (await post(router)).headers["x-sie-error-code"] == "QUEUE_FULL"
        release.set()
        assert (await waiting).status_code == 200


async def test_requests_on_one_connection_are_answered_in_turn(make_worker: MakeWorker) -> None:
    worker = await make_worker(WARM)
    request = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n" % PATH.encode()
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        reader, writer = await raw(router, request + b"1" + request + b"2")
        for expected in (b"1", b"2"):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(1) == expected
        writer.close()


async def test_a_hot_model_spreads_when_its_holder_is_too_busy(make_worker: MakeWorker) -> None:
    async def wait(exchange: Exchange) -> None:
        await release.wait()
        exchange.reply()

    release = asyncio.Event()
    holder, other = await make_worker(WARM, wait), await make_worker(status("other"), wait)
    async with served(settings(holder, other)) as router:
        await eventually(lambda: router.healthy() == 2)
        waiting = [asyncio.create_task(post(router)) for _ in range(30)]
        await eventually(lambda: len(holder.seen) + len(other.seen) == 30)
        assert len(holder.seen) > len(other.seen) > 0
        release.set()
        assert {(await task).status_code for task in waiting} == {200}


async def test_when_the_retry_budget_is_spent_the_first_answer_is_passed_on(make_worker: MakeWorker) -> None:
    async def full(exchange: Exchange) -> None:
        exchange.refuse("QUEUE_FULL")

    workers = [await make_worker(status(name, loaded=[MODEL]), full) for name in ("a", "b")]
    async with served(settings(*workers)) as router:
        await eventually(lambda: router.healthy() == 2)
        answers = [await post(router) for _ in range(30)]
        retries = sum(outcome.retries for outcome in router.outcomes)
        assert (retries, router.app.retries.taken) == (router.app.retries.taken, retries)
    assert {answer.headers["x-sie-error-code"] for answer in answers} == {"QUEUE_FULL"}
    tried = sum(len(worker.seen) for worker in workers)
    assert tried == 30 + retries
    assert retries < 30


async def test_a_request_is_over_at_the_time_its_client_said(make_worker: MakeWorker) -> None:
    async def never(_: Exchange) -> None:
        await asyncio.Event().wait()

    worker = await make_worker(WARM, never)
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        for _ in range(8):
            answer = await post(router, X_SIE_Timeout="0.05")
            assert (answer.status_code, answer.headers["x-sie-error-code"]) == (504, "DEADLINE_EXCEEDED")
        assert router.healthy() == 1
        assert not router.app.health.ejections  # a worker is not to blame for its client's haste
        wrong = await post(router, X_SIE_Timeout="soon")
    assert (wrong.status_code, wrong.headers["x-sie-error-code"]) == (400, "INVALID_INPUT")


async def test_a_client_may_wait_for_leave_to_send_its_body(make_worker: MakeWorker) -> None:
    worker = await make_worker(WARM)
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n"
        reader, writer = await raw(router, head.encode())
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"{}")
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()
    assert worker.seen[0].header("expect") is None


async def test_a_cut_answer_ends_without_its_last_chunk(make_worker: MakeWorker) -> None:
    async def half(exchange: Exchange) -> None:
        exchange.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        await got.wait()
        exchange.cut()

    got = asyncio.Event()
    worker = await make_worker(WARM, half)
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        reader, writer = await raw(router, f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".encode())
        seen = await reader.readuntil(b"half\r\n")
        got.set()
        with suppress(ConnectionResetError):
            seen += await reader.read()
        writer.close()
    assert seen.endswith(b"4\r\nhalf\r\n")


@pytest.mark.parametrize("nonsense", [b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00"])
async def test_what_is_no_http_is_refused_in_the_one_envelope(nonsense: bytes) -> None:
    async with served(settings()) as router:
        reader, writer = await raw(router, nonsense)
        answer = await reader.read()
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"x-sie-error-code: INVALID_INPUT" in head
    assert b"\r\ncontent-length: %d" % len(body) in head
    assert msgspec.json.decode(body)["error"]["code"] == "INVALID_INPUT"


async def test_without_tracing_the_trace_context_passes_unchanged(make_worker: MakeWorker) -> None:
    worker = await make_worker(WARM)
    context = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=b"}
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        await post(router, PATH, b"{}", **context)
    assert {name: worker.seen[0].header(name) for name in context} == context


@pytest.mark.parametrize("after", [b"HTTP/1.1 201 X\r\nx-later: 1\r\ncontent-length: 0\r\n\r\n", b""])
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_what_follows_an_answer_is_not_among_its_headers(
    after: bytes, is_chunked: bool, make_worker: MakeWorker
) -> None:
    async def more(exchange: Exchange) -> None:
        framing = b"transfer-encoding: chunked" if is_chunked else b"content-length: 4"
        body = b"4\r\nreal\r\n0\r\nx-later: 1\r\n\r\n" if is_chunked else b"real"
        exchange.write(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n%b%b" % (framing, body, after))

    worker = await make_worker(WARM, more)
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        answer = await post(router)
    assert (answer.status_code, answer.content, "x-later" in answer.headers) == (200, b"real", False)
    assert len(answer.headers.get_list("content-length")) == (0 if is_chunked else 1)


@pytest.mark.parametrize("status_line", ["99 Low", "700 High", "101 Switching Protocols"])
async def test_an_answer_with_no_status_of_http_is_none(status_line: str, make_worker: MakeWorker) -> None:
    async def odd(exchange: Exchange) -> None:
        upgrade = "connection: upgrade\r\nupgrade: x\r\n" if status_line.startswith("101") else ""
        exchange.write(f"HTTP/1.1 {status_line}\r\n{upgrade}content-length: 2\r\n\r\nhi".encode())

    worker = await make_worker(WARM, odd)
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        answer = await post(router)
    assert (answer.status_code, answer.headers["x-sie-error-code"]) == (503, "WORKER_UNAVAILABLE")


async def test_a_delay_that_is_no_number_of_seconds_passes_as_it_is(make_worker: MakeWorker) -> None:
    async def late(exchange: Exchange) -> None:
        exchange.reply(503, X_SIE_Error_Code="MODEL_LOADING", Retry_After="9" * 5000)

    worker = await make_worker(WARM, late)
    async with served(settings(worker)) as router:
        await eventually(lambda: router.healthy() == 1)
        answer = await post(router)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "9" * 5000)


async def test_a_refused_request_has_its_id_as_well() -> None:
    async with served(settings()) as router, httpx.AsyncClient(base_url=router.url) as client:
        for method, path, headers in (
            ("GET", PATH, {}),
            ("POST", "/v1/encode/", {}),
            ("POST", PATH, {"X-SIE-Wait": "soon"}),
        ):
            answer = await client.request(method, path, headers={"X-Request-ID": "mine", **headers})
            assert (answer.is_error, answer.headers["x-request-id"]) == (True, "mine")
        assert [outcome.request_id for outcome in router.outcomes] == ["mine"] * 3
