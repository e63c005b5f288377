import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_server.core.lifecycle import (
    COOL_DOWN_S,
    TRANSITIONS,
    ErrorClass,
    Failure,
    State,
    Step,
    advance,
    loading_retry_after_s,
    may_load,
)


def test_a_model_loads_fails_recovers_and_goes() -> None:
    state = State.AVAILABLE
    for step in (Step.LOAD, Step.FAIL, Step.LOAD, Step.LOADED, Step.UNLOAD, Step.UNLOADED):
        state = advance(state, step)
    assert state is State.AVAILABLE


@pytest.mark.parametrize(("state", "step"), [(s, t) for s in State for t in Step if (s, t) not in TRANSITIONS])
def test_any_other_step_is_a_bug(state: State, step: Step) -> None:
    with pytest.raises(AssertionError, match=f"{state} cannot {step}"):
        advance(state, step)


@given(st.sampled_from(ErrorClass), st.floats(0, 1e6))
def test_a_failed_load_is_repeated_only_after_its_cool_down(kind: ErrorClass, elapsed: float) -> None:
    failure = Failure(kind, "why", 1, failed_at=50.0)
    allowed = kind in COOL_DOWN_S and (50.0 + elapsed) - 50.0 >= COOL_DOWN_S[kind]
    assert may_load(State.FAILED, failure, 50.0 + elapsed) == allowed
    assert failure.permanent == (kind not in COOL_DOWN_S)


def test_only_the_available_and_the_cooled_down_load() -> None:
    assert may_load(State.AVAILABLE, None, 0.0)
    assert not may_load(State.LOADING, None, 0.0)
    assert not may_load(State.LOADED, None, 0.0)


@given(st.floats(0, 1e4))
def test_retry_after_grows_with_the_load_between_one_and_five_seconds(elapsed: float) -> None:
    assert loading_retry_after_s(elapsed) == min(5, max(1, round(elapsed)))
