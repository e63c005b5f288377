"""Answers that the router gives itself."""

from typing import Any, Final

import msgspec

from sie_protocol.compat import compat_body
from sie_protocol.errors import ErrorCode, Problem, envelope
from sie_protocol.headers import JSON, RETRY_AFTER
from sie_protocol.versions import dialect_for, envelope_for
from sie_router.core.route import Provision

ACCEPTED: Final = 202
LONG_S: Final = 600.0  # a node, its images and a model take less; from here on something may be missing


class Answer(msgspec.Struct, frozen=True):
    """A whole response."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


def refusal(problem: Problem, more: dict[str, Any] | None = None, *, sdk_version: str | None = None) -> Answer:
    """A problem in the one envelope; `more` are further top-level keys of its body."""
    shape = envelope_for(problem, sdk_version)
    body = msgspec.json.encode({**shape.body, **(more or {})})
    return Answer(shape.status, _headers(body, shape.headers), body)


def compat_refusal(problem: Problem) -> Answer:
    """A problem as the clients of other services read it."""
    shape = envelope(problem)
    body = msgspec.json.encode(compat_body(problem))
    return Answer(shape.status, _headers(body, shape.headers), body)


def provisioning(
    decision: Provision, sdk_version: str | None, retry_after_s: int, estimated_wait_s: int, waited_s: float
) -> Answer:
    """Say "come back later, a worker is being started" as this generation of clients wants to hear it.

    `waited_s`: for how long somebody has been asking for it.
    """
    message = _provisioning_message(decision, retry_after_s, waited_s)
    facts = {
        "status": "provisioning",
        "gpu": decision.group.profile,
        "estimated_wait_s": estimated_wait_s,
        "waited_s": round(waited_s),
        "message": message,
    }
    if dialect_for(sdk_version).provisioning_status != ACCEPTED:
        return refusal(Problem(ErrorCode.PROVISIONING, message, retry_after_s=retry_after_s), facts)
    body = msgspec.json.encode(facts)
    return Answer(ACCEPTED, _headers(body, ((RETRY_AFTER, str(retry_after_s)),)), body)


def compat_provisioning(decision: Provision, retry_after_s: int, waited_s: float) -> Answer:
    """The same for clients of other services, which know no 202."""
    message = _provisioning_message(decision, retry_after_s, waited_s)
    return compat_refusal(Problem(ErrorCode.PROVISIONING, message, retry_after_s=retry_after_s))


def _provisioning_message(decision: Provision, retry_after_s: int, waited_s: float) -> str:
    group = decision.group
    where = f"machine profile '{group.profile}'" if group.profile else f"bundle '{group.bundle}'"
    state = "one is being provisioned" if decision.is_configured else "the router waits for one to connect"
    if waited_s >= LONG_S:
        state = f"none has come for {waited_s / 60:.0f} minutes: machines, quota or an image may be missing"
    if decision.reserved:
        # Whether there may be more workers of the group is for the autoscaler to know.
        state = f"all {decision.reserved} that are there are reserved by resource pools; if there may be more, {state}"
    return f"no worker of {where} can serve '{decision.model_id}' yet, {state}; try again in {retry_after_s} s"


def _headers(body: bytes, more: tuple[tuple[str, str], ...]) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-type", JSON.encode()),
        (b"content-length", b"%d" % len(body)),
        *((name.lower().encode(), value.encode()) for name, value in more),
    ]
