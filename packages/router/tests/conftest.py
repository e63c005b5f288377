from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from router_fakes import FakeWorker, Script, obey
from sie_protocol.status import WorkerStatus

MakeWorker = Callable[..., Awaitable[FakeWorker]]


@pytest.fixture
async def make_worker() -> AsyncIterator[MakeWorker]:
    made: list[FakeWorker] = []

    async def make(frame: WorkerStatus, script: Script = obey) -> FakeWorker:
        worker = await FakeWorker(frame, script).start()
        made.append(worker)
        return worker

    yield make
    for worker in made:
        await worker.close()
