from hypothesis import given
from hypothesis import strategies as st

from router_builders import L4, fleet, pool, seen, url
from sie_router.core.events import Missed, PoolPut, WorkerGone, apply
from sie_router.core.fleet import Fleet, Group
from sie_router.core.pools import DEFAULT_POOL
from sie_router.core.startups import KEPT, MAX_S, expected_s

A100 = Group("a100", "default")
times = st.floats(0, 5000)


def started(state: Fleet, at: float, took_s: float) -> Fleet:
    """Somebody asks, asks again, and is met; then the worker goes."""
    for now in (at, at + took_s / 2):
        state = apply(state, Missed(L4, DEFAULT_POOL, 2 * MAX_S), now)
    state = apply(state, seen(), at + took_s)
    return apply(state, WorkerGone(url("w")), at + took_s + 1)


@given(st.lists(times, min_size=1, max_size=8), times)
def test_what_is_told_is_between_what_was_seen_and_never_less_than_a_second(took: list[float], waited_s: float) -> None:
    state, now = fleet(groups=[L4, A100]), 0.0
    for took_s in took:
        state, now = started(state, now, took_s), now + took_s + 10
    kept = [min(took_s, MAX_S) for took_s in took[-KEPT:]]
    assert len(state.startups[L4]) == len(kept)
    fresh = expected_s(state.startups, L4, 0)
    assert fresh is not None
    assert max(1, min(kept)) - 0.01 <= fresh <= max(1, *kept) + 1.01
    later = expected_s(state.startups, L4, waited_s)
    assert later is not None
    assert later >= max(1, waited_s / 4)
    assert later <= max(fresh, waited_s / 4 + 1)
    assert expected_s(state.startups, A100, 0) is None


def test_only_a_wish_that_was_met_teaches() -> None:
    state = apply(fleet(seen()), WorkerGone(url("w")), 5)  # nobody asked
    state = apply(apply(state, Missed(L4, DEFAULT_POOL, 60), 10), seen(), 100)  # who asked has long gone
    assert state.startups == {}
    reserved = fleet(seen(), PoolPut(pool("a")), Missed(L4, DEFAULT_POOL, 60))
    assert apply(reserved, seen(loaded=["org/m"]), 20).startups == {}, "a worker of a pool serves nobody else"
    assert apply(reserved, seen("l4-1"), 20).startups == {L4: (20,)}
