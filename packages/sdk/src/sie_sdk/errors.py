"""What the SDK raises: `SIEError` and its kinds, chosen by code, then by status, never by text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from sie_protocol.errors import DID_YOU_MEAN, ITEM, MODELS_HINT, PARAM, ErrorCode
from sie_sdk.messages import Loss
from sie_sdk.refusals import Refusal


class SIEError(Exception):
    """Any failure of a call.

    `code` is the server's (see `sie_protocol.errors.ErrorCode`) or the SDK's own for a lost connection, `status_code`
    the HTTP status, `request_id` what to look for in the server's log, `retry_after` the seconds after which the server
    expects another attempt to make sense. Each is None when unknown. `next_step` is the part of the message that says
    what to do here, if there is one. `item` is the place, in the list that was given, of the one item that the server
    refuses, `param` the field of the request. `partial` is set when a long list was sent in parts and one of them
    failed: the results in order, None for items without one.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status_code: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status_code = status_code
        self.request_id = request_id
        self.retry_after = retry_after
        self.next_step = ""
        self.item: int | None = None
        self.param: str | None = None
        self.partial: Sequence[Any] | None = None

    def of_part(self, places: slice) -> Self:
        """The same error for who asked for the list of which this part was sent: servers count from its beginning."""
        told = f"of the list these are items[{places.start}:{places.stop}]"
        if self.item is not None:
            self.item += places.start
            told = f"in the list it is items[{self.item}]"
        step = f"; {self.next_step}" if self.next_step else ""
        self.message = f"{self.message.removesuffix(step)}; {told}{step}"
        self.args = (self.message,)
        return self


class SIEConnectionError(SIEError):
    """No answer arrived: nobody listens, the connection broke, time ran out, or the client was closed."""


class RequestError(SIEError):
    """The server refuses this request (4xx); the same request will be refused again."""


class InputTooLongError(RequestError):
    """The input exceeds a limit of the server or of the model."""


class PoolError(RequestError):
    """A resource pool cannot be made or used as asked. `pool_name` is what was asked for."""

    pool_name: str | None = None


class PoolNotFoundError(PoolError):
    """The pool does not exist, or its lease ended."""


class PoolForbiddenError(PoolError):
    """The pool belongs to another API key."""


class RateLimitError(RequestError):
    """Still told to slow down when the time for the call was spent."""


class ServerError(SIEError):
    """The server failed (5xx)."""


class ResourceExhaustedError(ServerError):
    """The worker ran out of memory, also after smaller waits; send fewer or shorter items."""


class IncompleteBatchError(ServerError):
    """The answer does not hold exactly one result per item, in order."""


class ProvisioningError(SIEError):
    """No worker can take the request yet; the cluster is starting one. `gpu` is what was asked for, if anything."""

    gpu: str | None = None


class ModelLoadingError(SIEError):
    """The model was still loading when the time for the call was spent."""

    model: str | None = None


class LoraLoadingError(ModelLoadingError):
    """A LoRA of the model was still loading."""


class ModelLoadFailedError(ServerError):
    """The worker cannot load the model. `permanent` tells that it will not try again by itself."""

    model: str | None = None
    error_class: str | None = None
    permanent: bool | None = None
    attempts: int | None = None


_BY_CODE: Final[Mapping[str, type[SIEError]]] = {
    ErrorCode.PROVISIONING: ProvisioningError,
    ErrorCode.MODEL_LOADING: ModelLoadingError,
    ErrorCode.LORA_LOADING: LoraLoadingError,
    ErrorCode.MODEL_LOAD_FAILED: ModelLoadFailedError,
    ErrorCode.INPUT_TOO_LONG: InputTooLongError,
    ErrorCode.POOL_NOT_FOUND: PoolNotFoundError,
    ErrorCode.RATE_LIMITED: RateLimitError,
    ErrorCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    **dict.fromkeys(Loss, SIEConnectionError),
}

