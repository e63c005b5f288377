"""What closing means for calls that are still running, and that nothing is left behind."""

import asyncio
import gc
import signal
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

import sdk_answers as published
from sdk_clients import Open
from sdk_server import Drip, Reply, Serve, Stall
from sie_sdk import SIEAsyncClient, SIEClient, errors
from sie_sdk.batches import AT_ONCE
from sie_sdk.types import EncodeResult, Item

HELLO = Item(text="Hello")
AT_ONCE_S = 30.0  # below the waits and timeouts of these tests, far above a busy machine's delays


def open_sockets() -> int:
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the listing's own
            count += "socket" in str(descriptor.readlink())
    return count


@pytest.mark.parametrize("stall", [Stall(), Drip()], ids=["silent", "dripping"])
def test_closing_ends_a_request_of_another_thread(serve: Serve, stall: Stall | Drip) -> None:
    server = serve(stall)
    client = SIEClient(server.url, timeout_s=60)
    with ThreadPoolExecutor(1) as pool:
        running: Future[EncodeResult] = pool.submit(client.encode, "org/m", HELLO)
        server.wait_for_request()
        client.close()
        with pytest.raises(errors.SIEConnectionError, match="closed") as raised:
            running.result(AT_ONCE_S)
    assert raised.value.code == "CLIENT_CLOSED"


@pytest.mark.parametrize("stall", [Stall(), Drip()], ids=["silent", "dripping"])
def test_an_interrupt_ends_a_long_list_now_and_leaves_nothing_under_way(serve: Serve, stall: Stall | Drip) -> None:
    server, main = serve(stall), threading.get_ident()

    def interrupt() -> None:
        for _ in range(AT_ONCE):  # every thread has begun: `enumerate` also tells those that are about to
            server.wait_for_request()
        signal.pthread_kill(main, signal.SIGINT)

    with SIEClient(server.url, timeout_s=600) as client:
        threading.Thread(target=interrupt).start()
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            client.encode("org/m", [HELLO] * 2000)
        parts = [thread for thread in threading.enumerate() if thread.name.startswith("sie-sdk-part")]
        for thread in parts:
            thread.join(AT_ONCE_S)
    assert not any(thread.is_alive() for thread in parts)
    assert time.monotonic() - began < AT_ONCE_S


def test_closing_ends_a_wait_of_another_thread(serve: Serve) -> None:
    waits = threading.Event()
    client = SIEClient(serve(published.PROVISIONING_202).url, on_wait=lambda _: waits.set())
    with ThreadPoolExecutor(1) as pool:
        running: Future[EncodeResult] = pool.submit(client.encode, "org/m", HELLO)
        assert waits.wait(AT_ONCE_S)
        client.close()
        with pytest.raises(errors.SIEConnectionError, match="PROVISIONING"):
            running.result(AT_ONCE_S)


async def test_closing_ends_the_requests_and_waits_of_other_tasks(serve: Serve) -> None:
    waits, server = asyncio.Event(), serve(Stall(), published.PROVISIONING_202)
    client = SIEAsyncClient(server.url, timeout_s=60, on_wait=lambda _: waits.set())
    stalled = asyncio.create_task(client.encode("org/m", HELLO))
    await asyncio.to_thread(server.wait_for_request)
    waiting = asyncio.create_task(client.encode("org/m", HELLO))
    async with asyncio.timeout(AT_ONCE_S):
        await waits.wait()
        await client.close()
        for each in (stalled, waiting):
            with pytest.raises(errors.SIEConnectionError) as raised:
                await each
            assert raised.value.code == "CLIENT_CLOSED"
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_cancelled_call_is_cancelled_and_the_client_lives_on(serve: Serve) -> None:
    server = serve(Stall(), published.VECTOR)
    async with SIEAsyncClient(server.url) as client:
        running = asyncio.create_task(client.encode("org/m", HELLO))
        await asyncio.to_thread(server.wait_for_request)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert (await client.encode("org/m", HELLO))["dense"].shape == (2,)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # asyncio's, of what the first loop left open
def test_a_client_goes_on_in_the_next_event_loop_and_is_in_one_at_a_time(serve: Serve) -> None:
    client = SIEAsyncClient(serve(published.VECTOR).url)

    async def call() -> int:
        return len((await client.encode("org/m", HELLO))["dense"])

    async def from_two_loops() -> None:
        await call()
        with pytest.raises(RuntimeError, match="another event loop; make one for each"):
            await asyncio.to_thread(lambda: asyncio.run(call()))

    assert [asyncio.run(call()) for _ in range(2)] == [2, 2]
    asyncio.run(from_two_loops())
    asyncio.run(client.close())
    with pytest.raises(errors.SIEConnectionError, match="closed"):
        asyncio.run(call())
    gc.collect()


async def test_tasks_share_one_client(serve: Serve) -> None:
    server = serve(published.VECTOR)
    async with SIEAsyncClient(server.url, max_connections=4) as client:
        results = await asyncio.gather(*(client.encode("org/m", HELLO) for _ in range(40)))
    assert all(result["dense"].shape == (2,) for result in results)


def test_a_closed_client_refuses_and_may_be_closed_again(serve: Serve, open_client: Open) -> None:
    server = serve(published.VECTOR)
    client = open_client(server.url)
    client.close()
    client.close()
    with pytest.raises(errors.SIEConnectionError, match="create a new client"):
        client.encode("org/m", HELLO)
    assert server.seen == []


@pytest.mark.parametrize("last", [published.VECTOR, Stall()], ids=["idle", "in flight"])
def test_nothing_is_left_after_closing(serve: Serve, last: Reply | Stall) -> None:
    server = serve(published.VECTOR, last)
    gc.collect()
    sockets, threads = open_sockets(), set(threading.enumerate())
    client = SIEClient(server.url)
    client.encode("org/m", HELLO)
    with ThreadPoolExecutor(1) as pool:
        server.wait_for_request()
        running = pool.submit(client.encode, "org/m", HELLO)
        server.wait_for_request()
        client.close()
        running.exception(AT_ONCE_S)
    gone_by = time.monotonic() + AT_ONCE_S
    # The server's own end of the connection, and its thread, go when it notices.
    while (open_sockets() > sockets or not set(threading.enumerate()) <= threads) and time.monotonic() < gone_by:
        threading.Event().wait(0.01)
    assert open_sockets() <= sockets
    assert set(threading.enumerate()) <= threads


def test_a_slow_drip_does_not_stretch_an_attempt(serve: Serve, open_client: Open) -> None:
    client = open_client(serve(Drip()).url, timeout_s=0.3)
    began = time.monotonic()
    with pytest.raises(errors.SIEConnectionError, match=r"within 0\.3 s"):
        client.encode("org/m", HELLO, wait_for_capacity=False)
    assert 0.3 <= time.monotonic() - began < AT_ONCE_S
