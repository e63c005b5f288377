import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_builders import L4, status
from router_fakes import WAIT_S, FakeWorker, eventually
from sie_router.control.discovery import Endpoints
from sie_router.control.discovery_static import StaticDiscovery
from sie_router.control.feed import FIRST_PAUSE_S, LONGEST_PAUSE_S, follow
from sie_router.control.store import FleetStore
from sie_router.core.backoff import backoff_s
from sie_router.core.events import Event, WorkerLost
from sie_router.core.fleet import Source
from sie_router.core.index import empty_fleet

MakeWorker = Callable[..., Awaitable[FakeWorker]]


class Named:
    """A discovery that says what it is told to."""

    def __init__(self) -> None:
        self.sets: asyncio.Queue[Endpoints] = asyncio.Queue()

    async def watch(self) -> AsyncIterator[Endpoints]:
        while True:
            yield await self.sets.get()


@asynccontextmanager
async def following(discovery: StaticDiscovery | Named) -> AsyncIterator[FleetStore]:
    store = FleetStore(empty_fleet([L4]), asyncio.get_running_loop().time)
    task = asyncio.create_task(follow(discovery, store.publish, random.random))
    try:
        yield store
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_worker_is_known_by_what_it_says(make_worker: MakeWorker) -> None:
    worker = await make_worker(status("one", depth=3, loaded=["m"]))
    async with following(StaticDiscovery([worker.url])) as store:
        await eventually(lambda: store.snapshot().has_healthy(L4))
        known = store.snapshot().workers[worker.url]
        assert (known.name, known.queue_depth, known.loaded) == ("one", 3, frozenset({"m"}))
        worker.tell(status("one", draining=True))
        await eventually(lambda: not store.snapshot().has_healthy(L4))


async def test_a_dead_worker_is_lost_at_once_and_found_again(make_worker: MakeWorker) -> None:
    worker = await make_worker(status("one"))
    async with following(StaticDiscovery([worker.url])) as store:
        await eventually(lambda: store.snapshot().has_healthy(L4))
        worker.kill()
        await eventually(lambda: not store.snapshot().has_healthy(L4))
        await worker.start()
        await eventually(lambda: store.snapshot().has_healthy(L4))


async def test_a_worker_that_is_not_there_yet_is_found_when_it_comes(make_worker: MakeWorker) -> None:
    worker = await make_worker(status("one"))
    await worker.close()
    async with following(StaticDiscovery([worker.url])) as store:
        await worker.start()
        await eventually(lambda: store.snapshot().has_healthy(L4))


async def test_frames_that_cannot_be_read_are_survived(make_worker: MakeWorker) -> None:
    worker = await make_worker(status("one"))
    async with following(StaticDiscovery([worker.url])) as store:
        await eventually(lambda: store.snapshot().has_healthy(L4))
        for text in ("", "[]", "{", '{"models":[{"name":"m","queue_depth":null}]}', '"x"'):
            worker.send_text(text)
        worker.tell(status("one", depth=7))
        await eventually(lambda: store.snapshot().workers[worker.url].queue_depth == 7)


