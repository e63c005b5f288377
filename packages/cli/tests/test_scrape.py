import asyncio
import math
from collections.abc import Mapping, Sequence

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from sie_cli.scaler import Rules, State, lease_triggers, step, triggers
from sie_cli.scrape import Scrape, parse, read, scrape

L4 = ("l4", "default")
TRIGGERS = triggers(10, 2)


def exposition(
    demand: Mapping[str, float], queue: Mapping[str, float], activity: float, group: tuple[str, str] = L4
) -> str:
    """What a router with these facts would answer, written by the official client."""
    registry = CollectorRegistry()
    labels = ["machine_profile", "bundle"]
    wanted = Gauge("sie_router_pending_demand", "x", [*labels, "pool"], registry=registry)
    depth = Gauge("sie_router_worker_queue_depth", "x", ["worker", *labels, "pool"], registry=registry)
    recent = Gauge("sie_router_recent_requests", "x", [*labels, "pool"], registry=registry)
    for pool, value in demand.items():
        wanted.labels(*group, pool).set(value)
    for worker, value in queue.items():
        depth.labels(worker, *group, "default").set(value)
    recent.labels(*group, "default").set(activity)
    return generate_latest(registry).decode()


def values(scrapes: Sequence[Scrape | None], group: tuple[str, str] = L4) -> tuple[float | None, ...]:
    return tuple(reading.value for reading in read(scrapes, group, TRIGGERS))


def test_one_router_is_read_as_it_is() -> None:
    one = parse(exposition({"default": 1, "tenant": 1}, {"a": 3, "b": 4}, 9))
    assert values([one]) == (2, 7, 9)


def test_two_routers_with_the_same_demand_and_queues_count_once_and_their_traffic_adds_up() -> None:
    one = parse(exposition({"default": 1}, {"a": 7, "b": 7}, 2))
    other = parse(exposition({"default": 1, "tenant": 1}, {"a": 8}, 3))
    assert values([one, other]) == (2, 15, 5)


def test_a_group_without_traffic_reads_as_zero_and_not_as_an_outage() -> None:
    assert values([parse('sie_router_pending_demand{machine_profile="l4",bundle="default",pool="default"} 0\n')]) == (
        0,
        0,
        0,
    )


def test_no_router_or_no_series_of_the_group_is_a_failure() -> None:
    unknown = (None, None, None)
    assert values([None, None]) == unknown
    assert values([parse(exposition({"default": 1}, {}, 0, group=("cpu", "default")))]) == unknown
    assert values([]) == unknown


def test_one_lost_router_does_not_hide_the_other() -> None:
    assert values([None, parse(exposition({"default": 1}, {"a": 7}, 2))]) == (1, 7, 2)


def test_not_a_number_is_a_failure_of_its_trigger_only() -> None:
    assert values([parse(exposition({"default": 0}, {"a": float("nan")}, 2))]) == (0, None, 2)


routers = st.lists(
    st.builds(
        lambda demand, queue, activity: Scrape(demand={L4: demand}, shared={L4: queue}, activity={L4: activity}),
        st.dictionaries(st.sampled_from("pqr"), st.sampled_from([0.0, 1.0]), min_size=1),
        st.dictionaries(st.sampled_from("abc"), st.floats(0, 100)),
        st.dictionaries(st.sampled_from("pqr"), st.floats(0, 100)),
    ),
    min_size=1,
    max_size=3,
)


@given(routers)
def test_a_router_that_repeats_what_is_known_changes_neither_demand_nor_queue(known: list[Scrape]) -> None:
    twice = [*known, known[0]]
    assert values(twice)[:2] == pytest.approx(values(known)[:2])


@given(routers, st.randoms(use_true_random=False))
def test_the_order_of_routers_does_not_matter(known: list[Scrape], random: st.DataObject) -> None:
    shuffled = sorted(known, key=lambda _: random.random())  # type: ignore[attr-defined]
    assert values(shuffled) == pytest.approx(values(known))


