from hypothesis import given
from hypothesis import strategies as st

from router_builders import L4, fleet, seen, url
from sie_router.core.demand import SLACK_S, ttl_s, wanted
from sie_router.core.events import Missed, Tick, WorkerLost, apply
from sie_router.core.fleet import DEFAULT_POOL, Group

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
