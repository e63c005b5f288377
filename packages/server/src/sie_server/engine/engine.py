"""The models of one worker and the way of a request through them. Knows no task and nothing of HTTP."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Final

from sie_protocol.catalog import DEFAULT_PROFILE, ModelConfig
from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.items import ModelInfo
from sie_protocol.status import GpuStatus, ModelStatus
from sie_server.adapters.base import (
    Adapter,
    Input,
    LoadError,
    ReadsTokens,
    UnsupportedInputError,
    WeightsSource,
)
from sie_server.adapters.registry import find
from sie_server.core.batching import Limits
from sie_server.core.lifecycle import ErrorClass
from sie_server.core.options import invalid
from sie_server.engine.admission import Admitted, Wants, admitted
from sie_server.engine.device import Device
from sie_server.engine.loading import load
from sie_server.engine.loop import BatchRecord, Clock, ModelLoop, Ports, QueueLimits, Row
from sie_server.engine.models import Models, Slot, spec_of
from sie_server.engine.pipeline import Pipeline
from sie_server.engine.results import Cost
from sie_server.engine.signal import Signal
from sie_server.weights.store import Hold, local_only

# On padding devices a batch prefers texts of similar length, but not at the price of more than this much waiting.
PATIENCE_S = 0.05
# Outputs of an adapter, one of which each of these tasks needs; encode is checked by the dimensions of its vectors.
TASK_OUTPUTS: Final = MappingProxyType(
    {"score": frozenset({"score"}), "extract": frozenset({"entities", "classifications"})}
)

EVERYTHING: Final = Wants()

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """Bounds that hold for every model. `cpu_batch_tokens` keeps a batch's activations inside the CPU's cache.

    `score_vector_bytes`: token vectors of one score request that exist at a time; a thousand long documents have many
    times as many.
    """

    max_batch_items: int
    cpu_batch_tokens: int
    max_text_chars: int
    queue: QueueLimits
    score_vector_bytes: int = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Ran:
    """What a request's inputs came to: a row for each, in order, and the cost of all."""

    rows: Sequence[Row]
    cost: Cost


@dataclass(frozen=True, slots=True)
class EnginePorts:
    """What the engine needs of the outside: the time, the memory of its device, somebody to tell of each batch.

    `hold` blocks until a model's files are in a folder, and keeps them there.
    """

    clock: Clock
    memory: Callable[[str], tuple[GpuStatus, ...]]
    record: Callable[[BatchRecord], None]
    hold: Callable[[WeightsSource], Hold] = local_only