@pytest.mark.parametrize("answer", [b"HTTP/1.1 500 x\r\ncontent-length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n{}{", b""])
async def test_a_router_that_does_not_answer_with_metrics_is_not_read(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server, httpx.AsyncClient() as client:
        port = server.sockets[0].getsockname()[1]
        assert await scrape(client, f"http://127.0.0.1:{port}") is None


@pytest.mark.parametrize(
    ("reserved", "waiting", "wanted"), [((2, 2), (0, 0), 2), ((2, 1), (0, 1), 3), ((0, 0), (1, 1), 0)]
)
def test_reservations_count_once_over_all_routers_and_leave_one_more_for_others_who_wait(
    reserved: tuple[int, int], waiting: tuple[int, int], wanted: float
) -> None:
    scrapes = [
        Scrape(demand={L4: {"default": others, "tenant": 1}}, reserved={L4: lease}, warm={L4: 1})
        for lease, others in zip(reserved, waiting, strict=True)
    ]
    assert [reading.value for reading in read(scrapes, L4, lease_triggers())] == [wanted, 1]


counts = st.integers(0, 40)


@given(counts, st.lists(counts, max_size=4), st.lists(counts, max_size=4), counts, counts, counts)
def test_workers_in_use_that_nobody_reserved_come_on_top_of_the_reserved_ones(
    reserved: int, shared: list[int], tenants: list[int], own: int, theirs: int, unserved: int
) -> None:
    """And what waits for reserved workers starts no others."""
    demand = int(unserved > 0)
    group = 'machine_profile="l4",bundle="default"'
    text = "".join(
        [
            f'sie_router_pending_demand{{{group},pool="default"}} {demand}\n',
            f"sie_router_unserved_requests{{{group}}} {unserved}\n",
            f"sie_router_active_lease_gpus{{{group}}} {reserved}\n",
            f'sie_router_recent_requests{{{group},pool="default"}} {own}\n',
            f'sie_router_recent_requests{{{group},pool="t"}} {theirs}\n',
            *(
                f'sie_router_worker_queue_depth{{{group},pool="{pool}",worker="{pool}{place}"}} {depth}\n'
                for pool, depths in (("default", shared), ("t", tenants))
                for place, depth in enumerate(depths)
            ),
        ]
    )
    growing = (TRIGGERS[0], TRIGGERS[1], *lease_triggers())
    wishes = [math.ceil((each.value or 0) / each.trigger.threshold) for each in read([parse(text)], L4, growing)]
    one = min(1, own + demand) if reserved else demand
    assert max(wishes) == reserved + max(one, math.ceil((sum(shared) + unserved) / 10))


def test_a_burst_at_zero_starts_as_many_workers_as_it_needs() -> None:
    text = (
        'sie_router_pending_demand{machine_profile="l4",bundle="default",pool="default"} 1\n'
        'sie_router_unserved_requests{machine_profile="l4",bundle="default"} 500\n'
    )
    readings = read([parse(text)], L4, TRIGGERS)
    state, sizes = State(), []
    for now in (0, 15, 30, 45, 60):
        state, _ = step(Rules(max_replicas=30), state, readings, now)
        sizes.append(state.replicas)
    assert sizes == [5, 10, 20, 30, 30]  # KEDA's first one and the four that the HPA may add at once; 50 are wanted


def test_reservations_are_read_from_what_routers_export() -> None:
    text = (
        'sie_router_pending_demand{machine_profile="l4",bundle="default",pool="default"} 0\n'
        'sie_router_active_lease_gpus{machine_profile="l4",bundle="default"} 2\n'
        'sie_router_warm_floor_workers{machine_profile="l4",bundle="default"} 1\n'
    )
    assert [reading.value for reading in read([parse(text)], L4, lease_triggers())] == [2, 1]
