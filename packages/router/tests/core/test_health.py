import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_builders import L4, fleet, seen, url
from sie_router.core.events import Tick, WorkerJudged, WorkerSeen, apply, ordinal
from sie_router.core.fleet import Worker
from sie_router.core.health import (
    FIRST_OPEN_S,
    HEALTHY,
    IN_A_ROW,
    LEAST_OUTCOMES,
    LONGEST_OPEN_S,
    SLOW_START_S,
    WINDOW_S,
    Health,
    Phase,
    Verdict,
    awaited,
    in_rotation,
    judged,
    probed,
    verdict,
    weight,
)

GOOD, BAD, NEUTRAL = Verdict
verdicts = st.sampled_from(Verdict)
draws = st.floats(0, 1, exclude_max=True)
steps = st.lists(st.tuples(verdicts, st.floats(0, WINDOW_S / 3), draws), max_size=80)
phases = st.sampled_from(Phase)


def after(*said: Verdict, start: Health = HEALTHY, now: float = 100.0) -> Health:
    health = start
    for each in said:
        health = judged(health, each, now, 0.5)
    return health


@pytest.mark.parametrize(
    ("status", "is_about_model", "said"),
    [
        (200, False, GOOD),
        (404, False, GOOD),
        (429, False, NEUTRAL),
        (500, False, BAD),
        (502, False, BAD),
        (502, True, NEUTRAL),
        (503, False, NEUTRAL),
        (504, False, BAD),
    ],
)
def test_what_a_status_says_about_a_worker(status: int, is_about_model: bool, said: Verdict) -> None:
    assert verdict(status, is_about_model=is_about_model) is said


@given(st.lists(st.sampled_from([GOOD, NEUTRAL])), st.floats(0, 1e6))
def test_a_worker_that_never_fails_leaves_no_trace(said: list[Verdict], now: float) -> None:
    assert after(*said, now=now) is HEALTHY


def test_failures_in_a_row_open_it_and_one_success_between_them_does_not() -> None:
    almost = [BAD] * (IN_A_ROW - 1)
    assert after(*almost).phase is Phase.CLOSED
    assert after(*almost, NEUTRAL, BAD).phase is Phase.OPEN
    assert after(*almost, GOOD, *almost).phase is Phase.CLOSED


def test_failing_every_other_time_opens_it_as_well() -> None:
    said = [GOOD, BAD] * LEAST_OUTCOMES
    assert after(BAD, *said[: LEAST_OUTCOMES - 4]).phase is Phase.CLOSED
    assert after(BAD, *said).phase is Phase.OPEN
    assert after(BAD, *([GOOD, GOOD, GOOD, BAD] * LEAST_OUTCOMES)).phase is Phase.CLOSED


@given(steps)
def test_it_opens_only_by_a_failure_and_closes_only_by_the_success_of_a_probe(
    script: list[tuple[Verdict, float, float]],
) -> None:
    health, now = HEALTHY, 50.0
    for said, passed, draw in script:
        now += passed
        before = probed(awaited(health, now))
        assert before.phase is not Phase.OPEN or now < before.until
        health = judged(before, said, now, draw)
        match (before.phase, health.phase):
            case (Phase.CLOSED | Phase.PROBING, Phase.OPEN):
                assert said is BAD
                assert now < health.until <= now + LONGEST_OPEN_S
            case (Phase.PROBING, Phase.CLOSED):
                assert said is GOOD
            case (Phase.PROBING, Phase.HALF_OPEN):
                assert said is NEUTRAL
            case (one, two):
                assert one is two


def test_relapses_are_punished_longer_until_a_quiet_window() -> None:
    health, now, times = HEALTHY, 100.0, []
    for _ in range(8):
        health = after(*[BAD] * IN_A_ROW, start=health, now=now)
        times.append(health.until - now)
        now = health.until
        health = judged(probed(awaited(health, now)), GOOD, now, 0.5)
    assert times == sorted(times)
    assert times[0] == pytest.approx(FIRST_OPEN_S * 0.75)
    assert times[-1] == pytest.approx(LONGEST_OPEN_S * 0.75)
    assert judged(health, GOOD, now + WINDOW_S + 1, 0.5) is HEALTHY


