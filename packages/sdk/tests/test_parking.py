"""A call that the router keeps until somebody can serve it, and whatever may go wrong on the way."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sdk_answers as published
from sdk_virtual_router import NEVER, VECTOR, VirtualRouter
from sdk_virtual_time import Run, Scripted, answer, run
from sie_sdk import errors, flow, retry
from sie_sdk.messages import Answer, Loss, Lost, Park, Request, Sleep
from sie_sdk.parking import MAX_STRIKES, PARK_S
from sie_sdk.retry import Terms

REQUEST = Request("POST", "/v1/encode/org/m", (("Accept", "application/msgpack"),), b"body")
START = 1000.0
PATIENT = Terms(timeout_s=30, budget_s=900, gpu="l4", model="org/m")
ROUNDING_S = 1e-6
CUTS = [
    None,
    Lost(Loss.CONNECTION_LOST, "cut"),
    answer(published.said(504, {})),
    answer(published.said(502, {})),
    answer(published.said(408, {})),
]
LOADING = replace(
    answer(published.said(503, {"error": {"code": "MODEL_LOADING", "message": "m"}}, Retry_After="5")),
    headers={"x-sie-error-code": "MODEL_LOADING", "retry-after": "5", "x-sie-wait": "120"},
)


def call(router: VirtualRouter, agreed: Terms = PATIENT, draw: float = 0.0) -> Run[Answer]:
    done = run(flow.single(REQUEST, agreed, lambda each: each), router, start=START, draw=draw)
    assert done.elapsed_s <= agreed.budget_s + ROUNDING_S
    return done


def waited_for(request: Request) -> str | None:
    return dict(request.headers).get("X-SIE-Wait")


routers = st.builds(
    VirtualRouter,
    ready_at=st.floats(START, START + 880),
    max_wait_s=st.sampled_from([0, 1, 20, 120]),
    retry_after_s=st.sampled_from([1.0, 5.0, 120.0]),
    is_full=st.booleans(),
    drops=st.booleans(),
    cut_after_s=st.sampled_from([0.0, 2.0, 10.0, 29.5, NEVER]),
    cut=st.sampled_from(CUTS),
    lets_go_at=st.floats(START, START + 900) | st.just(NEVER),
)
draws = st.floats(0, 1, exclude_max=True)


@given(st.floats(0.001, 880), draws)
def test_a_call_at_zero_is_answered_the_moment_a_worker_can_serve_it(ready_after_s: float, draw: float) -> None:
    done = call(VirtualRouter(START + ready_after_s), draw=draw)
    assert done.result is VECTOR
    assert done.elapsed_s == pytest.approx(ready_after_s)


@given(routers, draws)
def test_whatever_becomes_of_holds_no_call_is_lost_nor_much_later_than_by_sleeping(
    router: VirtualRouter, draw: float
) -> None:
    done = call(router, draw=draw)
    assert done.result is VECTOR
    silence_s = PARK_S + PATIENT.timeout_s if router.cut is None and router.cut_after_s < NEVER else 0
    assert done.elapsed_s <= router.ready_at - START + max(router.retry_after_s, 5) + silence_s + ROUNDING_S


@given(routers, draws, st.floats(0.1, 300))
def test_no_router_and_no_proxy_makes_a_call_spin(router: VirtualRouter, draw: float, budget_s: float) -> None:
    never = replace(router, ready_at=NEVER, retry_after_s=max(router.retry_after_s, 5.0))
    done = call(never, replace(PATIENT, budget_s=budget_s), draw)
    assert isinstance(done.error, errors.SIEError)
    assert len(done.sends) <= 2 + 4 * (MAX_STRIKES + 2) + done.elapsed_s / 3
    for effect, after in zip(done.effects, done.effects[1:], strict=False):
        if isinstance(effect, Sleep):
            assert not isinstance(after, Park), "a wait is followed by an attempt that is answered at once"


@given(routers, draws)
def test_time_for_an_answer_is_left_behind_every_hold_and_for_an_attempt_behind_its_silence(
    router: VirtualRouter, draw: float
) -> None:
    done, now = call(replace(router, ready_at=NEVER), draw=draw), START
    reserved_s = retry.reserve_s(PATIENT)
    end = START + PATIENT.budget_s
    for effect in done.effects:
        if isinstance(effect, Park):
            now = START + effect.event.elapsed_s
            assert effect.send.timeout_s >= effect.event.delay_s + reserved_s
            assert now + effect.send.timeout_s <= end - reserved_s + ROUNDING_S
            assert effect.send.timeout_s <= PARK_S + PATIENT.timeout_s


@given(st.floats(10, 900), st.integers(1, 1000))
def test_a_router_that_offers_nothing_is_slept_for_as_ever(ready_after_s: float, retry_after_s: int) -> None:
    router = VirtualRouter(START + ready_after_s, max_wait_s=0, retry_after_s=retry_after_s)
    done = call(router)
    assert router.kept == []
    assert all(isinstance(effect, Sleep) for effect in done.effects[1::2])
    assert all(event.delay_s == retry_after_s for event in done.waits[:-1])


def test_who_does_not_wait_for_capacity_is_told_at_once_and_keeps_no_place() -> None:
    router = VirtualRouter()
    done = call(router, replace(PATIENT, wait_for_capacity=False))
    assert isinstance(done.error, errors.ProvisioningError)
    assert (len(done.effects), router.kept) == (1, [])
    loading = run(
        flow.single(REQUEST, replace(PATIENT, wait_for_capacity=False, budget_s=20), lambda each: each),
        lambda *_: Scripted(LOADING),
    )
    assert not any(isinstance(effect, Park) for effect in loading.effects)


def test_the_first_request_is_as_ever_and_the_others_say_which_they_are() -> None:
    router = VirtualRouter(START + 70)
    sends = call(router).sends
    assert [dict(each.request.headers).get("X-SIE-Attempt") for each in sends] == [None, "2", "3"]
    assert [waited_for(each.request) for each in sends] == [None, "50", "50"]
    assert sends[0].request == REQUEST
    assert [each.timeout_s for each in sends] == [30, 80, 80]


def test_holds_are_told_as_they_begin() -> None:
    told = call(VirtualRouter(START + 70)).waits
    assert [(each.reason, each.message, each.delay_s, each.held) for each in told] == [
        ("PROVISIONING", "one is started", 50, True)
    ] * 2
    assert [each.elapsed_s for each in told] == [0, 50]
    assert not any(each.held for each in call(VirtualRouter(START + 70, max_wait_s=0)).waits)


def test_a_model_that_loads_is_waited_for_there_too() -> None:
    script = iter([Scripted(LOADING), Scripted(VECTOR, 17.0)])
    done = run(flow.single(REQUEST, PATIENT, lambda each: each), script)
    [told] = done.waits
    assert (told.reason, told.held, done.elapsed_s) == ("MODEL_LOADING", True, 17)


@pytest.mark.parametrize("cut", CUTS[1:], ids=str)
def test_after_a_cut_the_next_hold_is_half_as_long(cut: Answer | Lost) -> None:
    router = VirtualRouter(START + 200, cut_after_s=30, cut=cut)
    assert call(router).elapsed_s == pytest.approx(200)
    assert router.kept[:3] == [50, 15, 15]


def test_a_router_that_restarts_as_a_hold_begins_ends_holds_only_if_it_happens_again() -> None:
    reset = Scripted(Lost(Loss.CONNECTION_LOST, "reset"), 1.0)
    offer = VirtualRouter()(REQUEST, START)
    for script, waits in (
        ([offer, reset, offer], [50, 1, 50]),
        ([offer, reset, offer, reset, offer], [50, 1, 50, 2, 120]),
    ):
        done = run(flow.single(REQUEST, PATIENT, lambda each: each), iter([*script, Scripted(VECTOR)]))
        assert [event.delay_s for event in done.waits] == waits


def test_a_proxy_that_swallows_answers_costs_one_hold() -> None:
    router = VirtualRouter(START + 400, cut_after_s=30, cut=None)
    done = call(router)
    assert router.kept == [50]
    assert done.elapsed_s <= 400 + 120


def test_a_router_that_shuts_down_is_asked_again_soon_for_another_may_be_there() -> None:
    leaving = VirtualRouter(START + 60, lets_go_at=START + 20)
    done = call(leaving)
    assert [(effect.event.delay_s, effect.event.elapsed_s) for effect in done.effects if isinstance(effect, Sleep)] == [
        (1, 20),
        (120, 21),
    ]


def test_a_router_without_room_is_believed_twice() -> None:
    router = VirtualRouter(START + 800, is_full=True)
    done = call(router)
    assert len(router.kept) == MAX_STRIKES
    assert [event.delay_s for event in done.waits if not event.held] == [120] * 7


def test_what_a_kept_request_is_refused_for_is_raised() -> None:
    failed = replace(answer(published.LOAD_FAILED_0_10), headers={"x-sie-error-code": "MODEL_LOAD_FAILED"})
    done = run(flow.single(REQUEST, PATIENT, lambda each: each), iter([Scripted(LOADING), Scripted(failed, 9)]))
    assert isinstance(done.error, errors.ModelLoadFailedError)


def test_a_cut_that_was_no_proxys_word_about_the_wait_is_raised_by_the_next_attempt() -> None:
    broken = answer(published.said(502, {}))
    script = iter([Scripted(LOADING), Scripted(broken, 9), Scripted(broken)])
    done = run(flow.single(REQUEST, PATIENT, lambda each: each), script)
    assert isinstance(done.error, errors.ServerError)
    assert done.error.status_code == 502
