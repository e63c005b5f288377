"""What became of one request: the one record that the audit log and the metrics are made of."""

import msgspec

from sie_router.core.fleet import Group

CLIENT_GONE = 499  # nobody was there to read a status; the number nginx made customary
CUT_SHORT = 502  # the answer had begun and was cut


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One finished request. Names are as the caller or the worker spelled them; `group` holds bounded label values.

    `caller` is the short id of a token, empty without one. `provisioning` is true when the answer was "come back later,
    a worker is being started". `retries` are tries after the first, `parked_s` the time it waited at will.
    """

    operation: str
    method: str
    status: int
    model: str
    pool: str
    profile: str
    group: Group
    worker: str
    latency_s: float
    body_bytes: int
    request_id: str
    caller: str
    provisioning: bool
    retries: int
    parked_s: float
