"""Reads what a server said when it did not answer with a result.

Every published server has its own shapes: `error` or `detail` as an object, a string or a list, or the bare fields
without a wrapper. All of them become one `Refusal`. Knows nothing of retries or exceptions.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import msgspec

from sie_protocol.codec import is_msgpack
from sie_protocol.errors import RULES, ErrorCode
from sie_protocol.headers import ERROR_CODE, REQUEST_ID, RETRY_AFTER
from sie_sdk.messages import ACCEPTED, Answer, Lost, Outcome

EXCERPT_CHARS: Final = 200  # of a body that is no error object, for example a proxy's plain text

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_REDIRECTS: Final = range(300, 400)
_TITLE: Final = re.compile(r"^\s*(?:<!doctype[^>]*>\s*)?<html.{0,1000}?<title>(.+?)</title>", re.IGNORECASE | re.DOTALL)
_TOKEN: Final = re.compile(r"[A-Za-z0-9]+(_[A-Za-z0-9]+)*")
# What a status says by itself when no code came with it.
_CODE_OF_STATUS: Final[Mapping[int, str]] = MappingProxyType(
    {
        ACCEPTED: ErrorCode.PROVISIONING.value,
        429: ErrorCode.RATE_LIMITED.value,
        504: ErrorCode.DEADLINE_EXCEEDED.value,
    }
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request brought no result: from a server (`status` is set) or because no answer arrived.

    `code` is upper case; `details` is the whole error object; `retry_after_s` is None unless the server gave a usable
    number.
    """

    code: str | None
    message: str
    status: int | None = None
    retry_after_s: float | None = None
    request_id: str | None = None
    details: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)

    @property
    def name(self) -> str:
        """The code, or the status of a refusal without one."""
        return self.code or f"HTTP {self.status}"


def read_refusal(outcome: Outcome) -> Refusal:
    """The refusal in an outcome that is not a success."""
    if isinstance(outcome, Lost):
        return Refusal(outcome.loss.value, outcome.reason)
    body = _decoded(outcome)
    error = _error_object(body) if isinstance(body, Mapping) else _NOTHING
    return Refusal(
        code=_code(outcome, error),
        message=_message(error) or _redirected(outcome) or _title(outcome.body) or _excerpt(outcome.body),
        status=outcome.status,
        retry_after_s=retry_after_s(outcome),
        request_id=outcome.headers.get(REQUEST_ID.lower()),
        details=error,
    )


def retry_after_s(answer: Answer) -> float | None:
    """Seconds that `Retry-After` asks for, given as a number or as a date; None when absent or nonsense.

    A date is compared with the server's own `Date`, so that a wrong client clock does no harm.
    """
    text = answer.headers.get(RETRY_AFTER.lower(), "").strip()
    try:
        seconds = float(text)
    except ValueError:
        until = _unix_time(text)
        if until is None:
            return None
        sent_at = _unix_time(answer.headers.get("date", ""))
        return max(0.0, until - (answer.received_at if sent_at is None else sent_at))
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _unix_time(http_date: str) -> float | None:
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - brings sockets and calendars; dates are rare here

    try:
        return parsedate_to_datetime(http_date).timestamp()
    except (ValueError, OverflowError):
        return None


def _decoded(answer: Answer) -> Any:
    try:
        return (msgspec.msgpack.decode if is_msgpack(answer.content_type) else json.loads)(answer.body)
    except (ValueError, msgspec.MsgspecError, RecursionError):
        return None


def _error_object(body: Mapping[Any, Any]) -> Mapping[str, Any]:
    """The object that holds code and message: `error` before `detail` before the body itself."""
    wrapped = (body.get(key) for key in ("error", "detail"))
    inner = next((value for value in wrapped if isinstance(value, Mapping)), body)
    return {key: value for key, value in inner.items() if isinstance(key, str)}


def _code(answer: Answer, error: Mapping[str, Any]) -> str | None:
    header = answer.headers.get(ERROR_CODE.lower(), "").strip()
    for candidate in (header, error.get("code"), error.get("error")):
        if isinstance(candidate, str) and _TOKEN.fullmatch(candidate):
            return candidate.upper()
    status = str(error.get("status", "")).upper()  # an old router's {"status": "gpu_not_configured", ...}
    return status if status in RULES else _CODE_OF_STATUS.get(answer.status)


def _message(error: Mapping[str, Any]) -> str:
    if isinstance(error.get("message"), str):
        return str(error["message"])
    parts = (error.get("error"), _joined(error.get("detail")))
    return ": ".join(part for part in parts if isinstance(part, str) and part)


def _joined(detail: Any) -> Any:
    """FastAPI lists what is wrong with a request, one object each."""
    if not isinstance(detail, Sequence) or isinstance(detail, str):
        return detail
    return "; ".join(str(each.get("msg", each)) if isinstance(each, Mapping) else str(each) for each in detail)


def _redirected(answer: Answer) -> str:
    """What a redirect means to a client that follows none; what comes after a `?` may be a secret."""
    target = answer.headers.get("location", "").partition("?")[0]
    if answer.status not in _REDIRECTS or not target:
        return ""
    return (
        f"redirected to {target[:EXCERPT_CHARS]}, and redirects are not followed; if that is a page to sign in, set "
        "api_key to a token that is still valid, else make it the base URL"
    )


def _title(body: bytes) -> str:
    """What a proxy's page of HTML says in one line."""
    found = _TITLE.search(body.decode(errors="replace"))
    return "" if found is None else f"{found[1].strip()[:EXCERPT_CHARS]} (a page of HTML, of a proxy perhaps)"


def _excerpt(body: bytes) -> str:
    text = body.decode(errors="replace").strip()
    return text if len(text) <= EXCERPT_CHARS else f"{text[:EXCERPT_CHARS]} ..."
