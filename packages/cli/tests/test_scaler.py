import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaler_traces import OUTAGE, QUIET, Metrics, readings, sizes, trace
from sie_cli.scaler import NEVER_ADDS, Change, Reading, Rules, State, Trigger, explain, proposal, query_value, step

SEED = Rules()  # 15 / 900 / 300 / 2, sizes 0 to 10
BUSY: Metrics = (0.0, 0.0, 5.0)


def once(rules: Rules, state: State, metrics: Metrics, now: float) -> tuple[int, list[str]]:
    after, changes = step(rules, state, readings(metrics), now)
    return after.replicas, [explain(change) for change in changes]


def running(replicas: int, *, last_active: float = 0.0, **more: float) -> State:
    return replace(State(replicas, last_active=last_active), **more)  # type: ignore[arg-type]


# 1: activation


@pytest.mark.parametrize(("queue", "replicas"), [(0, 0), (2, 0), (3, 1)])
def test_a_pool_wakes_only_above_the_activation_value(queue: float, replicas: int) -> None:
    assert once(SEED, State(), (0.0, queue, 0.0), 0.0)[0] == replicas


def test_zero_is_not_above_an_activation_of_zero() -> None:
    assert once(SEED, State(), QUIET, 0.0) == (0, [])


# 2 and 3: what a query's answer is worth


@pytest.mark.parametrize("elements", [[], [math.nan], [math.inf], [-math.inf]])
def test_an_empty_or_infinite_answer_is_zero_only_if_null_values_are_ignored(elements: list[float]) -> None:
    assert query_value(elements, ignore_null_values=True) == 0.0
    assert query_value(elements, ignore_null_values=False) is None


@pytest.mark.parametrize("ignore", [True, False])
def test_an_answer_with_several_elements_is_a_failure(ignore: bool) -> None:
    assert query_value([1.0, 2.0], ignore_null_values=ignore) is None


def test_a_query_that_answers_zero_in_an_outage_hides_it_and_the_pool_goes_to_zero() -> None:
    hidden = (query_value([0.0], ignore_null_values=False),) * 3
    assert sizes(trace(SEED, lambda _, __: hidden, 1200, start=3))[-1] == (915.0, 0)
    honest = (query_value([], ignore_null_values=False),) * 3
    assert trace(SEED, lambda _, __: honest, 1200, start=3) == []


# 4: two loops with two periods


def test_zero_to_one_happens_at_polls_and_one_to_many_at_syncs() -> None:
    rules = replace(SEED, polling_interval_s=10, sync_period_s=25)
    lines = trace(rules, lambda now, _: (0.0, 50.0 if now >= 5 else 0.0, 0.0), 60)
    assert sizes(lines) == [(10.0, 1), (25.0, 5)]


def test_waking_goes_to_the_minimum_or_to_one() -> None:
    assert once(SEED, State(), (1.0, 0.0, 0.0), 0.0) == (1, ["demand 1 > 0: 0 -> 1"])
    assert once(replace(SEED, min_replicas=3), State(), (1.0, 0.0, 0.0), 0.0)[0] == 3


def test_a_pool_below_its_minimum_is_brought_there_without_demand() -> None:
    assert once(replace(SEED, min_replicas=2), State(), QUIET, 0.0) == (2, ["below the minimum of 2: 0 -> 2"])
    assert once(replace(SEED, min_replicas=2), running(1, next_poll=99), QUIET, 0.0)[0] == 2


# 5: to zero


def test_a_pool_leaves_only_after_more_than_the_cooldown() -> None:
    assert once(SEED, running(1, last_active=100), QUIET, 1000.0) == (1, [])
    assert once(SEED, running(1, last_active=100), QUIET, 1000.1) == (
        0,
        ["not in use for 900 s, longer than the cooldown: 1 -> 0"],
    )


def test_a_pool_that_was_never_active_has_no_cooldown() -> None:
    assert once(SEED, State(1), QUIET, 0.0)[0] == 0


