from hypothesis import given
from hypothesis import strategies as st

from router_builders import L4, fleet
from sie_router.core.comeback import delay_s
from sie_router.core.demand import BURST_S
from sie_router.core.events import Missed, apply
from sie_router.core.fleet import Fleet
from sie_router.core.pools import DEFAULT_POOL

WISH = (L4, DEFAULT_POOL)
MOST_S = 120
draws = st.floats(0, 1, exclude_max=True)


def asked(state: Fleet, now: float, draw: float) -> tuple[Fleet, int]:
    """One more client finds nobody."""
    state = apply(state, Missed(L4, DEFAULT_POOL, 300), now)
    return state, delay_s(state, WISH, now, MOST_S, draw)


@given(st.lists(st.tuples(st.floats(0, 200), draws), min_size=1, max_size=20))
def test_who_asks_alone_is_told_the_configured_delay_and_a_herd_is_spread(asks: list[tuple[float, float]]) -> None:
    state, now, burst_at, told = fleet(), 0.0, None, []
    for pause_s, draw in asks:
        now += pause_s
        is_first = burst_at is None or now - burst_at >= BURST_S
        burst_at = now if is_first else burst_at
        state, answer = asked(state, now, draw)
        told.append(answer)
        assert answer == MOST_S if is_first else MOST_S <= answer <= MOST_S * 1.25
    assert told[0] == MOST_S


def test_all_of_a_herd_but_the_first_come_back_over_a_quarter_of_the_delay() -> None:
    state, told = fleet(), set[int]()
    for client in range(1000):
        state, answer = asked(state, client / 2000, client / 1000)
        told.add(answer)
    assert told == set(range(MOST_S, 151))


def test_whom_nobody_counts_are_spread_as_well() -> None:
    assert delay_s(fleet(groups=[]), WISH, 0, MOST_S, 0.999) == 150
