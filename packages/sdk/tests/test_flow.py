from itertools import chain, repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sdk_answers as published
from sdk_virtual_time import Scripted, answer, run
from sie_sdk import errors, flow, retry
from sie_sdk.messages import Answer, Loss, Lost, Outcome, Plan, Request, Resume, Send, Sleep
from sie_sdk.retry import Terms

REQUEST = Request("POST", "/v1/encode/org/m")
VECTOR = answer(published.VECTOR)
STARTING = answer(published.PROVISIONING_202)
LOADING = answer(published.MODEL_LOADING_0_1)
PATIENT = Terms(timeout_s=30, budget_s=900)
ROUNDING_S = 1e-6

passing: st.SearchStrategy[Outcome] = st.sampled_from(
    [
        STARTING,
        answer(published.PROVISIONING_503),
        LOADING,
        answer(published.QUEUE_FULL_0_10),
        answer(published.DRAINING_0_1),
        answer(published.OUT_OF_MEMORY_0_10),
        answer(published.said(504, {})),
        answer(published.said(429, {}, Retry_After="0")),
        *(Lost(loss, "gone") for loss in (Loss.CONNECT_FAILED, Loss.CONNECTION_LOST, Loss.TIMED_OUT)),
    ]
)
anything: st.SearchStrategy[Outcome] = st.one_of(
    passing,
    st.sampled_from(
        [
            VECTOR,
            answer(published.BAD_ITEM_0_1),
            answer(published.NO_WORKERS_0_1),
            answer(published.LOAD_FAILED_0_10),
            answer(published.said(500, {})),
            Lost(Loss.CONNECT_IMPOSSIBLE, "no such host"),
        ]
    ),
)
terms = st.builds(Terms, timeout_s=st.floats(0.05, 60), budget_s=st.floats(0.1, 120), wait_for_capacity=st.booleans())
draws = st.floats(0, 1, exclude_max=True)


def steps(outcomes: st.SearchStrategy[Outcome]) -> st.SearchStrategy[list[Scripted]]:
    return st.lists(st.builds(Scripted, outcomes, st.floats(0, 100)), min_size=1, max_size=12)


def call(agreed: Terms = PATIENT) -> Plan[Answer]:
    return flow.single(REQUEST, agreed, lambda each: each)


@given(steps(anything), terms, draws)
def test_a_call_ends_within_its_budget_with_a_result_or_an_error(
    script: list[Scripted], agreed: Terms, draw: float
) -> None:
    done = run(call(agreed), chain(script, repeat(script[-1])), draw=draw)
    assert done.elapsed_s <= agreed.budget_s + ROUNDING_S
    assert (done.result is None) is (done.error is not None)
    assert done.result is None or done.result is VECTOR


@given(steps(anything), terms, draws)
def test_every_wait_is_followed_by_an_attempt_that_has_time(script: list[Scripted], agreed: Terms, draw: float) -> None:
    done = run(call(agreed), chain(script, repeat(script[-1])), draw=draw)
    assert isinstance(done.effects[0], Send)
    assert isinstance(done.effects[-1], Send)
    for before, after in zip(done.effects, done.effects[1:], strict=False):
        assert isinstance(before, Sleep) is not isinstance(after, Sleep)
    for effect in done.effects:
        if isinstance(effect, Send):
            assert retry.reserve_s(agreed) - ROUNDING_S <= effect.timeout_s <= agreed.timeout_s


@given(steps(passing), draws)
def test_a_patient_call_outlasts_whatever_passes_in_time(script: list[Scripted], draw: float) -> None:
    memory = answer(published.OUT_OF_MEMORY_0_10)
    passed = [Scripted(step.outcome) for step in script if step.outcome != memory]
    done = run(call(Terms(30, 10_000)), iter([*passed, Scripted(VECTOR)]), draw=draw)
    assert done.result is VECTOR
    assert [event.attempt for event in done.waits] == list(range(1, len(passed) + 1))


def test_the_last_attempt_comes_after_the_last_wait_and_can_still_succeed() -> None:
    script = chain([Scripted(STARTING)] * 8, repeat(Scripted(VECTOR)))
    done = run(call(Terms(timeout_s=30, budget_s=900)), script)
    assert [event.delay_s for event in done.waits] == [120] * 7 + [55]
    assert done.result is VECTOR


def test_a_budget_spent_on_waiting_raises_after_a_real_attempt() -> None:
    done = run(call(Terms(timeout_s=30, budget_s=100)), repeat(Scripted(STARTING)))
    assert [event.delay_s for event in done.waits] == [95]
    assert isinstance(done.error, errors.ProvisioningError)
    assert "provision_timeout_s" in str(done.error)


def test_an_attempt_ends_with_the_budget_when_that_is_the_shorter() -> None:
    done = run(call(Terms(timeout_s=30, budget_s=4)), repeat(Scripted(VECTOR, takes_s=60)))
    assert done.effects == [Send(REQUEST, 4)]
    assert isinstance(done.error, errors.SIEConnectionError)


def test_a_wait_tells_its_reason_and_the_time_that_passed() -> None:
    done = run(call(), iter([Scripted(STARTING, 2.0), Scripted(LOADING, 1.0), Scripted(VECTOR)]))
    told = [(event.reason, event.delay_s, event.attempt, event.elapsed_s) for event in done.waits]
    assert told == [("PROVISIONING", 120, 1, 2.0), ("MODEL_LOADING", 5, 2, 123.0)]


def test_memory_retries_are_counted_apart_from_other_waits() -> None:
    memory = answer(published.OUT_OF_MEMORY_0_10)
    script = [STARTING, memory, STARTING, memory, STARTING, memory, VECTOR]
    done = run(call(), (Scripted(each) for each in script))
    assert done.result is VECTOR
    done = run(call(), (Scripted(each) for each in [STARTING, memory, memory, memory, memory]))
    assert isinstance(done.error, errors.ResourceExhaustedError)


def test_a_clock_that_jumped_past_the_budget_leaves_one_attempt() -> None:
    running = call(PATIENT)(0.0)
    next(running)
    asleep = running.send(resume(1.0, STARTING))
    assert isinstance(asleep, Sleep)
    last = running.send(resume(10_000.0, None))
    assert isinstance(last, Send)
    assert (last.request.path, last.timeout_s) == (REQUEST.path, retry.LAST_ATTEMPT_S)
    with pytest.raises(errors.ProvisioningError):
        running.send(resume(10_001.0, STARTING))


def resume(now: float, outcome: Outcome | None) -> Resume:
    return Resume(now, 0.0, outcome)


def test_a_second_request_runs_on_what_the_first_left() -> None:
    plan = flow.after(REQUEST, Request("GET", "/health"), Terms(timeout_s=30, budget_s=20), lambda each: each)
    done = run(plan, iter([Scripted(LOADING), Scripted(VECTOR, takes_s=4), Scripted(VECTOR, takes_s=99)]))
    assert [effect.timeout_s for effect in done.effects if isinstance(effect, Send)] == [20, 15, 11]
    assert done.elapsed_s == 20


@given(steps(anything), terms, st.floats(0.1, 50), draws)
def test_polling_ends_within_its_budget(script: list[Scripted], agreed: Terms, interval_s: float, draw: float) -> None:
    plan = flow.until(REQUEST, agreed, lambda each: each, lambda _: False, interval_s)
    done = run(plan, chain(script, repeat(script[-1])), draw=draw)
    assert done.elapsed_s <= agreed.budget_s + ROUNDING_S
    assert done.error is not None
    assert isinstance(done.effects[-1], Send)
