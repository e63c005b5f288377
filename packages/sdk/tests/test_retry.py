import pytest
from hypothesis import given
from hypothesis import strategies as st

import sdk_answers as published
from sdk_server import Reply
from sdk_virtual_time import answer
from sie_protocol.errors import RULES as CODES
from sie_protocol.errors import ErrorCode, Problem, envelope
from sie_sdk import errors, retry
from sie_sdk.messages import Loss, Lost, Outcome
from sie_sdk.retry import Raise, Return, Terms, Wait

PATIENT = Terms(timeout_s=30, budget_s=900, gpu="l4", model="org/m")
HASTY = Terms(timeout_s=30, budget_s=900, wait_for_capacity=False, gpu="l4", model="org/m")
draws = st.floats(0, 1, exclude_max=True)


def decide(
    outcome: Outcome, terms: Terms = PATIENT, *, left_s: float = 800, repeated: int = 0, draw: float = 0
) -> Return | Wait | Raise:
    seen = dict.fromkeys([*retry.RULES, "HTTP 503"], repeated)
    return retry.decide(
        outcome, asked="POST /v1/encode/org/m", seen=seen, now=0, deadline=left_s, terms=terms, draw=draw
    )


def delay(
    outcome: Outcome, terms: Terms = PATIENT, *, left_s: float = 800, repeated: int = 0, draw: float = 0
) -> float:
    decision = decide(outcome, terms, left_s=left_s, repeated=repeated, draw=draw)
    assert isinstance(decision, Wait), decision
    return decision.delay_s


def error(outcome: Outcome, terms: Terms = PATIENT, *, left_s: float = 800, repeated: int = 0) -> errors.SIEError:
    decision = decide(outcome, terms, left_s=left_s, repeated=repeated)
    assert isinstance(decision, Raise), decision
    return decision.error


def refused(code: ErrorCode) -> Reply:
    """Our own server's refusal."""
    made = envelope(Problem(code, "because"))
    return published.said(made.status, made.body, **{name.replace("-", "_"): value for name, value in made.headers})


def with_retry_after(reply: Reply, value: str | None) -> Reply:
    headers = {name: text for name, text in reply.headers.items() if name != "Retry-After"}
    return Reply(reply.status, reply.body, headers if value is None else {**headers, "Retry-After": value})


def test_a_result_is_returned() -> None:
    outcome = answer(published.VECTOR)
    assert decide(outcome, left_s=-1) == Return(outcome)


@pytest.mark.parametrize(
    ("reply", "asked_s"), [(published.PROVISIONING_202, 120), (published.PROVISIONING_503, 7)], ids=["202", "503"]
)
def test_no_capacity_waits_as_the_server_says_up_to_a_quarter_less(reply: Reply, asked_s: float) -> None:
    assert delay(answer(reply)) == asked_s
    assert delay(answer(reply), draw=0.999) == pytest.approx(asked_s * 0.75, rel=0.01)
    assert delay(answer(with_retry_after(reply, None))) == 5


@pytest.mark.parametrize(
    ("reply", "asked_s"), [(published.PROVISIONING_202, 120), (published.PROVISIONING_503, 7)], ids=["202", "503"]
)
def test_no_capacity_is_raised_at_once_for_callers_who_do_not_wait(reply: Reply, asked_s: float) -> None:
    raised = error(answer(reply), HASTY)
    assert isinstance(raised, errors.ProvisioningError)
    assert (raised.gpu, raised.retry_after, raised.code) == ("l4", asked_s, "PROVISIONING")
    assert "wait_for_capacity=True" in str(raised)


@pytest.mark.parametrize("terms", [PATIENT, HASTY], ids=["waits", "does not wait"])
@pytest.mark.parametrize(
    ("code", "default_s"),
    [
        (ErrorCode.MODEL_LOADING, 5),
        (ErrorCode.QUEUE_FULL, 1),
        (ErrorCode.RATE_LIMITED, 1),
        (ErrorCode.SHUTTING_DOWN, 1),
        (ErrorCode.WORKER_UNAVAILABLE, 1),
        (ErrorCode.STORE_UNAVAILABLE, 1),
        (ErrorCode.RESOURCE_EXHAUSTED, 5),
    ],
)
def test_a_busy_server_is_asked_again_by_everybody(code: ErrorCode, default_s: float, terms: Terms) -> None:
    assert delay(answer(refused(code)), terms) == default_s
    assert delay(answer(with_retry_after(refused(code), None)), terms) == default_s
    assert delay(answer(with_retry_after(refused(code), "9")), terms) == 9


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (ErrorCode.PROVISIONING, errors.ProvisioningError),
        (ErrorCode.MODEL_LOADING, errors.ModelLoadingError),
        (ErrorCode.QUEUE_FULL, errors.ServerError),
        (ErrorCode.RATE_LIMITED, errors.RateLimitError),
        (ErrorCode.RESOURCE_EXHAUSTED, errors.ResourceExhaustedError),
        (ErrorCode.DEADLINE_EXCEEDED, errors.ServerError),
    ],
)
def test_what_could_pass_is_raised_by_its_own_name_when_time_is_spent(
    code: ErrorCode, kind: type[errors.SIEError]
) -> None:
    assert type(error(answer(refused(code)), left_s=0)) is kind


