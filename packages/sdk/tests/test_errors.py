import copy

import pytest

import sdk_answers as published
import sie_sdk
from sdk_virtual_time import answer
from sie_protocol.errors import DID_YOU_MEAN, MODELS_HINT, ErrorCode
from sie_sdk import errors
from sie_sdk.errors import Asker, error_for
from sie_sdk.messages import Loss
from sie_sdk.refusals import Refusal, read_refusal


def made(refusal: Refusal, *, waited: str | None = "waited 5 of 5 s") -> errors.SIEError:
    return error_for(refusal, "POST /v1/encode/org/m", waited=waited, asker=Asker(model="org/m"))


def test_every_error_is_exported_and_derives_from_one() -> None:
    exported = {name for name in sie_sdk.__all__ if name.endswith("Error")}
    defined = {name for name, value in vars(errors).items() if isinstance(value, type) and name.endswith("Error")}
    assert exported == defined
    assert all(issubclass(getattr(sie_sdk, name), errors.SIEError) for name in exported)


@pytest.mark.parametrize("code", [*ErrorCode, *Loss])
def test_a_message_tells_what_was_asked_and_what_was_found(code: str) -> None:
    text = str(made(Refusal(code, "because of that", 503)))
    assert text.startswith(f"POST /v1/encode/org/m: 503 {code}: because of that")


def test_an_error_carries_what_a_caller_can_act_on() -> None:
    refusal = Refusal("RATE_LIMITED", "slow down", 429, retry_after_s=3.0, request_id="r-1")
    error = made(refusal)
    assert isinstance(error, errors.RateLimitError)
    assert (error.code, error.status_code, error.retry_after, error.request_id) == ("RATE_LIMITED", 429, 3.0, "r-1")


def test_a_failed_load_tells_whether_it_is_for_good() -> None:
    error = made(read_refusal(answer(published.LOAD_FAILED_0_10)))
    assert isinstance(error, errors.ModelLoadFailedError)
    assert (error.model, error.error_class, error.permanent, error.attempts) == ("org/m", "NOT_FOUND", True, 3)


def test_provisioning_names_the_profile_of_the_answer_when_the_caller_named_none() -> None:
    error = made(read_refusal(answer(published.PROVISIONING_202)), waited=None)
    assert isinstance(error, errors.ProvisioningError)
    assert (error.gpu, error.retry_after) == ("l4", 120)


def test_a_401_without_a_code_tells_where_the_key_goes() -> None:
    assert "SIE_API_KEY" in str(made(read_refusal(answer(published.NO_TOKEN_0_1))))


def test_an_unexpected_redirect_is_the_requests_fault() -> None:
    assert type(made(Refusal(None, "moved", 308))) is errors.RequestError


def test_an_error_can_be_copied_and_so_sent_between_processes() -> None:
    error = made(read_refusal(answer(published.PROVISIONING_503)))
    twin = copy.copy(error)  # by the same protocol as the way between processes
    assert (type(twin), str(twin), vars(twin)) == (type(error), str(error), vars(error))


def test_a_model_like_others_is_told_those_and_nothing_else_and_any_other_how_to_list_what_there_is() -> None:
    unlike = made(Refusal("MODEL_NOT_FOUND", f"no 'x'; {MODELS_HINT}", 404))
    assert str(unlike).endswith("no 'x'; list_models() tells what is served")
    alike = made(Refusal("MODEL_NOT_FOUND", "no 'x'; did you mean y?", 404, details={DID_YOU_MEAN: ["y"]}))
    assert str(alike).endswith("no 'x'; did you mean y?")
    assert not alike.next_step