# What the server cannot know, because it concerns this side.
_NEXT_STEP: Final[Mapping[str, str]] = {
    ErrorCode.UNAUTHENTICATED: "pass api_key= to the client or set SIE_API_KEY",
    ErrorCode.MODEL_NOT_FOUND: "list_models() tells what is served",
    ErrorCode.POOL_NOT_FOUND: "create_pool() makes it",
    ErrorCode.INPUT_TOO_LONG: "send shorter items, or fewer at a time",
    ErrorCode.RESOURCE_EXHAUSTED: "send fewer or shorter items",
    ErrorCode.RATE_LIMITED: "send fewer requests at a time",
    ErrorCode.DEADLINE_EXCEEDED: "send fewer items per request",
    Loss.CONNECT_FAILED: "check that a SIE router or worker listens at the base URL",
    Loss.CONNECT_IMPOSSIBLE: "check host, port and certificate of the base URL, and http against https",
    Loss.TIMED_OUT: "pass a larger timeout_s, or send fewer items per request",
    Loss.CONNECTION_LOST: "try again; encode, score and extract may be repeated without harm",
    Loss.CLIENT_CLOSED: "create a new client",
}
_COMING: Final = frozenset({ErrorCode.PROVISIONING, ErrorCode.MODEL_LOADING, ErrorCode.LORA_LOADING})
_UNAUTHENTICATED_STATUS: Final = 401
_NOT_FOUND_STATUS: Final = 404
_CLIENT_ERRORS_FROM, _SERVER_ERRORS_FROM = 300, 500


@dataclass(frozen=True, slots=True)
class Asker:
    """What a call was about, as far as its errors tell: the target, the model, and the pool of a call about pools."""

    gpu: str | None = None
    model: str | None = None
    pool: str | None = None


def error_for(refusal: Refusal, asked: str, *, waited: str | None, asker: Asker) -> SIEError:
    """The exception of a refusal.

    Args:
        refusal: what was found.
        asked: what was asked, for example "POST /v1/encode/BAAI/bge-m3".
        waited: for a call that was allowed to wait for capacity, how long it did.
        asker: what the call was about.
    """
    found = " ".join(str(part) for part in (refusal.status, refusal.code) if part is not None)
    step = _next_step(refusal, waited=waited is not None)
    said = refusal.message.removesuffix(f"; {MODELS_HINT}") if step else refusal.message
    text = ": ".join(part for part in (asked, found, said) if part)
    if waited is not None and refusal.code in _COMING:
        text = f"{text}; {waited}"
    error = _kind(refusal, asker)(
        f"{text}; {step}" if step else text,
        code=refusal.code,
        status_code=refusal.status,
        request_id=refusal.request_id,
        retry_after=refusal.retry_after_s,
    )
    error.next_step = step or ""
    item, param = refusal.details.get(ITEM), refusal.details.get(PARAM)
    error.item = item if type(item) is int else None
    error.param = param if isinstance(param, str) else None
    _describe(error, refusal.details, asker)
    return error


def _kind(refusal: Refusal, asker: Asker) -> type[SIEError]:
    named = _BY_CODE.get(refusal.code or "")
    if named is not None:
        return named
    status = refusal.status or 0
    if not _CLIENT_ERRORS_FROM <= status < _SERVER_ERRORS_FROM:
        return ServerError
    return RequestError if asker.pool is None else _kind_of_pool(refusal)


def _kind_of_pool(refusal: Refusal) -> type[PoolError]:
    if refusal.code == ErrorCode.FORBIDDEN:
        return PoolForbiddenError
    # Published routers give no code. One for the path itself says something else: a server that has no pools.
    return PoolNotFoundError if refusal.status == _NOT_FOUND_STATUS and refusal.code is None else PoolError


def _next_step(refusal: Refusal, *, waited: bool) -> str | None:
    if refusal.code in _COMING:
        return "pass a larger provision_timeout_s to wait longer" if waited else "pass wait_for_capacity=True to wait"
    if refusal.code == ErrorCode.MODEL_NOT_FOUND and refusal.details.get(DID_YOU_MEAN):
        return None  # it was said
    if refusal.status == _UNAUTHENTICATED_STATUS:
        return _NEXT_STEP[ErrorCode.UNAUTHENTICATED]
    return _NEXT_STEP.get(refusal.code or "")


def _describe(error: SIEError, details: Mapping[str, Any], asker: Asker) -> None:
    match error:
        case ProvisioningError():
            error.gpu = asker.gpu or details.get("gpu")
        case PoolError():
            error.pool_name = asker.pool or details.get("pool")
        case ModelLoadingError():
            error.model = asker.model
        case ModelLoadFailedError():
            error.model = asker.model
            error.error_class = details.get("error_class")
            error.permanent = details.get("permanent")
            error.attempts = details.get("attempts")
        case _:
            pass
