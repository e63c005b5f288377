"""Both clients behind one blocking face, so that each test of behaviour runs against both."""

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from sie_sdk import SIEAsyncClient, SIEClient
from sie_sdk.types import CapacityInfo, EncodeResult, ExtractResult, Item, ModelInfo, ScoreResult

T = TypeVar("T")


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
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


Open = Callable[..., BlockingClient]


class Threaded(SIEClient):
    """The blocking client; only the list forms get names of their own."""

    def encode_all(self, model: str, items: list[Item], **arguments: Any) -> list[EncodeResult]:
        return self.encode(model, items, **arguments)

    def extract_all(self, model: str, items: list[Item], **arguments: Any) -> list[ExtractResult]:
        return self.extract(model, items, **arguments)


class OnALoop:
    """The asyncio client with a loop of its own."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = SIEAsyncClient(*arguments, **settings)

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
