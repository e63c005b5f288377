from hypothesis import given
from hypothesis import strategies as st

from sie_router.core.rate import NOW_S, Rate, taken, wait_s

RATES = st.builds(Rate, per_s=st.floats(0.01, 1000), burst=st.integers(1, 50))
PAUSES = st.lists(st.floats(0, 20), min_size=1, max_size=60)
SLACK_S = 2 * NOW_S


def admitted(pauses: list[float], rate: Rate) -> list[float]:
    """When a caller that asks after these pauses is heard."""
    now, due, times = 1000.0, 1000.0, []
    for pause in pauses:
        now += pause
        if wait_s(due, now, rate) == 0:
            due = taken(due, now, rate)
            times.append(now)
    return times


@given(PAUSES, RATES)
def test_no_stretch_of_time_holds_more_than_a_burst_and_what_the_rate_allows(pauses: list[float], rate: Rate) -> None:
    times = admitted(pauses, rate)
    for first, start in enumerate(times):
        for count, end in enumerate(times[first:], 1):
            assert count <= rate.burst + (end - start + SLACK_S) * rate.per_s


@given(RATES, st.integers(1, 100), st.floats(1, 5))
def test_who_keeps_to_the_rate_is_never_refused(rate: Rate, count: int, slower: float) -> None:
    even = [(1 + SLACK_S) * slower / rate.per_s] * count
    assert len(admitted(even, rate)) == count
    assert len(admitted([0.0] * rate.burst, rate)) == rate.burst


@given(PAUSES, RATES)
def test_who_waits_as_long_as_it_was_told_is_heard_then_and_not_before(pauses: list[float], rate: Rate) -> None:
    now, due = 1000.0, 1000.0
    for pause in pauses:
        now += pause
        left_s = wait_s(due, now, rate)
        if left_s > SLACK_S:
            assert wait_s(due, now + left_s / 2, rate) > 0
        now += left_s
        assert wait_s(due, now, rate) < SLACK_S
        due = taken(due, now, rate)
