import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sdk_answers as published
from sdk_server import Reply
from sdk_virtual_time import answer
from sie_protocol.errors import ErrorCode, Problem, envelope
from sie_sdk.errors import Asker, error_for
from sie_sdk.messages import Answer, Loss, Lost
from sie_sdk.refusals import EXCERPT_CHARS, read_refusal, retry_after_s

json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
error_bodies = st.dictionaries(st.sampled_from(["error", "detail", "code", "message", "status"]), json_values)


def asking(value: str, **headers: str) -> Answer:
    return Answer(503, {"retry-after": value, **headers}, b"", received_at=1_700_000_000.0)


@pytest.mark.parametrize(
    ("reply", "code", "message"),
    [
        (published.PROVISIONING_202, "PROVISIONING", "Starting l4"),
        (published.MODEL_LOADING_0_1, "MODEL_LOADING", "Model 'm' is loading"),
        (published.DRAINING_0_1, None, "Service shutting down: Server is draining connections"),
        (published.NO_WORKERS_0_1, None, "No healthy workers available"),
        (published.UNKNOWN_PROFILE_0_1, "GPU_NOT_CONFIGURED", "GPU 'h9' unknown"),
        (published.UNKNOWN_MODEL_0_1, "MODEL_NOT_FOUND", "Model 'm' not found"),
        (published.UNKNOWN_ROUTE_0_1, None, "Not Found"),
        (published.UNPROCESSABLE_0_1, None, "Field required"),
        (published.NO_TOKEN_0_1, None, "Missing Authorization header"),
        (published.BAD_ITEM_0_1, "INVALID_INPUT", "items is empty"),
        (published.PROVISIONING_503, "PROVISIONING", "Starting l4"),
        (published.LOAD_FAILED_0_10, "MODEL_LOAD_FAILED", "No such revision"),
        (published.TOO_LONG_0_10, "INPUT_TOO_LONG", "9000 tokens, limit 8192"),
        (Reply(502, b"<html>Bad Gateway</html>"), None, "<html>Bad Gateway</html>"),
        (Reply(504), "DEADLINE_EXCEEDED", ""),
        (published.said(429, {"error": "Too many requests"}), "RATE_LIMITED", "Too many requests"),
    ],
)
def test_every_published_shape_is_read(reply: Reply, code: str | None, message: str) -> None:
    refusal = read_refusal(answer(reply))
    assert (refusal.code, refusal.message, refusal.status) == (code, message, reply.status)


def test_the_header_names_the_code_before_the_body_and_in_any_case() -> None:
    reply = published.said(503, {"error": {"code": "OTHER", "message": "x"}}, X_SIE_Error_Code="queue_full")
    assert read_refusal(answer(reply)).code == "QUEUE_FULL"
    lost_code = published.said(503, {"error": "model is loading"}, X_SIE_Error_Code="MODEL_LOADING")
    assert read_refusal(answer(lost_code)).code == "MODEL_LOADING"


def test_an_error_may_be_msgpack() -> None:
    body = msgspec.msgpack.encode({"error": {"code": "provisioning", "message": "soon"}})
    refusal = read_refusal(answer(Reply(503, body, published.MSGPACK)))
    assert (refusal.code, refusal.message) == ("PROVISIONING", "soon")


def test_our_own_envelope_arrives_whole() -> None:
    problem = Problem(ErrorCode.BUNDLE_CONFLICT, "cannot run it", details={"compatible_bundles": ["default"]})
    made = envelope(problem)
    refusal = read_refusal(Answer(made.status, {k.lower(): v for k, v in made.headers}, json.dumps(made.body).encode()))
    assert (refusal.code, refusal.message) == ("BUNDLE_CONFLICT", "cannot run it")
    assert refusal.details["compatible_bundles"] == ["default"]


def test_a_redirect_says_where_to_and_none_of_its_secrets() -> None:
    told = {"location": "https://sie.example.com/oauth2/start?rd=secret"}
    message = read_refusal(Answer(302, told, b"<html><title>302 Found</title></html>")).message
    assert message.startswith("redirected to https://sie.example.com/oauth2/start,")
    assert "api_key" in message
    assert "secret" not in message


def test_of_a_page_of_html_the_title_is_told() -> None:
    page = b"<!DOCTYPE html>\r\n<html>\r\n<head><title>403 Forbidden</title></head><body>much more</body></html>"
    assert read_refusal(Answer(403, {}, page)).message == "403 Forbidden (a page of HTML, of a proxy perhaps)"


def test_a_page_of_html_is_cut_short() -> None:
    message = read_refusal(Answer(502, {}, b"x" * 10_000)).message
    assert len(message) < EXCERPT_CHARS + 10


@given(error_bodies, st.integers(300, 599))
def test_no_json_breaks_the_reading_of_an_error(body: dict[str, Any], status: int) -> None:
    raw = Answer(status, {"content-type": "application/json"}, json.dumps(body).encode())
    refusal = read_refusal(raw)
    assert refusal.status == status
    assert isinstance(refusal.message, str)
    assert refusal.code is None or refusal.code == refusal.code.upper()
    assert str(error_for(refusal, "GET /", waited="waited 1 of 2 s", asker=Asker())).startswith(f"GET /: {status}")


@given(st.binary(max_size=64), st.sampled_from(["application/msgpack", "application/json", ""]))
def test_no_bytes_break_the_reading_of_an_error(body: bytes, kind: str) -> None:
    assert read_refusal(Answer(500, {"content-type": kind}, body)).status == 500


def test_a_lost_connection_has_no_status() -> None:
    refusal = read_refusal(Lost(Loss.TIMED_OUT, "late"))
    assert (refusal.code, refusal.status, refusal.message) == ("TIMED_OUT", None, "late")


@given(st.floats(min_value=0, max_value=1e12))
def test_retry_after_is_a_number_of_seconds(seconds: float) -> None:
    assert retry_after_s(asking(str(seconds))) == seconds


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "-1", "soon", "", "Mon, 99 Foo 2023 22:13:30 GMT"])
def test_nonsense_in_retry_after_is_ignored(text: str) -> None:
    assert retry_after_s(asking(text)) is None


def test_retry_after_is_a_date_measured_by_the_servers_own_clock() -> None:
    at = "Tue, 14 Nov 2023 22:13:50 GMT"  # 1_700_000_030
    assert retry_after_s(asking(at)) == 30
    assert retry_after_s(asking(at, date="Tue, 14 Nov 2023 22:13:40 GMT")) == 10
    assert retry_after_s(asking(at, date="Tue, 14 Nov 2023 23:00:00 GMT")) == 0


@given(st.text(max_size=20))
def test_retry_after_never_gives_anything_but_a_finite_wait(text: str) -> None:
    seconds = retry_after_s(asking(text))
    assert seconds is None or (math.isfinite(seconds) and seconds >= 0)
