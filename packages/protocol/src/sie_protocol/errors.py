"""Every refusal SIE can give: one table of codes, one exception, one envelope.

A code decides the HTTP status, whether a client may try again and after how long. Nobody chooses a status by hand, and
nobody chooses a reaction by message text.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from sie_protocol.headers import CLUSTER_STATUS, ERROR_CODE, RETRY_AFTER, WORKER_STATUS, WWW_AUTHENTICATE

MAX_SHOWN: Final = 200  # characters of what a caller wrote, in a refusal of it
# In messages and details of MODEL_NOT_FOUND.
MODELS_HINT: Final = "GET /v1/models lists what is"
DID_YOU_MEAN: Final = "did_you_mean"
ITEM: Final = "item"  # detail: the place, from 0, of the one item of a request that is at fault
LABELS: Final = "params.labels"  # as `param`
PARAM: Final = "param"  # detail: the field of a request that is wrong or missing


class ErrorCode(StrEnum):
    """Canonical codes, sent in the body and in `X-SIE-Error-Code`."""

    INVALID_INPUT = "INVALID_INPUT"
    INPUT_TOO_LONG = "INPUT_TOO_LONG"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    FORBIDDEN = "FORBIDDEN"
    NOT_FOUND = "NOT_FOUND"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    POOL_NOT_FOUND = "POOL_NOT_FOUND"
    BUNDLE_CONFLICT = "BUNDLE_CONFLICT"
    RATE_LIMITED = "RATE_LIMITED"
    INFERENCE_ERROR = "INFERENCE_ERROR"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    MODEL_LOAD_FAILED = "MODEL_LOAD_FAILED"
    GPU_NOT_CONFIGURED = "GPU_NOT_CONFIGURED"
    PROVISIONING = "PROVISIONING"
    MODEL_LOADING = "MODEL_LOADING"
    LORA_LOADING = "LORA_LOADING"
    QUEUE_FULL = "QUEUE_FULL"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    WORKER_UNAVAILABLE = "WORKER_UNAVAILABLE"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    QUEUE_UNAVAILABLE = "QUEUE_UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"


@dataclass(frozen=True, slots=True)
class Rule:
    """How one code travels: HTTP status, whether a retry can help, and the default delay in whole seconds."""

    status: int
    retryable: bool = False
    retry_after_s: int | None = None


RULES: Final[Mapping[ErrorCode, Rule]] = MappingProxyType(
    {
        ErrorCode.INVALID_INPUT: Rule(400),
        ErrorCode.INPUT_TOO_LONG: Rule(413),
        ErrorCode.UNAUTHENTICATED: Rule(401),
        ErrorCode.FORBIDDEN: Rule(403),
        ErrorCode.NOT_FOUND: Rule(404),
        ErrorCode.METHOD_NOT_ALLOWED: Rule(405),
        ErrorCode.MODEL_NOT_FOUND: Rule(404),
        ErrorCode.POOL_NOT_FOUND: Rule(404),
        ErrorCode.BUNDLE_CONFLICT: Rule(409),
        ErrorCode.RATE_LIMITED: Rule(429, retryable=True, retry_after_s=1),
        ErrorCode.INFERENCE_ERROR: Rule(500),
        ErrorCode.INTERNAL_ERROR: Rule(500),
        ErrorCode.MODEL_LOAD_FAILED: Rule(502),
        # A configuration error: published clients know it as a 503, and without Retry-After newer ones stop at once.
        ErrorCode.GPU_NOT_CONFIGURED: Rule(503),
        ErrorCode.PROVISIONING: Rule(503, retryable=True, retry_after_s=120),
        ErrorCode.MODEL_LOADING: Rule(503, retryable=True, retry_after_s=5),
        ErrorCode.LORA_LOADING: Rule(503, retryable=True, retry_after_s=1),
        ErrorCode.QUEUE_FULL: Rule(503, retryable=True, retry_after_s=1),
        ErrorCode.RESOURCE_EXHAUSTED: Rule(503, retryable=True, retry_after_s=5),
        # Old clients retry any 503; newer ones only those they know, and hear others in place of the next three
        # (`versions.DIALECTS`).
        ErrorCode.SHUTTING_DOWN: Rule(503, retryable=True, retry_after_s=1),
        ErrorCode.WORKER_UNAVAILABLE: Rule(503, retryable=True, retry_after_s=1),
        ErrorCode.STORE_UNAVAILABLE: Rule(503, retryable=True, retry_after_s=1),
        ErrorCode.QUEUE_UNAVAILABLE: Rule(503, retryable=True, retry_after_s=1),
        ErrorCode.DEADLINE_EXCEEDED: Rule(504, retryable=True, retry_after_s=1),
    }
)


class Problem(Exception):  # noqa: N818 - it is the domain word, and not always an error
    """A refusal with a code from the table.

    `message` tells what was asked, what was found and what to do next. `details` are further JSON values for the
    envelope. `retry_after_s` overrides the table's delay; it is rounded up to a whole second, at least 1.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        retry_after_s: float | None = None,
        details: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details
        delay = RULES[code].retry_after_s if retry_after_s is None else retry_after_s
        self.retry_after_s = None if delay is None else max(1, math.ceil(delay))

    @property
    def status(self) -> int:
        """HTTP status of this problem's code."""
        return RULES[self.code].status


def about_item(problem: Problem, place: int) -> Problem:
    """The same refusal, which tells also machines which item it is about."""
    problem.details = {**problem.details, ITEM: place}
    return problem


@dataclass(frozen=True, slots=True)
class Envelope:
    """One refusal, ready to be written: status, extra headers and a JSON-able body."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: Mapping[str, Any] = field(default_factory=dict)


def envelope(problem: Problem) -> Envelope:
    """The only shape an error has on the wire.

    `error` is what current clients read, `detail` the same object for clients up to 0.6 and for pool calls.
    """
    inner = {"code": str(problem.code), "message": problem.message, **problem.details}
    headers = [(ERROR_CODE, str(problem.code))]
    if problem.retry_after_s is not None:
        headers.append((RETRY_AFTER, str(problem.retry_after_s)))
    if problem.code is ErrorCode.UNAUTHENTICATED:
        headers.append((WWW_AUTHENTICATE, "Bearer"))
    return Envelope(problem.status, tuple(headers), {"error": inner, "detail": inner})


def no_socket_at(path: str) -> Problem:
    """The refusal of a WebSocket where there is none."""
    known = f"{CLUSTER_STATUS} of a router is one, {WORKER_STATUS} of a worker another"
    return Problem(ErrorCode.NOT_FOUND, f"there is no WebSocket at {path[:MAX_SHOWN]}; {known}")
