import asyncio
import threading

import pytest

from sie_server.engine.threads import NoThreadError, in_thread

WAIT_S = 60.0


async def test_what_came_just_as_the_wait_ended_is_given_back() -> None:
    given: list[str] = []
    is_given = threading.Event()

    def late(value: str) -> None:
        given.append(value)
        is_given.set()

    def ended() -> None:  # the cancellation comes after the result, and before whoever waits has it
        asyncio.get_running_loop().call_soon(waiting.cancel)

    waiting = asyncio.create_task(in_thread(lambda: "weights", late=late, ended=ended))
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.to_thread(is_given.wait, WAIT_S)
    assert given == ["weights"]


async def test_work_that_cannot_begin_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    ended: list[bool] = []
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(NoThreadError, match="can't start"):
        await in_thread(lambda: "weights", ended=lambda: ended.append(True))
    assert ended == [True]