class Engine:
    """The models of one worker behind one face. Lives on one event loop."""

    def __init__(
        self,
        models: Mapping[str, ModelConfig],
        adapters: Mapping[str, str],
        device: Device,
        pipeline: Pipeline,
        limits: EngineLimits,
        ports: EnginePorts,
    ) -> None:
        self.changed = Signal()
        self.draining = False
        self._adapters = adapters
        self._device = device
        self.pipeline = pipeline
        self.limits = limits
        self._memory = ports.memory
        self._hold = ports.hold
        self._queue_ports = Ports(ports.clock, self.changed.notify, ports.record)
        self._models = Models(models, self._load, self._open_loop, clock=ports.clock, changed=self.changed.notify)

    async def run(
        self, slot: Slot, inputs: Sequence[Input], *, is_query: bool = False, wants: Wants = EVERYTHING
    ) -> Ran:
        """One request's inputs through tokenizer and device; cancelling it drops what has not started.

        Raises:
            Problem: INVALID_INPUT, INPUT_TOO_LONG, MODEL_LOADING, MODEL_LOAD_FAILED, or any refusal of the queue.
        """
        async with self.admitted(slot, inputs, wants, is_query=is_query) as ready:
            rows = await ready.rows(ready.prepared)
            return Ran(rows, ready.cost())

    def admitted(
        self,
        slot: Slot,
        inputs: Sequence[Input],
        wants: Wants,
        *,
        is_query: bool = False,
        query: Input | None = None,
    ) -> AbstractAsyncContextManager[Admitted]:
        """The first half of `run`, for who wants the rows piece by piece; `query` is one more input, in front.

        Raises:
            Problem: as `run`.
        """
        loop = self._models.ready(slot)
        return admitted(loop, self.pipeline, inputs, wants, is_query=is_query, query=query)

    async def texts_of(self, name: str, tokens: Sequence[Sequence[int]]) -> list[str]:
        """The texts of lists of token ids of a model's own tokenizer.

        Raises:
            Problem: INVALID_INPUT when the model has no tokenizer or no such token; else as `encode`.
        """
        slot = self.lookup(name)
        adapter = self._models.ready(slot).adapter
        if not isinstance(adapter, ReadsTokens):
            raise invalid(f"model '{slot.model.sie_id}' cannot read token ids; send text")
        try:
            return await self.pipeline.run(partial(adapter.texts_of, tokens))
        except UnsupportedInputError as error:
            raise invalid(f"model '{slot.model.sie_id}': {error}") from error

    def lookup(self, name: str) -> Slot:
        """The model a request names.

        Raises:
            Problem: SHUTTING_DOWN, MODEL_NOT_FOUND.
        """
        if self.draining:
            raise Problem(ErrorCode.SHUTTING_DOWN, "this worker is shutting down; send the request to another one")
        return self._models.find(name)

    def info(self) -> list[ModelInfo]:
        """Every model of this worker."""
        return [_info(slot) for slot in self._models.slots]

    def info_of(self, name: str) -> ModelInfo:
        """One model.

        Raises:
            Problem: MODEL_NOT_FOUND.
        """
        return _info(self._models.find(name))

    def statuses(self) -> tuple[ModelStatus, ...]:
        """Every model that is more than available."""
        return tuple(
            ModelStatus(name=slot.model.sie_id, state=str(slot.state), queue_depth=slot.loop.depth if slot.loop else 0)
            for slot in self._models.slots
            if slot.state != "available"
        )

    def gpus(self) -> tuple[GpuStatus, ...]:
        """The accelerators of this worker."""
        return self._memory(self._device.kind)

    def drain(self) -> None:
        """Refuse new requests from now on; accepted ones are finished."""
        self.draining = True
        self.changed.notify()

    async def idle(self) -> None:
        """Return once every accepted item is answered."""
        while any(status.queue_depth for status in self.statuses()):
            await self.changed.changed(self.changed.version)

    async def warm(self) -> None:
        """Import what the models' adapters need, so that the first load does not wait for it."""
        names = {slot.model.profiles[DEFAULT_PROFILE].adapter for slot in self._models.slots}
        for name in sorted(names & set(self._adapters)):
            try:
                await asyncio.to_thread(find, name, self._adapters)
            except LoadError as error:
                log.warning("models of adapter '%s' will not load: %s", name, error)

    async def close(self) -> None:
        """Refuse what waits, finish what runs, drop all weights."""
        await self._models.close()

    def _load(self, model: ModelConfig) -> Adapter:
        name = model.profiles[DEFAULT_PROFILE].adapter
        adapter = load(find(name, self._adapters), spec_of(model), self._hold, self._device.kind)
        _check_tasks(model, adapter)
        return adapter

    def _open_loop(self, model: ModelConfig, adapter: Adapter) -> ModelLoop:
        tokens = model.profiles[DEFAULT_PROFILE].max_batch_tokens
        if self._device.kind == "cpu":
            tokens = min(tokens, self.limits.cpu_batch_tokens)
        patience_s = PATIENCE_S if adapter.capabilities.pads else 0.0
        return ModelLoop(
            model.sie_id,
            adapter,
            self._device,
            Limits(tokens, self.limits.max_batch_items, patience_s),
            self.limits.queue,
            self._queue_ports,
        )


def _check_tasks(model: ModelConfig, adapter: Adapter) -> None:
    """Refuse a catalogue entry that promises a task which its adapter does not do."""
    for task, outputs in TASK_OUTPUTS.items():
        if getattr(model.tasks, task) is not None and not outputs & adapter.capabilities.outputs:
            name = model.profiles[DEFAULT_PROFILE].adapter
            message = f"the catalogue gives the model a task '{task}', adapter '{name}' has none"
            raise LoadError(ErrorClass.UNKNOWN, message)


def _info(slot: Slot) -> ModelInfo:
    model, failure = slot.model, slot.failure
    kinds = (("text", model.inputs.text), ("image", model.inputs.image))
    return ModelInfo(
        name=model.sie_id,
        inputs=[kind for kind, is_read in kinds if is_read],
        outputs=list(model.outputs),
        dims=model.dims,
        loaded=slot.loop is not None,
        state=str(slot.state),
        last_error=None
        if failure is None
        else {
            "code": str(ErrorCode.MODEL_LOAD_FAILED),
            "error_class": str(failure.error_class),
            "message": failure.message,
            "attempts": failure.attempts,
            "permanent": failure.permanent,
        },
        max_sequence_length=model.max_sequence_length,
        profiles={name: {"is_default": name == DEFAULT_PROFILE} for name in sorted(model.profiles)},
    )
