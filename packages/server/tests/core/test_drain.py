import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_server.core.drain import MAX_WAIT_S, MIN_WAIT_S, DrainRate

batches = st.lists(st.tuples(st.integers(1, 64), st.floats(1e-4, 100)), max_size=30)


draws = st.floats(0, 1, exclude_max=True)


@given(batches, st.integers(0, 10_000), draws)
def test_the_wait_is_bounded_and_grows_with_what_has_to_go(
    seen: list[tuple[int, float]], excess: int, draw: float
) -> None:
    rate = DrainRate()
    for items, seconds in seen:
        rate = rate.after(items, seconds)
    assert MIN_WAIT_S <= rate.wait_s(excess, 0) <= rate.wait_s(excess + 1, 0) <= MAX_WAIT_S
    longest = rate.wait_s(excess, 0) * 1.25
    assert rate.wait_s(excess, 0) <= rate.wait_s(excess, draw) <= longest


@given(st.integers(1, 64), st.floats(0.01, 10), st.integers(1, 40))
def test_a_steady_queue_is_waited_for_exactly(items: int, seconds: float, count: int) -> None:
    rate = DrainRate()
    for _ in range(count):
        rate = rate.after(items, seconds)
    assert rate.wait_s(items * 3, 0) == pytest.approx(min(max(3 * seconds, MIN_WAIT_S), MAX_WAIT_S))
