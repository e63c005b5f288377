"""Answers on their way: in pieces as the client reads, bounded in all, and not for a client that has stopped."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gated_adapter import until
from served_worker import served, write_catalog
from sie_protocol.headers import JSON
from sie_server.api.body import ClientGoneError
from sie_server.api.tasks import PIECE_BYTES, send_answer
from wire_answers import code_of

M = "org/hash"
BODY = json.dumps({"items": [{"text": "x"}]}).encode()


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
async def test_the_pieces_are_the_answer(size: int) -> None:
    payload = bytes(at % 251 for at in range(size))
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await send_answer(send, JSON, payload, ())
    assert dict(sent[0]["headers"])[b"content-length"] == str(size).encode()
    assert b"".join(each["body"] for each in sent[1:]) == payload
    assert [each["more_body"] for each in sent[1:]] == [True] * (len(sent) - 2) + [False]


async def test_a_client_that_takes_nothing_is_given_up() -> None:
    taken = 0

    async def send(message: Mapping[str, Any]) -> None:
        nonlocal taken
        taken += len(message.get("body", b""))
        if taken > PIECE_BYTES:
            await asyncio.Event().wait()

    with pytest.raises(ClientGoneError):
        await send_answer(send, JSON, b"x" * 10 * PIECE_BYTES, (), pause_s=0.001)
    assert taken == 2 * PIECE_BYTES


async def test_a_client_that_reads_slowly_gets_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, pause_s, taken = asyncio.get_running_loop(), 100.0, 0
    now = began = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now)

    async def send(message: Mapping[str, Any]) -> None:
        nonlocal taken, now
        now += 0.9 * pause_s * (message["type"] == "http.response.body")
        for _ in range(3):  # whatever is due by now happens
            await asyncio.sleep(0)
        taken += len(message.get("body", b""))

    await send_answer(send, JSON, b"x" * 10 * PIECE_BYTES, (), pause_s)
    assert taken == 10 * PIECE_BYTES
    assert now - began > 8 * pause_s


async def test_an_answer_in_one_piece_needs_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, timers = asyncio.get_running_loop(), list[float]()
    call_at = loop.call_at

    def counted(when: float, *args: Any, **more: Any) -> asyncio.TimerHandle:
        timers.append(when)
        return call_at(when, *args, **more)

    async def send(_: Any) -> None:
        pass

    monkeypatch.setattr(loop, "call_at", counted)
    await send_answer(send, JSON, b"x" * PIECE_BYTES, ())
    assert len(timers) == 1


async def test_answers_share_their_room_and_give_it_back(tmp_path: Path) -> None:
    async with served(write_catalog(tmp_path, {M: {}}), max_held_answer_bytes=500) as worker:
        await worker.encode(M, "warm")
        may_read, begun = asyncio.Event(), asyncio.Event()
        requests = iter([{"type": "http.request", "body": BODY}])

        async def receive() -> Any:
            if (message := next(requests, None)) is None:
                await asyncio.Event().wait()
            return message

        async def send(message: Any) -> None:  # noqa: ARG001 - a client that does not read yet
            begun.set()
            await may_read.wait()

        path = f"/v1/encode/{M}"
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(b"accept", JSON.encode())],
        }
        slow = asyncio.ensure_future(worker.worker.app(scope, receive, send))
        await until(begun.is_set)
        refused = await worker.encode(M, "x")
        assert (code_of(refused), refused.headers["retry-after"]) == ("QUEUE_FULL", "1")
        assert "bytes of answers" in refused.text
        metrics = (await worker.http.get("/metrics")).text
        assert f'sie_requests_total{{code="503",endpoint="encode",model="{M}",status="queue_full"}} 1.0' in metrics
        may_read.set()
        await slow
        assert (await worker.encode(M, "x")).status_code == 200
