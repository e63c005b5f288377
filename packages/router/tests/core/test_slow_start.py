import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_builders import MODEL, ask, fleet, pool, seen
from sie_router.core.events import PoolPut, WorkerSeen
from sie_router.core.fleet import Fleet
from sie_router.core.route import Ask, Forward, decide, serving_workers
from sie_router.core.slow_start import START, releasable, release_at_s

times = st.floats(0, 1e6)
workers = st.integers(1, 1000)


@given(times, times, workers)
def test_with_time_never_fewer_may_go_on(one: float, other: float, count: int) -> None:
    assert releasable(min(one, other), count) <= releasable(max(one, other), count)


@given(st.integers(0, 100_000), workers)
def test_a_request_is_due_when_it_is_allowed(before: int, count: int) -> None:
    at = release_at_s(before, count)
    assert releasable(at + 1e-6, count) > before
    assert at < 1e-6 or releasable(at - 1e-3, count) <= before


@given(workers)
def test_the_first_few_go_on_at_once(count: int) -> None:
    assert releasable(0, count) == START * count


def loaded_only(**more: str) -> Ask:
    return Ask(ask(**more).model, loaded_only=True)


@pytest.mark.parametrize(
    ("state", "of_any", "of_the_model"),
    [
        (fleet(), 0, 0),
        (fleet(seen("a"), seen("b")), 2, 0),
        (fleet(seen("a", ready=False)), 0, 0),
        (fleet(seen("a", loading=[MODEL])), 1, 0),
        (fleet(seen("a", loaded=[MODEL]), seen("b")), 2, 1),
        (fleet(PoolPut(pool("t")), seen("a", loaded=[MODEL])), 0, 0),
    ],
)
def test_only_workers_that_could_take_it_count(state: Fleet, of_any: int, of_the_model: int) -> None:
    assert serving_workers(state, ask()) == of_any
    assert serving_workers(state, loaded_only()) == of_the_model


def test_whoever_would_be_refused_need_not_wait() -> None:
    assert serving_workers(fleet(seen()), ask(pool="none")) == 1


frames = [seen("a"), seen("a", ready=False), seen("b", bundle="vision"), seen("c", profile="x")]


@given(st.lists(st.sampled_from(frames)))
def test_someone_is_able_exactly_when_the_request_would_be_forwarded(events: list[WorkerSeen]) -> None:
    state = fleet(*events)
    assert (serving_workers(state, ask()) > 0) == isinstance(decide(state, ask(), {}, 0.5), Forward)
