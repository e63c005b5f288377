"""Reads answers that carry a result, and names what is wrong with those that cannot be read."""

from collections.abc import Callable
from typing import Any

import msgspec

from sie_protocol.codec import is_msgpack
from sie_protocol.errors import ErrorCode
from sie_protocol.headers import REQUEST_ID
from sie_sdk.errors import IncompleteBatchError, ServerError
from sie_sdk.messages import Answer, T


def read(answer: Answer, *, kind: type[Any], pick: Callable[[Any], T]) -> T:
    """Decode an answer that holds no arrays.

    Raises:
        ServerError: it is not what this endpoint gives; most likely something else listens at the base URL.
    """
    decode = msgspec.msgpack.decode if is_msgpack(answer.content_type) else msgspec.json.decode
    try:
        return pick(decode(answer.body, type=kind))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise malformed(answer, str(error)) from error


def malformed(answer: Answer, what: str) -> ServerError:
    """The error of a success that cannot be read."""
    return ServerError(
        f"the answer ({answer.status}, {answer.content_type or 'no content type'}, {len(answer.body)} bytes) cannot be "
        f"read: {what}; check that base_url is that of a SIE router or worker",
        code=ErrorCode.INTERNAL_ERROR,
        status_code=answer.status,
        request_id=answer.headers.get(REQUEST_ID.lower()),
    )


def incomplete(answer: Answer, what: str) -> IncompleteBatchError:
    """The error of an answer about other items than those that were sent."""
    return IncompleteBatchError(
        f"the server answered with {what}; this is a fault of the server, no result was kept",
        code="INCOMPLETE_BATCH",
        status_code=answer.status,
        request_id=answer.headers.get(REQUEST_ID.lower()),
    )