@pytest.mark.parametrize("terms", [PATIENT, HASTY], ids=["waits", "does not wait"])
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (ErrorCode.INVALID_INPUT, errors.RequestError),
        (ErrorCode.INPUT_TOO_LONG, errors.InputTooLongError),
        (ErrorCode.UNAUTHENTICATED, errors.RequestError),
        (ErrorCode.FORBIDDEN, errors.RequestError),
        (ErrorCode.MODEL_NOT_FOUND, errors.RequestError),
        (ErrorCode.BUNDLE_CONFLICT, errors.RequestError),
        (ErrorCode.INFERENCE_ERROR, errors.ServerError),
        (ErrorCode.INTERNAL_ERROR, errors.ServerError),
        (ErrorCode.MODEL_LOAD_FAILED, errors.ModelLoadFailedError),
        (ErrorCode.GPU_NOT_CONFIGURED, errors.ServerError),
    ],
)
def test_what_time_does_not_heal_is_raised_at_once(code: ErrorCode, kind: type[errors.SIEError], terms: Terms) -> None:
    raised = error(answer(refused(code)), terms)
    assert type(raised) is kind
    assert (raised.code, raised.status_code) == (code, CODES[code].status)


def test_every_code_of_the_table_is_retried_exactly_if_the_table_says_so() -> None:
    for code, rule in CODES.items():
        assert isinstance(decide(answer(refused(code))), Wait) is rule.retryable, code


def test_a_configuration_error_is_final_even_with_a_retry_after() -> None:
    assert type(error(answer(with_retry_after(refused(ErrorCode.GPU_NOT_CONFIGURED), "5")))) is errors.ServerError


@pytest.mark.parametrize("terms", [PATIENT, HASTY], ids=["waits", "does not wait"])
def test_an_unnamed_503_is_retried_only_when_its_sender_asks_to_come_back(terms: Terms) -> None:
    assert delay(answer(published.DRAINING_0_1), terms) == 5
    assert type(error(answer(published.NO_WORKERS_0_1), terms)) is errors.ServerError


def test_memory_is_retried_three_times_with_growing_delays() -> None:
    outcome = answer(published.OUT_OF_MEMORY_0_10)
    assert [delay(outcome, repeated=n) for n in range(3)] == [5, 10, 20]
    assert type(error(outcome, repeated=3)) is errors.ResourceExhaustedError


@pytest.mark.parametrize("loss", [Loss.CONNECT_FAILED, Loss.CONNECTION_LOST, Loss.TIMED_OUT])
def test_a_lost_connection_is_tried_again_ever_more_slowly_by_callers_who_wait(loss: Loss) -> None:
    assert [delay(Lost(loss, "gone"), repeated=n) for n in range(5)] == [1, 2, 4, 5, 5]
    assert delay(Lost(loss, "gone"), repeated=10_000) == 5
    raised = error(Lost(loss, "gone"), HASTY)
    assert type(raised) is errors.SIEConnectionError
    assert raised.code == loss


@pytest.mark.parametrize("loss", [Loss.CONNECT_IMPOSSIBLE, Loss.CLIENT_CLOSED])
def test_a_connection_that_cannot_be_is_not_tried_again(loss: Loss) -> None:
    assert type(error(Lost(loss, "no such host"))) is errors.SIEConnectionError


def test_a_gateway_timeout_is_tried_again_by_callers_who_wait() -> None:
    assert delay(answer(published.said(504, {}))) == 5
    assert type(error(answer(published.said(504, {})), HASTY)) is errors.ServerError


@pytest.mark.parametrize("asked", ["0", "0.0"])
def test_come_back_at_once_does_not_make_a_client_spin(asked: str) -> None:
    assert delay(answer(with_retry_after(published.QUEUE_FULL_0_10, asked))) == retry.MIN_DELAY_S


@given(st.sampled_from(list(CODES)), st.floats(0, 1e9), draws, st.floats(retry.SPENT_S * 2, 1e4), st.integers(0, 99))
def test_no_wait_is_longer_than_the_time_left(
    code: ErrorCode, asked_s: float, draw: float, left_s: float, repeated: int
) -> None:
    reply = with_retry_after(refused(code), str(asked_s))
    decision = decide(answer(reply), left_s=left_s, draw=draw, repeated=repeated)
    assert isinstance(decision, Raise) or (isinstance(decision, Wait) and 0 < decision.delay_s <= left_s)


@given(st.sampled_from(sorted(retry.RULES)), draws, st.floats(retry.SPENT_S, 1e4), st.integers(0, 99))
def test_whoever_does_not_wait_for_capacity_never_waits_where_others_would_not(
    code: str, draw: float, left_s: float, repeated: int
) -> None:
    outcome = Lost(Loss(code), "") if code in list(Loss) else answer(published.said(503, {"error": {"code": code}}))
    hasty = decide(outcome, HASTY, left_s=left_s, draw=draw, repeated=repeated)
    if isinstance(hasty, Wait):
        assert decide(outcome, PATIENT, left_s=left_s, draw=draw, repeated=repeated) == hasty


@pytest.mark.parametrize(
    ("budget_s", "left_s", "words"),
    [
        (20, 0, "waited 15 of 20 s, the rest is kept for one more attempt; pass a larger provision_timeout_s"),
        (5, 0, "waited 2.5 of 5 s, the rest is kept for one more attempt; pass"),
        (20, -5, "waited 20 of 20 s; pass a larger"),
    ],
)
def test_who_waited_for_capacity_in_vain_is_told_for_how_long(budget_s: float, left_s: float, words: str) -> None:
    terms = Terms(timeout_s=30, budget_s=budget_s)
    assert words in str(error(answer(published.PROVISIONING_503), terms, left_s=left_s))
    hasty = Terms(timeout_s=30, budget_s=budget_s, wait_for_capacity=False)
    assert "waited" not in str(error(answer(published.PROVISIONING_503), hasty, left_s=left_s))
