from hypothesis import given
from hypothesis import strategies as st

from router_builders import L4, fleet, pool, seen, url
from sie_router.core.demand import (
    BURST_S,
    SLACK_S,
    Arrival,
    jittered,
    reserved,
    ttl_s,
    unserved,
    waited_s,
    wanted,
    warm,
)
from sie_router.core.events import Missed, PoolGone, PoolPut, Tick, WorkerGone, WorkerLost, apply
from sie_router.core.fleet import Group
from sie_router.core.leases import LEASE_S, MAX_SKEW_S
from sie_router.core.pools import DEFAULT_POOL

KEY = (L4, DEFAULT_POOL)
A100 = Group("a100", "default")


def test_every_configured_group_has_its_series_from_the_start() -> None:
    assert wanted(fleet(groups=[L4, A100]), 0) == {KEY: 0, (A100, DEFAULT_POOL): 0}


@given(st.floats(1, 600), st.floats(0, 1))
def test_a_wish_outlives_the_delay_its_client_was_given_and_then_expires(retry_after_s: float, part: float) -> None:
    ttl = ttl_s(retry_after_s)
    assert ttl >= retry_after_s + SLACK_S
    state = fleet(Missed(L4, DEFAULT_POOL, ttl))
    assert wanted(state, part * retry_after_s)[KEY] == 1
    assert wanted(state, ttl + 0.001)[KEY] == 0
    assert not apply(state, Tick(), ttl + 0.001).demand


@given(st.lists(st.floats(0, 300), min_size=1, max_size=10))
def test_looking_changes_nothing_and_only_the_last_miss_counts(moments: list[float]) -> None:
    state = fleet()
    for now in sorted(moments):
        state = apply(state, Missed(L4, DEFAULT_POOL, 60), now)
        before = dict(state.demand)
        assert wanted(state, now) == wanted(state, now)
        assert state.demand == before
    assert wanted(state, max(moments) + 59)[KEY] == 1
    assert wanted(state, max(moments) + 61)[KEY] == 0


def test_a_healthy_worker_clears_the_wish_for_good() -> None:
    state = fleet(Missed(L4, DEFAULT_POOL, 60), seen())
    assert wanted(state, 1)[KEY] == 0
    assert wanted(apply(state, WorkerLost(url("w")), 1), 1)[KEY] == 0


def test_a_worker_that_is_not_ready_clears_nothing() -> None:
    assert wanted(fleet(Missed(L4, DEFAULT_POOL, 60), seen(ready=False)), 1)[KEY] == 1


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5), st.text(max_size=5)), max_size=50))
def test_nobody_creates_demand_for_what_is_not_configured(names: list[tuple[str, str, str]]) -> None:
    state = fleet(*(Missed(Group(profile, bundle), pool, 60) for profile, bundle, pool in names))
    assert wanted(state, 0) == {KEY: 0}
    assert not state.demand


def test_many_misses_are_one_wish() -> None:
    state = fleet(*(Missed(L4, DEFAULT_POOL, 60) for _ in range(100)))
    assert len(state.demand) == 1
    assert wanted(state, 0)[KEY] == 1


@given(st.integers(1, 500), st.integers(0, 20), st.floats(BURST_S, 30))
def test_requests_that_come_at_once_count_each_and_clients_that_come_again_do_not(
    clients: int, rounds: int, pause_s: float
) -> None:
    state, now = fleet(groups=[L4, A100]), 0.0
    for _ in range(rounds + 1):
        for client in range(clients):
            moment = now + BURST_S * client / clients
            state = apply(state, Missed(L4, DEFAULT_POOL, 60), moment)
        assert unserved(state, moment) == {L4: clients, A100: 0}
        now += max(pause_s, 2 * BURST_S)
    assert unserved(state, moment + 61) == {L4: 0, A100: 0}


arrivals = st.lists(st.tuples(st.floats(0, 30), st.sampled_from(Arrival)), max_size=40)


@given(arrivals)
def test_however_clients_come_back_they_are_never_more_than_came(moments: list[tuple[float, Arrival]]) -> None:
    state, new, again = fleet(), 0, 0
    for now, arrival in sorted(moments, key=lambda each: each[0]):
        state = apply(state, Missed(L4, DEFAULT_POOL, 60, arrival), now)
        new, again = new + (arrival is Arrival.NEW), again + (arrival is Arrival.AGAIN)
        assert wanted(state, now)[KEY] == 1
        assert 0 <= unserved(state, now)[L4] <= max(new, again)


@given(st.integers(1, 50), st.floats(0, 0.9))
def test_who_is_told_and_comes_back_at_once_is_one_client(clients: int, pause_s: float) -> None:
    state = fleet()
    for arrival in (Arrival.NEW, Arrival.AGAIN, Arrival.STILL):
        for _ in range(clients):
            state = apply(state, Missed(L4, DEFAULT_POOL, 60, arrival), pause_s * (arrival is not Arrival.NEW))
    assert unserved(state, pause_s)[L4] == clients


