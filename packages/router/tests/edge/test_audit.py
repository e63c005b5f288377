import io
import json

import msgspec

from router_builders import L4
from sie_router.data.outcome import Outcome
from sie_router.edge.audit import AuditLog

OUTCOME = Outcome(
    operation="encode",
    method="POST",
    status=200,
    model="a\nb",
    pool="",
    profile="l4",
    group=L4,
    worker="w",
    latency_s=0.0123456,
    body_bytes=2,
    request_id="r-1",
    caller="c0ffee",
    provisioning=False,
    retries=1,
    held_s=0.5,
)
FIELDS = {
    "event": "inference",
    "method": "POST",
    "endpoint": "encode",
    "status": 200,
    "model": "a\nb",
    "pool": "",
    "profile": "l4",
    "worker": "w",
    "retries": 1,
    "held_ms": 500.0,
    "latency_ms": 12.35,
    "body_bytes": 2,
    "request_id": "r-1",
    "caller": "c0ffee",
}


def written(outcome: Outcome, *, json_lines: bool) -> str:
    lines = io.StringIO()
    AuditLog(lines, lambda: 1000.5, json_lines).write(outcome)
    return lines.getvalue()


def test_a_json_record_has_every_field() -> None:
    line = json.loads(written(OUTCOME, json_lines=True))
    head = {"timestamp": 1000.5, "level": "INFO", "logger": "sie_router.audit", "message": "inference"}
    assert line == head | FIELDS


def test_a_text_record_is_one_line_whatever_callers_send() -> None:
    line = written(OUTCOME, json_lines=False)
    assert line.count("\n") == 1
    assert msgspec.json.decode(line[line.index("{") :]) == FIELDS
    assert ",500 INFO sie_router.audit " in line