def worker(number: int, phase: Phase, until: float) -> Worker:
    health = Health(phase=phase, until=until)
    return Worker(url(f"w{number}"), f"w{number}", "l4", "default", L4, 0.0, health=health)


@given(st.lists(st.tuples(phases, st.floats(0, 9)), max_size=12))
def test_at_most_half_of_a_group_is_ejected_and_nobody_without_cause(members: list[tuple[Phase, float]]) -> None:
    group = [worker(number, phase, until) for number, (phase, until) in enumerate(members)]
    kept = list(in_rotation(group))
    gone = [each for each in group if each not in kept]
    ejected = [each for each in group if each.health.is_ejected]
    assert kept == [each for each in group if each in kept]
    assert all(each.health.is_ejected for each in gone)
    assert len(gone) == min(len(ejected), len(group) // 2)
    spared = [each.health.until for each in kept if each.health.is_ejected]
    assert not gone or not spared or max(spared) <= min(each.health.until for each in gone)


OPEN = Health(phase=Phase.OPEN, opened=1, until=20.0)


def test_an_ejected_worker_is_out_of_rotation_and_its_group_still_has_somebody() -> None:
    state = fleet(seen("a"), seen("b"), WorkerJudged(url("a"), OPEN))
    assert state.scope().by_group[L4.key].urls == (url("b"),)
    assert state.workers[url("a")].is_healthy
    assert not state.workers[url("a")].is_trusted
    alone = fleet(seen("a"), WorkerJudged(url("a"), OPEN))
    assert alone.scope().by_group[L4.key].urls == (url("a"),)
    assert alone.has_healthy(L4)


def test_time_lets_a_probe_pass_and_a_frame_does_not() -> None:
    state = fleet(seen("a"), seen("b"), WorkerJudged(url("a"), OPEN), now=19.0)
    state = apply(apply(state, seen("a", depth=3), 19.5), Tick(), 19.5)
    assert state.workers[url("a")].health == OPEN
    state = apply(state, Tick(), 20.5)
    assert state.workers[url("a")].health.phase is Phase.HALF_OPEN
    assert state.scope().by_group[L4.key].urls == (url("a"), url("b"))


def test_another_worker_under_the_same_address_starts_without_guilt() -> None:
    state = fleet(seen("a"), seen("b"), WorkerJudged(url("a"), OPEN))
    again = apply(state, WorkerSeen(url("a"), seen("new").status), 1.0)
    assert again.workers[url("a")].health is HEALTHY


def test_a_worker_that_becomes_ready_before_our_eyes_starts_slowly() -> None:
    state = fleet(seen("a", ready=False), seen("warm"), now=100.0)
    state = apply(state, seen("a"), 100.0)
    shares = []
    for passed in range(int(SLOW_START_S) + 1):
        state = apply(apply(state, seen("a", depth=passed), 100.0 + passed), Tick(), 100.0 + passed)
        shares.append(state.workers[url("a")].weight)
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (weight(0), 1)
    assert state.workers[url("warm")].weight == 1


@pytest.mark.parametrize(
    ("name", "number"),
    [("worker-l4-3", 3), ("worker-l4-12", 12), ("w", 0), ("http://10.0.0.1:80", 0), ("w-", 0), ("w-123456789012", 0)],
)
def test_the_ordinal_is_the_number_at_the_end_of_a_name(name: str, number: int) -> None:
    assert ordinal(name) == number


def test_candidates_are_sorted_by_number_not_by_spelling() -> None:
    state = fleet(*(seen(f"worker-l4-{number}") for number in (10, 9, 2, 0)))
    ordered = state.scope().by_group[L4.key].urls
    assert ordered == tuple(url(f"worker-l4-{number}") for number in (0, 2, 9, 10))
