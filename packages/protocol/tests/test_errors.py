import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_protocol.errors import RULES, ErrorCode, Problem, envelope

CODES = st.sampled_from(ErrorCode)


def test_every_code_has_a_rule() -> None:
    assert set(RULES) == set(ErrorCode)


@pytest.mark.parametrize("code", list(ErrorCode))
def test_a_retryable_code_says_when_and_no_other_does(code: ErrorCode) -> None:
    rule = RULES[code]
    assert (rule.retry_after_s is not None) is rule.retryable
    assert rule.status >= 400


@given(CODES, st.text(), st.none() | st.floats(0, 1e6), st.dictionaries(st.sampled_from(["model", "gpu"]), st.text()))
def test_the_envelope_says_the_same_to_old_and_new_clients(
    code: ErrorCode, message: str, delay: float | None, details: dict[str, str]
) -> None:
    problem = Problem(code, message, retry_after_s=delay, details=details)
    sent = envelope(problem)
    assert sent.status == RULES[code].status
    assert sent.body["error"] == sent.body["detail"] == {"code": code, "message": message, **details}
    headers = dict(sent.headers)
    assert headers["X-SIE-Error-Code"] == code
    assert ("Retry-After" in headers) is (problem.retry_after_s is not None)


@given(CODES, st.floats(0, 1e6))
def test_a_delay_is_a_whole_second_of_at_least_one_and_never_shorter_than_meant(code: ErrorCode, delay: float) -> None:
    sent = dict(envelope(Problem(code, "", retry_after_s=delay)).headers)["Retry-After"]
    assert int(sent) >= max(1, delay)
    assert int(sent) < delay + 1 or int(sent) == 1
