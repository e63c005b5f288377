"""The headers of an answer: what goes on from a worker's reply, and what every answer has."""

from typing import Final

from sie_protocol.headers import PREFERENCE_APPLIED, REQUEST_ID, SERVER_VERSION, WAIT, WORKER
from sie_router.data.call import Call
from sie_router.data.incoming import HOP_BY_HOP, RawHeaders, without_named

_REQUEST_ID: Final = REQUEST_ID.lower().encode()
_WORKER: Final = WORKER.lower().encode()
_WAIT: Final = WAIT.lower().encode()
_PREFERENCE_APPLIED: Final = PREFERENCE_APPLIED.lower().encode()
# The router's own server writes the date, and exactly one version stands on an answer: the router's.
_DROPPED: Final = HOP_BY_HOP | {SERVER_VERSION.lower().encode(), _WORKER, _REQUEST_ID, b"date", b"server"}


def passed_on(call: Call, headers: RawHeaders) -> RawHeaders:
    """The headers of a worker's reply that go on to the client, and the router's own."""
    kept: RawHeaders = []
    connection = b""
    for header in headers:
        if header[0] not in _DROPPED:
            kept.append(header)
        elif header[0] == b"connection":
            connection = header[1]
    if connection:
        kept = without_named(kept, connection)
    kept.append((_WORKER, call.worker.encode()))
    kept.extend(own(call))
    return kept


def own(call: Call) -> RawHeaders:
    """What stands on every answer to a call, whoever gives it."""
    headers: RawHeaders = []
    if call.request_id:
        headers.append((_REQUEST_ID, call.request_id))
    if call.applied_wait_s:
        headers.append((_PREFERENCE_APPLIED, b"wait=%d" % call.applied_wait_s))
    if call.offered_wait_s:
        headers.append((_WAIT, b"%d" % call.offered_wait_s))
    return headers