def test_who_still_waits_keeps_the_demand_up_and_counts_nowhere() -> None:
    state = fleet(Missed(L4, DEFAULT_POOL, 60), Missed(L4, DEFAULT_POOL, 90, Arrival.STILL))
    assert (wanted(state, 80)[KEY], unserved(state, 80)[L4]) == (1, 1)


def test_a_burst_is_forgotten_while_one_client_still_asks() -> None:
    state = fleet(*(Missed(L4, DEFAULT_POOL, 60) for _ in range(100)))
    for now in (40, 80):
        state = apply(state, Missed(L4, DEFAULT_POOL, 60), now)
        assert unserved(state, now)[L4] == (100 if now < 60 else 1)


def test_a_burst_counts_until_somebody_serves_and_only_without_a_pool() -> None:
    state = fleet(PoolPut(pool("a")), *(Missed(L4, name, 60) for name in ("a", "a", DEFAULT_POOL)))
    assert unserved(state, 1) == {L4: 1}
    reserved_one = apply(state, seen("l4-0"), 1)
    assert unserved(reserved_one, 1) == {L4: 1}
    assert unserved(apply(reserved_one, seen("l4-1"), 1), 1) == {L4: 0}


def test_how_long_somebody_has_been_asking_is_known_until_somebody_serves_or_nobody_asks() -> None:
    state = fleet()
    for now in (0, 50, 100):
        state = apply(state, Missed(L4, DEFAULT_POOL, 60), now)
    assert [waited_s(state, KEY, now) for now in (100, 150, 161)] == [100, 150, 0]
    assert waited_s(apply(state, seen(), 120), KEY, 120) == 0
    late = apply(apply(state, Tick(), 161), Missed(L4, DEFAULT_POOL, 60), 170)
    assert waited_s(late, KEY, 175) == 5


def test_each_pool_has_a_wish_of_its_own() -> None:
    state = fleet(seen("l4-0"), PoolPut(pool("a")), Missed(L4, "default", 60), Missed(L4, "a", 60))
    assert wanted(state, 0) == {KEY: 1, (L4, "a"): 0}
    dead = apply(apply(state, WorkerGone(url("l4-0")), 0), Missed(L4, "a", 60), 0)
    assert wanted(dead, 0) == {KEY: 1, (L4, "a"): 1}
    one = apply(dead, seen("l4-1"), 1)
    assert wanted(one, 1) == {KEY: 1, (L4, "a"): 0}
    assert wanted(apply(one, seen("l4-2"), 1), 1) == {KEY: 0, (L4, "a"): 0}


def test_the_series_of_a_pool_die_with_it() -> None:
    state = fleet(PoolPut(pool("a")), Missed(L4, "a", 60))
    gone = apply(state, PoolGone("a"), 1)
    assert not gone.demand
    assert wanted(gone, 1) == {KEY: 0}
    assert wanted(apply(gone, PoolPut(pool("a", created_at=2)), 2), 2) == {KEY: 0, (L4, "a"): 0}


def test_a_pool_wants_only_what_it_reserves() -> None:
    state = fleet(PoolPut(pool("a", {"a100": 1})), Missed(L4, "a", 60), groups=[L4, A100])
    assert not state.demand


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 20), st.floats(-60, 2 * LEASE_S))
def test_running_leases_count_and_ended_ones_do_not(l4: int, a100: int, minimum: int, age: float) -> None:
    leased = pool("a", {"l4": l4, "a100": a100}, minimum_worker_count=minimum, last_renewed=1000.0)
    state = fleet(PoolPut(leased), PoolPut(pool("b", {"h100": 9}, last_renewed=1000.0)), groups=[L4, A100])
    running = age <= LEASE_S + MAX_SKEW_S
    assert reserved(state, 1000.0 + age) == ({L4: l4, A100: a100} if running else {L4: 0, A100: 0})
    floor = warm(state, 1000.0 + age)
    assert sum(floor.values()) == (min(minimum, l4 + a100) if running else 0)
    assert floor[A100] == 0 or floor[L4] == l4


def test_a_pool_without_a_bundle_counts_for_one_group_only() -> None:
    vision = Group("l4", "vision")
    state = fleet(PoolPut(pool("a", {"l4": 2})), PoolPut(pool("b", bundle="vision")), groups=[L4, vision])
    assert reserved(state, 0) == {L4: 2, vision: 1}


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_delays_are_jittered_upward_by_a_quarter_and_demand_outlasts_the_longest(base: int, draw: float) -> None:
    assert base <= jittered(base, draw) <= base * 1.25
    assert ttl_s(base) > jittered(base, draw)


def test_a_herd_comes_back_over_a_quarter_of_the_delay() -> None:
    assert {jittered(120, draw / 1000) for draw in range(1000)} == set(range(120, 151))
