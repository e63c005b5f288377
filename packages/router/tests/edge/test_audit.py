import json
from collections.abc import Callable

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

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
    parked_s=0.5,
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


def written(*outcomes: Outcome, json_lines: bool) -> list[bytes]:
    """What is written, write by write, once all of them happened."""
    turns: list[Callable[[], None]] = []
    lines = Written()
    log = AuditLog(lines, lambda: 1000.5, json_lines, turns.append)
    for outcome in outcomes:
        log.write(outcome)
    assert not lines.writes
    for turn in (*turns, log.flush):  # whichever comes first leaves nothing to the other
        turn()
    return lines.writes


class Written:
    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def flush(self) -> None:
        pass


def test_a_json_record_has_every_field() -> None:
    (data,) = written(OUTCOME, json_lines=True)
    line = json.loads(data)
    head = {"timestamp": 1000.5, "level": "INFO", "logger": "sie_router.audit", "message": "inference"}
    assert line == head | FIELDS


def test_a_text_record_is_one_line_whatever_callers_send() -> None:
    (line,) = written(OUTCOME, json_lines=False)
    assert line.count(b"\n") == 1
    assert msgspec.json.decode(line[line.index(b"{") :]) == FIELDS
    assert b",500 INFO sie_router.audit " in line


def test_at_the_end_nothing_waits_for_its_turn() -> None:
    lines = Written()
    log = AuditLog(lines, lambda: 1000.5, True, lambda _: None)
    log.flush()
    assert not lines.writes
    log.write(OUTCOME)
    log.flush()
    assert [data.count(b"\n") for data in lines.writes] == [1]


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1), st.booleans())
def test_records_of_one_turn_leave_in_one_write_and_in_order(models: list[str], json_lines: bool) -> None:
    (data,) = written(*(replace(OUTCOME, model=model) for model in models), json_lines=json_lines)
    assert [json.loads(line[line.index(b"{") :])["model"] for line in data.splitlines()] == models