def test_a_pool_with_a_minimum_never_goes_to_zero() -> None:
    assert sizes(trace(replace(SEED, min_replicas=1), lambda _, __: QUIET, 5000, start=3))[-1][1] == 1


# 6: no active trigger and one in error


@pytest.mark.parametrize(("fallback", "replicas"), [(2, 1), (None, 1), (0, 0)])
def test_an_idle_pool_with_a_failed_query_keeps_its_workers_unless_the_fallback_is_zero(
    fallback: int | None, replicas: int
) -> None:
    rules = replace(SEED, fallback_replicas=fallback, failure_threshold=10**6)
    assert once(rules, running(1), (0.0, None, 0.0), 5000.0)[0] == replicas


def test_a_poll_with_a_failed_query_does_not_count_as_activity() -> None:
    state, _ = step(SEED, running(2, last_active=10), readings((1.0, None, 0.0)), 500.0)
    assert state.last_active == 10
    state, _ = step(SEED, running(2, last_active=10), readings((1.0, 0.0, 0.0)), 500.0)
    assert state.last_active == 500


def test_an_active_trigger_wakes_a_pool_although_another_query_fails() -> None:
    assert once(SEED, State(), (1.0, None, None), 0.0)[0] == 1


# 7: fallback


def test_three_failures_in_a_row_lift_an_empty_pool_to_the_fallback() -> None:
    lines = trace(SEED, lambda _, __: OUTAGE, 100)
    assert sizes(lines) == [(30.0, 2)]
    assert lines[0].why == "metrics missing 3 times in a row, fallback: 0 -> 2"


def test_a_success_in_between_starts_the_count_anew() -> None:
    assert trace(SEED, lambda now, _: QUIET if now % 45 == 30 else OUTAGE, 2000) == []


def test_the_fallback_lifts_a_smaller_pool_and_leaves_a_larger_one() -> None:
    assert sizes(trace(SEED, lambda _, __: OUTAGE, 3000, start=1)) == [(30.0, 2)]
    assert trace(SEED, lambda _, __: OUTAGE, 3000, start=8) == []


def test_the_fallback_never_exceeds_the_maximum() -> None:
    rules = replace(SEED, max_replicas=3, fallback_replicas=50)
    assert sizes(trace(rules, lambda _, __: OUTAGE, 3000)) == [(30.0, 3)]


# 8: proposals


@pytest.mark.parametrize(
    ("value", "replicas", "proposed"),
    [(0, 3, 0), (1, 3, 1), (26.9, 3, 3), (27, 3, 3), (33, 3, 3), (33.1, 3, 4), (100, 3, 10), (101, 3, 11)],
)
def test_a_metric_proposes_its_value_per_threshold_rounded_up_outside_the_tolerance(
    value: float, replicas: int, proposed: int
) -> None:
    assert proposal(value, 10, replicas) == proposed


def test_the_highest_proposal_wins() -> None:
    assert once(replace(SEED, max_replicas=100), running(4), (7.0, 60.0, 1.0), 0.0) == (
        7,
        ["demand 7 at 1 per worker wants 7: 4 -> 7"],
    )


def test_traffic_alone_never_adds_workers() -> None:
    assert once(SEED, running(1), (0.0, 0.0, NEVER_ADDS / 2), 0.0) == (1, [])


# 9: growth


def test_growth_from_one_is_5_10_20_and_so_on() -> None:
    rules = replace(SEED, max_replicas=50)
    lines = trace(rules, lambda _, __: (0.0, 1000.0, 1.0), 100, start=1)
    assert sizes(lines) == [(0.0, 5), (15.0, 10), (30.0, 20), (45.0, 40), (60.0, 50)]


def test_growth_is_limited_per_period_however_often_one_looks() -> None:
    rules = replace(SEED, max_replicas=50, sync_period_s=2)
    lines = trace(rules, lambda _, __: (0.0, 1000.0, 1.0), 31, start=1)
    assert sizes(lines) == [(0.0, 5), (16.0, 10), (32.0, 20)][:2]


# 10: shrinking


