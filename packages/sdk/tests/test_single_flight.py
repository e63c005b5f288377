"""How many of a client's calls the router keeps at a time, and what becomes of the others."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sdk_answers as published
from sdk_clients import Open
from sdk_cold_server import ColdServer, cold_server
from sdk_virtual_time import answer
from sie_sdk import SIEAsyncClient, SIEClient, WaitEvent, errors
from sie_sdk.batches import AT_ONCE, PART_ITEMS
from sie_sdk.messages import Loss, Lost, Outcome
from sie_sdk.single_flight import SingleFlight
from sie_sdk.types import Item

SERVED = answer(published.VECTOR)
FAILED = answer(published.said(502, {"error": {"code": "MODEL_LOAD_FAILED"}}, X_SIE_Error_Code="MODEL_LOAD_FAILED"))
NO_NEWS = [
    answer(published.said(202, {})),
    answer(published.said(503, {}, X_SIE_Error_Code="MODEL_LOADING")),
    answer(published.said(429, {}, X_SIE_Error_Code="RATE_LIMITED")),
    answer(published.said(504, {})),
    Lost(Loss.TIMED_OUT, "late"),
]
SOON_S = 60.0  # far less than the Retry-After of the server


@pytest.fixture
def cold() -> Iterator[ColdServer]:
    with cold_server() as server:
        yield server


def eventually(server: ColdServer, *, told: int, kept: int = 1) -> None:
    deadline = time.monotonic() + SOON_S
    while (server.told, server.kept) != (told, kept):
        assert time.monotonic() < deadline, f"{server.told} told and {server.kept} kept, not {told} and {kept}"
        time.sleep(0.005)


def encode_one(client: SIEClient, number: int) -> list[float]:
    vector: list[float] = client.encode("org/m", {"text": str(number)})["dense"].tolist()
    return vector


keys = st.sampled_from([("l4", "a"), ("l4", "b"), ("t4", "a")])


@given(st.lists(keys, max_size=12), st.integers(0, 4))
def test_one_call_for_each_key_is_kept_and_never_more_than_the_limit(taken: list[tuple[str, str]], limit: int) -> None:
    flights = SingleFlight(limit, threading.Event)
    with ExitStack() as held:
        kept = [held.enter_context(flights.join(key)).is_leader for key in taken]
        firsts = [key not in taken[:at] for at, key in enumerate(taken)]
        assert sum(kept) == min(limit, len(set(taken)))
        assert all(first for first, is_kept in zip(firsts, kept, strict=True) if is_kept)
    assert flights._groups == {}
    assert flights._leaders == 0


@pytest.mark.parametrize(("outcome", "rings"), [(SERVED, True), (FAILED, True), *((each, False) for each in NO_NEWS)])
def test_the_others_are_woken_by_news_and_by_nothing_else(outcome: Outcome, rings: bool) -> None:
    flights = SingleFlight(5, threading.Event)
    with flights.join(("l4", "a")) as kept, flights.join(("l4", "a")) as other, flights.join(("l4", "b")) as stranger:
        kept.came(outcome)
        assert (other.news.is_set(), stranger.news.is_set()) == (rings, False)
        with flights.join(("l4", "a")) as late:
            assert not late.news.is_set(), "old news are none"


def test_who_stays_is_woken_also_by_the_next_that_is_kept() -> None:
    flights = SingleFlight(5, threading.Event)
    with ExitStack() as first:
        first.enter_context(flights.join(("l4", "a")))
        with flights.join(("l4", "a")) as other:
            first.close()
            with flights.join(("l4", "a")) as kept:
                assert kept.is_leader
                kept.came(SERVED)
            assert other.news.is_set()


def test_a_long_list_takes_one_place_and_all_of_it_is_served_at_once(cold: ColdServer, open_client: Open) -> None:
    items = [Item(text=str(number)) for number in range(6 * PART_ITEMS)]
    told: list[WaitEvent] = []

    def begin_to_serve() -> None:
        deadline = time.monotonic() + SOON_S
        while len(told) < AT_ONCE and time.monotonic() < deadline:
            time.sleep(0.005)
        eventually(cold, told=AT_ONCE)
        cold.ready.set()

    began = time.monotonic()
    with ThreadPoolExecutor(1) as beside:
        beginning = beside.submit(begin_to_serve)
        results = open_client(cold.url, on_wait=told.append).encode_all("org/m", items)
        beginning.result()
    assert time.monotonic() - began < SOON_S
    assert [result["dense"].tolist() for result in results] == [[float(number)] for number in range(len(items))]
    assert sorted(event.held for event in told) == [False] * (AT_ONCE - 1) + [True]
    assert (cold.most_kept, cold.told, cold.served) == (1, AT_ONCE, 6)


async def test_many_tasks_wait_as_one_and_leave_the_connections_to_others(cold: ColdServer) -> None:
    waits: list[WaitEvent] = []

    def all_wait(count: int, kept: int) -> None:
        eventually(cold, told=count, kept=kept)
        deadline = time.monotonic() + SOON_S
        while len(waits) < count:  # the server told them, which they may not have heard yet
            assert time.monotonic() < deadline
            time.sleep(0.005)

    async with SIEAsyncClient(cold.url, max_connections=4, on_wait=waits.append) as client:
        calls = [asyncio.create_task(client.encode("org/m", {"text": str(number)})) for number in range(40)]
        await asyncio.to_thread(all_wait, 40, 1)
        other = asyncio.create_task(client.encode("org/other", {"text": "0"}))
        await asyncio.to_thread(all_wait, 41, 2)  # half of the connections
        third = asyncio.create_task(client.encode("org/third", {"text": "0"}))
        await asyncio.to_thread(all_wait, 42, 2)
        began = time.monotonic()
        cold.ready.set()
        results = await asyncio.gather(*calls, other)
        assert time.monotonic() - began < SOON_S
        assert [result["dense"].tolist() for result in results[:40]] == [[float(number)] for number in range(40)]
        third.cancel()  # had no place, so it comes back when it was told to
        await asyncio.gather(third, return_exceptions=True)


def test_threads_wait_as_one(cold: ColdServer) -> None:
    with SIEClient(cold.url) as client, ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(encode_one, client, number) for number in range(8)]
        eventually(cold, told=8)
        cold.ready.set()
        assert [call.result(SOON_S) for call in calls] == [[float(number)] for number in range(8)]
    assert cold.most_kept == 1


def test_a_client_with_one_connection_keeps_it_free(cold: ColdServer) -> None:
    told: list[WaitEvent] = []

    def tell(event: WaitEvent) -> None:
        told.append(event)
        raise InterruptedError

    with SIEClient(cold.url, max_connections=1, on_wait=tell) as client, pytest.raises(InterruptedError):
        client.encode("org/m", {"text": "1"})
    [event] = told
    assert not event.held
    assert event.delay_s == pytest.approx(120, rel=0.3)


def test_closing_a_client_ends_the_call_that_is_kept_and_those_behind_it(cold: ColdServer) -> None:
    client = SIEClient(cold.url)
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(encode_one, client, number) for number in range(3)]
        eventually(cold, told=3)
        client.close()
        for call in calls:
            error = call.exception(SOON_S)
            assert isinstance(error, errors.SIEConnectionError)
            assert error.code == Loss.CLIENT_CLOSED


async def test_closing_an_async_client_does_so_too(cold: ColdServer) -> None:
    client = SIEAsyncClient(cold.url)
    calls = [asyncio.create_task(client.encode("org/m", {"text": "1"})) for _ in range(3)]
    await asyncio.to_thread(eventually, cold, told=3)
    await client.close()
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert [getattr(end, "code", None) for end in ends] == [Loss.CLIENT_CLOSED] * 3