async def test_a_server_that_refuses_the_handshake_is_dialled_again() -> None:
    answers = [b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", b"garbage\r\n\r\n", b""]
    dialled = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(asyncio.IncompleteReadError):  # also when the test is over
            await reader.readuntil(b"\r\n\r\n")
            if answers:
                writer.write(answers.pop())
            else:
                dialled.set()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, following(StaticDiscovery([f"http://127.0.0.1:{port}"])), asyncio.timeout(WAIT_S):
        await dialled.wait()


async def test_discovery_adds_and_removes_workers(make_worker: MakeWorker) -> None:
    one, two = await make_worker(status("one")), await make_worker(status("two"))
    names = Named()
    async with following(names) as store:
        names.sets.put_nowait(Endpoints(frozenset({one.url})))
        await eventually(lambda: set(store.snapshot().workers) == {one.url})
        names.sets.put_nowait(Endpoints(frozenset({two.url})))
        await eventually(lambda: set(store.snapshot().workers) == {two.url})
        await eventually(lambda: not one.streams)


async def test_a_worker_that_leaves_gets_nothing_new_whatever_it_says(make_worker: MakeWorker) -> None:
    worker = await make_worker(status("one"))
    names, url = Named(), frozenset({worker.url})
    async with following(names) as store:
        names.sets.put_nowait(Endpoints(url))
        await eventually(lambda: store.snapshot().has_healthy(L4))
        names.sets.put_nowait(Endpoints(leaving=url))
        await eventually(lambda: not store.snapshot().has_healthy(L4))
        worker.tell(status("one", depth=5))
        await eventually(lambda: store.snapshot().workers[worker.url].queue_depth == 5)
        assert not store.snapshot().has_healthy(L4)
        names.sets.put_nowait(Endpoints())
        await eventually(lambda: not store.snapshot().workers)
        await eventually(lambda: not worker.streams)  # or its end would be cut short by that of the test


async def test_a_worker_that_was_leaving_before_the_router_came_is_not_dialled(make_worker: MakeWorker) -> None:
    old, new = await make_worker(status("old")), await make_worker(status("new"))
    names = Named()
    async with following(names) as store:
        names.sets.put_nowait(Endpoints(frozenset({new.url}), frozenset({old.url})))
        await eventually(lambda: set(store.snapshot().workers) == {new.url})
        assert not old.streams


async def test_a_worker_under_the_address_of_one_that_left_is_a_new_one(make_worker: MakeWorker) -> None:
    worker = await make_worker(status("one"))
    names, url = Named(), frozenset({worker.url})
    async with following(names) as store:
        for endpoints in (Endpoints(url), Endpoints(leaving=url), Endpoints(url)):
            names.sets.put_nowait(endpoints)
        await eventually(lambda: store.snapshot().has_healthy(L4))


def awaiting() -> FleetStore:
    fleet = replace(empty_fleet([L4]), unheard=frozenset({Source.WORKERS}))
    return FleetStore(fleet, asyncio.get_running_loop().time)


async def test_the_workers_of_the_start_are_listed_when_each_said_something_or_was_not_there(
    make_worker: MakeWorker,
) -> None:
    one, dead = await make_worker(status("one")), await make_worker(status("dead"))
    await dead.close()
    discovery, store, heard = Named(), awaiting(), list[Event]()

    def publish(event: Event) -> None:
        heard.append(event)
        store.publish(event)

    never_s = 10 * WAIT_S  # nobody waits for the bounds where everybody was dialled
    following = asyncio.create_task(follow(discovery, publish, random.random, listing_s=never_s, dialling_s=never_s))
    discovery.sets.put_nowait(Endpoints(frozenset({one.url}), is_whole=False))
    await eventually(lambda: store.snapshot().has_healthy(L4))
    assert store.snapshot().unheard
    discovery.sets.put_nowait(Endpoints(frozenset({one.url, dead.url})))
    await eventually(lambda: not store.snapshot().unheard)
    assert WorkerLost(dead.url) in heard
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_nobody_waits_long_for_a_worker_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):  # also when the test is over before it hears that the router left
            await reader.read()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setattr("sie_router.control.feed.CONNECT_TIMEOUT_S", 10 * WAIT_S)  # for as long as it is dialled
    store, discovery = awaiting(), StaticDiscovery([f"http://127.0.0.1:{port}"])
    following = asyncio.create_task(follow(discovery, store.publish, random.random, dialling_s=0.01))
    await eventually(lambda: not store.snapshot().unheard)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    server.close()


async def test_nobody_waits_for_a_source_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    store = awaiting()
    following = asyncio.create_task(follow(Named(), store.publish, random.random, listing_s=0.01))
    await eventually(lambda: not store.snapshot().unheard)
    assert "not every source of workers" in caplog.text
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


@given(st.integers(0, 10**6), st.floats(0, 1))
def test_pauses_grow_from_the_first_to_the_longest(failures: int, draw: float) -> None:
    now, then = (backoff_s(count, draw, FIRST_PAUSE_S, LONGEST_PAUSE_S) for count in (failures, failures + 1))
    assert FIRST_PAUSE_S / 2 <= now <= then <= LONGEST_PAUSE_S