def test_shrinking_waits_for_the_stabilization_window_and_takes_a_quarter_or_one_per_minute() -> None:
    rules = replace(SEED, max_replicas=20)
    lines = trace(rules, lambda now, _: (0.0, 200.0 if now < 60 else 0.0, 1.0), 2000, start=20)
    times = [line.at for line in lines]
    assert [line.replicas for line in lines] == [15, 11, 8, 6, 4, 3, 2, 1]
    assert times[0] == 345.0  # the last high recommendation was at 45 s and counts for less than 300 s
    assert all(b - a == 60 for a, b in itertools.pairwise(times))
    assert lines[0].why == "no more than 1 wanted over the stabilization window: 20 -> 15"


def test_a_short_dip_changes_nothing() -> None:
    rules = replace(SEED, max_replicas=20)
    assert trace(rules, lambda now, _: (0.0, 0.0 if 60 < now < 300 else 200.0, 1.0), 3000, start=20) == []


def test_a_failed_query_forbids_shrinking_but_not_growing() -> None:
    assert trace(SEED, lambda _, __: (0.0, None, 1.0), 30, start=5) == []
    assert once(SEED, running(5), (9.0, None, 1.0), 0.0)[0] == 9


# Golden traces: (seconds, replicas)


def test_trace_of_a_single_request() -> None:
    # The demand of one 202 lasts for some minutes; then the request is served and traffic ends.
    def world(now: float, replicas: int) -> Metrics:
        if now < 10:
            return QUIET
        return (1.0, 0.0, 0.0) if now < 200 or replicas == 0 else (0.0, 0.0, 1.0 if now < 260 else 0.0)

    lines = trace(SEED, world, 1150)
    assert [(line.at, line.why) for line in lines] == [
        (15.0, "demand 1 > 0: 0 -> 1"),
    ]
    lines = trace(SEED, world, 1170)
    assert sizes(lines) == [(15.0, 1), (1170.0, 0)]  # active last at 255 s; 915 s later is the first poll above 900 s


def test_trace_of_a_burst_of_500_at_zero() -> None:
    # Until the first worker is there, nothing but demand is visible; then the clients' retries queue up.
    def world(now: float, _: int) -> Metrics:
        if now < 180:
            return (1.0, 0.0, 0.0)
        return (0.0, max(0.0, 500.0 - (now - 180) * 5), 500.0)

    lines = trace(SEED, world, 280)
    assert sizes(lines) == [(0.0, 1), (180.0, 5), (195.0, 10)]
    assert lines[1].why == "queue 500 at 10 per worker wants 10: 1 -> 5"


def test_trace_of_a_metrics_outage_at_peak() -> None:
    peak: Metrics = (0.0, 80.0, 40.0)
    lines = trace(SEED, lambda now, _: OUTAGE if 100 < now < 1500 else peak, 3000, start=8)
    assert lines == []


def test_trace_of_a_router_restart_at_peak() -> None:
    # For one poll nothing answers; then the new router knows of no traffic for a while, until the feeds are back.
    def world(now: float, _: int) -> Metrics:
        if now < 300:
            return (0.0, 80.0, 400.0)
        if now < 315:
            return OUTAGE
        return QUIET if now < 345 else (0.0, 80.0, 400.0)

    assert trace(SEED, world, 3000, start=8) == []


def test_trace_of_a_slow_client_that_obeys_retry_after() -> None:
    # It asks every 120 s; demand outlives the pause, the worker takes 200 s to come, then one request a minute late.
    def world(now: float, replicas: int) -> Metrics:
        is_served = replicas > 0 and now >= 240
        return (0.0, 0.0, 1.0 if now < 300 else 0.0) if is_served else (1.0, 0.0, 0.0)

    assert sizes(trace(SEED, world, 1185)) == [(0.0, 1)]
    assert sizes(trace(SEED, world, 1200)) == [(0.0, 1), (1200.0, 0)]


