import random

from hypothesis import given
from hypothesis import strategies as st

from router_builders import L4, fleet, pool, seen, url
from sie_router.core.assign import assign
from sie_router.core.events import Event, PoolPut, Tick, WorkerLost, WorkerSeen, apply
from sie_router.core.fleet import Fleet, Group
from sie_router.core.pools import Pool

A100 = Group("a100", "default")
GROUPS = (L4, A100, Group("l4", "vision"))

pools = st.lists(
    st.builds(
        lambda name, gpus, bundle, created: pool(name, gpus, bundle=bundle, created_at=created),
        st.sampled_from(["a", "b", "c", "d"]),
        st.dictionaries(st.sampled_from(["l4", "a100", "h100"]), st.integers(1, 3), min_size=1),
        st.sampled_from([None, "default", "vision"]),
        st.sampled_from([1.0, 2.0]),
    ),
    max_size=4,
    unique_by=lambda each: each.name,
)
workers = st.lists(
    st.builds(
        lambda number, profile, bundle, ready, draining: seen(
            f"w-{number}", profile=profile, bundle=bundle, ready=ready, draining=draining
        ),
        st.integers(0, 30),
        st.sampled_from(["l4", "L4", "a100"]),
        st.sampled_from(["default", "vision"]),
        st.sampled_from([True, True, True, False]),
        st.sampled_from([False, False, False, True]),
    ),
    max_size=10,
    unique_by=lambda event: event.url,
)


def members(state: Fleet, name: str) -> list[str]:
    return sorted(state.workers[each].name for each, owner in state.index.owners.items() if owner == name)


@given(pools, workers, st.randoms())
def test_the_same_intent_and_workers_give_the_same_assignment_in_any_order(
    intent: list[Pool], events: list[WorkerSeen], shuffler: random.Random
) -> None:
    log: list[Event] = [*events, *(PoolPut(each) for each in intent)]
    one = fleet(*log, groups=GROUPS)
    shuffler.shuffle(log)
    assert fleet(*log, groups=GROUPS).index == one.index


@given(pools, workers)
def test_a_pool_gets_what_it_reserved_and_nothing_else(intent: list[Pool], events: list[WorkerSeen]) -> None:
    state = fleet(*events, *(PoolPut(each) for each in intent), groups=GROUPS)
    owners = assign(intent, state.workers.values(), GROUPS)
    for each in intent:
        held = [state.workers[address] for address, owner in owners.items() if owner == each.name]
        assert all(worker.is_assignable for worker in held)
        assert {worker.profile.lower() for worker in held} <= set(each.gpus)
        assert all(each.bundle in (None, worker.bundle) for worker in held)
        for profile, count in each.gpus.items():
            assert sum(worker.profile.lower() == profile for worker in held) <= count


@given(pools, workers)
def test_no_fitting_worker_is_free_while_a_pool_lacks_one(intent: list[Pool], events: list[WorkerSeen]) -> None:
    state = fleet(*events, *(PoolPut(each) for each in intent), groups=GROUPS)
    owners = state.index.owners
    free = [worker for worker in state.workers.values() if worker.is_assignable and worker.url not in owners]
    for each in intent:
        for profile, count in each.gpus.items():
            bundle = each.bundle or "default"
            held = [worker for worker in state.workers.values() if owners.get(worker.url) == each.name]
            if profile != "h100" and sum(worker.profile.lower() == profile for worker in held) < count:
                assert not [w for w in free if (w.profile.lower(), w.bundle) == (profile, bundle)]


@given(pools, workers, st.integers(0, 30))
def test_an_older_pool_never_loses_a_worker_to_a_younger_one(
    intent: list[Pool], events: list[WorkerSeen], count: int
) -> None:
    before = fleet(*events, *(PoolPut(each) for each in intent), groups=GROUPS)
    after = apply(before, PoolPut(pool("younger", {"l4": max(1, count)}, created_at=3.0)), 0)
    kept = {address: owner for address, owner in after.index.owners.items() if owner != "younger"}
    assert kept == before.index.owners


def test_the_lowest_ordinal_is_reserved_first() -> None:
    state = fleet(*(seen(f"l4-{number}") for number in (10, 2, 9)), PoolPut(pool("a", {"l4": 2})))
    assert members(state, "a") == ["l4-2", "l4-9"]


def test_a_broken_connection_moves_no_tenant_and_a_dead_worker_is_replaced() -> None:
    state = fleet(seen("l4-0"), seen("l4-1"), PoolPut(pool("a", {"l4": 1})))
    lost = apply(state, WorkerLost(url("l4-0")), 1)
    assert members(lost, "a") == ["l4-0"]
    assert not lost.has_healthy(L4, "a")
    silent = apply(apply(lost, seen("l4-1"), 9), Tick(), 11)
    assert members(silent, "a") == ["l4-1"]
    assert members(apply(silent, seen("l4-0"), 12), "a") == ["l4-0"]


def test_a_pool_without_a_bundle_takes_that_of_the_first_configured_group() -> None:
    groups = (Group("l4", "vision"), L4)
    state = fleet(seen("l4-0"), seen("l4-1", bundle="vision"), PoolPut(pool("a", {"l4": 2})), groups=groups)
    assert members(state, "a") == ["l4-1"]


def test_where_nothing_is_configured_any_bundle_will_do() -> None:
    state = fleet(seen("w-3"), seen("w-1", bundle="vision"), seen("w-2"), PoolPut(pool("a", {"l4": 2})), groups=())
    assert members(state, "a") == ["w-1", "w-2"]
