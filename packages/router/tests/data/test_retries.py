from hypothesis import given
from hypothesis import strategies as st

from sie_router.data.retries import FLOOR, FLOOR_PER_S, MOST, SHARE, RetryBudget

steps = st.lists(st.one_of(st.just("request"), st.just("retry"), st.floats(0, 100)), max_size=300)


@given(steps)
def test_retries_are_a_share_of_requests_and_a_floor(moves: list[str | float]) -> None:
    now, requests, retries = 0.0, 0, 0
    budget = RetryBudget(now)
    for move in moves:
        if move == "request":
            budget.earn()
            requests += 1
        elif isinstance(move, float):
            now += move
        else:
            retries += budget.take(now)
    assert retries <= FLOOR + SHARE * requests + FLOOR_PER_S * now + 1e-6


def test_what_was_earned_long_ago_is_not_saved_for_ever() -> None:
    budget = RetryBudget(0.0)
    for _ in range(100_000):
        budget.earn()
    assert sum(budget.take(0.0) for _ in range(1000)) == MOST
    assert budget.refused == 1000 - MOST


def test_a_router_without_traffic_can_retry_again_after_a_while() -> None:
    budget = RetryBudget(0.0)
    assert sum(budget.take(0.0) for _ in range(100)) == FLOOR
    assert [budget.take(0.5), budget.take(1.5)] == [False, True]