def test_steady_low_traffic_never_goes_to_zero() -> None:
    lines = trace(SEED, lambda now, _: (0.0, 1.0 if now % 60 == 0 else 0.0, 1.0), 20_000, start=1)
    assert lines == []


def test_after_traffic_ends_the_pool_is_empty_after_the_cooldown() -> None:
    lines = trace(SEED, lambda now, _: BUSY if now <= 600 else QUIET, 5000, start=1)
    assert sizes(lines) == [(1515.0, 0)]


# Laws

values = st.one_of(st.none(), st.floats(0, 1e6))
any_metrics = st.tuples(values, values, values)
numbers = st.floats(0, 1e6)
all_numbers = st.tuples(numbers, numbers, numbers)
any_rules = st.builds(
    lambda low, extra, fallback, polling, sync, window: Rules(
        min_replicas=low,
        max_replicas=max(1, low + extra),
        fallback_replicas=fallback,
        polling_interval_s=polling,
        sync_period_s=sync,
        stabilization_s=window,
        cooldown_s=60,
    ),
    st.integers(0, 5),
    st.integers(0, 40),
    st.one_of(st.none(), st.integers(0, 60)),
    st.floats(1, 30),
    st.floats(1, 30),
    st.floats(0, 300),
)
histories = st.lists(st.tuples(st.floats(0.1, 60), any_metrics), max_size=30)


def replay(rules: Rules, history: list[tuple[float, Metrics]]) -> tuple[State, list[Change], float]:
    state, now = State(rules.min_replicas), 0.0
    log: list[Change] = []
    for pause, metrics in history:
        now += pause
        state, changes = step(rules, state, readings(metrics), now)
        log += changes
    return state, log, now


@given(any_rules, histories)
def test_a_pool_stays_between_its_minimum_and_its_maximum(rules: Rules, history: list[tuple[float, Metrics]]) -> None:
    _, log, _ = replay(rules, history)
    assert all(rules.min_replicas <= change.after <= rules.max_replicas for change in log)


@given(any_rules, histories)
def test_the_same_history_gives_the_same_decisions(rules: Rules, history: list[tuple[float, Metrics]]) -> None:
    assert replay(rules, history) == replay(rules, history)


@given(any_rules, histories)
def test_each_change_starts_where_the_last_one_ended_and_can_be_explained(
    rules: Rules, history: list[tuple[float, Metrics]]
) -> None:
    _, log, _ = replay(rules, history)
    ends = [rules.min_replicas, *(change.after for change in log)]
    assert [change.before for change in log] == ends[:-1]
    assert all(explain(change).endswith(f": {change.before} -> {change.after}") for change in log)
    assert all(change.before != change.after for change in log)


@given(any_rules, histories, all_numbers, all_numbers)
def test_more_load_never_leads_to_fewer_workers(
    rules: Rules,
    history: list[tuple[float, Metrics]],
    one: tuple[float, float, float],
    other: tuple[float, float, float],
) -> None:
    state, _, now = replay(rules, history)
    low = tuple(map(min, one, other))
    high = tuple(map(max, one, other))
    less, more = (step(rules, state, readings(m), now + 60)[0].replicas for m in (low, high))  # type: ignore[arg-type]
    assert less <= more


@given(any_rules, histories)
def test_the_memory_of_a_pool_is_bounded(rules: Rules, history: list[tuple[float, Metrics]]) -> None:
    state, _, _ = replay(rules, history)
    assert len(state.recommended) <= rules.stabilization_s / rules.sync_period_s + 2
    assert len(state.resized) <= 60 / rules.sync_period_s + 2


@given(st.one_of(st.just(0.0), st.floats(1e-6, 1e6)), st.floats(0.1, 1e3), st.integers(1, 100))
def test_a_proposal_covers_the_load_up_to_the_tolerance(value: float, threshold: float, replicas: int) -> None:
    assert proposal(value, threshold, replicas) * threshold * 1.1 >= value * (1 - 1e-9)


def test_a_failed_reading_is_never_active() -> None:
    assert not Reading(Trigger("demand", 1.0), None).is_active
