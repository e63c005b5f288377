"""Both clients behind one blocking face, so that each test of behaviour runs against both."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import aclosing, closing
from itertools import islice
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from sdk_virtual_time import VirtualTime
from sie_sdk import SIEAsyncClient, SIEClient
from sie_sdk.errors import SIEError
from sie_sdk.types import (
    CapacityInfo,
    EncodeResult,
    ExtractResult,
    Item,
    ModelInfo,
    PoolInfo,
    PoolListItem,
    ScoreResult,
    StatusFrame,
)

T = TypeVar("T")
WITHIN_S = 60.0  # only against hanging: a busy machine may stand still for seconds


class BlockingClient(Protocol):
    """What the tests call."""

    def encode(self, model: str, items: Item, **arguments: Any) -> EncodeResult: ...
    def encode_all(self, model: str, items: list[Item], **arguments: Any) -> list[EncodeResult]: ...
    def score(self, model: str, query: Item, items: list[Item], **arguments: Any) -> ScoreResult: ...
    def extract(self, model: str, items: Item, **arguments: Any) -> ExtractResult: ...
    def extract_all(self, model: str, items: list[Item], **arguments: Any) -> list[ExtractResult]: ...
    def list_models(self) -> list[ModelInfo]: ...
    def get_model(self, model: str) -> ModelInfo: ...
    def get_capacity(self, *, gpu: str | None = None) -> CapacityInfo: ...
    def wait_for_capacity(self, gpu: str, **arguments: Any) -> CapacityInfo: ...
    def create_pool(self, name: str, gpus: dict[str, int], **arguments: Any) -> PoolInfo: ...
    def get_pool(self, name: str | None = None) -> PoolInfo | None: ...
    def list_pools(self) -> list[PoolListItem]: ...
    def delete_pool(self, name: str | None = None) -> bool: ...
    @property
    def lease_failures(self) -> Mapping[str, SIEError]: ...
    def watch_some(self, count: int, **arguments: Any) -> list[StatusFrame]: ...
    def idle(self, until: Callable[[], object]) -> None: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


Open = Callable[..., BlockingClient]


class Threaded(SIEClient):
    """The blocking client; only the list forms get names of their own. With `virtual` its waits take no time."""

    def __init__(self, *arguments: Any, virtual: VirtualTime | None = None, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        if virtual is not None:
            self._link.clock = virtual.of_threads()

    def encode_all(self, model: str, items: list[Item], **arguments: Any) -> list[EncodeResult]:
        return self.encode(model, items, **arguments)

    def extract_all(self, model: str, items: list[Item], **arguments: Any) -> list[ExtractResult]:
        return self.extract(model, items, **arguments)

    def watch_some(self, count: int, **arguments: Any) -> list[StatusFrame]:
        with closing(self.watch(**arguments)) as frames:
            return list(islice(frames, count))

    def idle(self, until: Callable[[], object]) -> None:
        """Let the client's background work go on until something is true."""
        deadline = time.monotonic() + WITHIN_S
        while not until():
            assert time.monotonic() < deadline, f"{until} was not true within {WITHIN_S} s"
            time.sleep(0.01)


class OnALoop:
    """The asyncio client with a loop of its own. With `virtual` its waits take no time."""

    def __init__(self, *arguments: Any, virtual: VirtualTime | None = None, **settings: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = SIEAsyncClient(*arguments, **settings)
        if virtual is not None:
            self._client._link.clock = virtual.of_tasks()

    def encode(self, model: str, items: Item, **arguments: Any) -> EncodeResult:
        return self._run(self._client.encode(model, items, **arguments))

    def encode_all(self, model: str, items: list[Item], **arguments: Any) -> list[EncodeResult]:
        return self._run(self._client.encode(model, items, **arguments))

    def score(self, model: str, query: Item, items: list[Item], **arguments: Any) -> ScoreResult:
        return self._run(self._client.score(model, query, items, **arguments))

    def extract(self, model: str, items: Item, **arguments: Any) -> ExtractResult:
        return self._run(self._client.extract(model, items, **arguments))

    def extract_all(self, model: str, items: list[Item], **arguments: Any) -> list[ExtractResult]:
        return self._run(self._client.extract(model, items, **arguments))

    def list_models(self) -> list[ModelInfo]:
        return self._run(self._client.list_models())

    def get_model(self, model: str) -> ModelInfo:
        return self._run(self._client.get_model(model))

    def get_capacity(self, *, gpu: str | None = None) -> CapacityInfo:
        return self._run(self._client.get_capacity(gpu=gpu))

    def wait_for_capacity(self, gpu: str, **arguments: Any) -> CapacityInfo:
        return self._run(self._client.wait_for_capacity(gpu, **arguments))

    def create_pool(self, name: str, gpus: dict[str, int], **arguments: Any) -> PoolInfo:
        return self._run(self._client.create_pool(name, gpus, **arguments))

    def get_pool(self, name: str | None = None) -> PoolInfo | None:
        return self._run(self._client.get_pool(name))

    def list_pools(self) -> list[PoolListItem]:
        return self._run(self._client.list_pools())

    def delete_pool(self, name: str | None = None) -> bool:
        return self._run(self._client.delete_pool(name))

    @property
    def lease_failures(self) -> Mapping[str, SIEError]:
        return self._client.lease_failures

    def watch_some(self, count: int, **arguments: Any) -> list[StatusFrame]:
        async def some() -> list[StatusFrame]:
            found: list[StatusFrame] = []
            async with aclosing(self._client.watch(**arguments)) as frames:
                async for frame in frames:
                    found.append(frame)
                    if len(found) == count:
                        break
            return found

        return self._run(some())

    def idle(self, until: Callable[[], object]) -> None:
        async def wait() -> None:
            async with asyncio.timeout(WITHIN_S):
                while not until():  # noqa: ASYNC110 - what is waited for is in another process or thread
                    await asyncio.sleep(0.01)

        self._run(wait())

    def close(self) -> None:
        self._run(self._client.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        assert self._run(_tasks()) == 1, "a task is left"
        self._runner.close()

    def __repr__(self) -> str:
        return repr(self._client)

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(call)


async def _tasks() -> int:
    return len(asyncio.all_tasks())
