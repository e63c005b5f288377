"""What the API asks of the worker. Knows models, queues and the device; nothing of HTTP."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from sie_protocol.catalog import DEFAULT_PROFILE, ModelConfig
from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.items import EncodeParams, Item, ModelInfo
from sie_protocol.status import GpuStatus, ModelStatus
from sie_server.adapters.base import Adapter, LoadError
from sie_server.adapters.registry import find
from sie_server.core.batching import Limits
from sie_server.core.options import EncodeOptions, no_such_task, resolve_encode
from sie_server.engine.device import Device
from sie_server.engine.loop import BatchRecord, Clock, ModelLoop, Ports, QueueLimits, Row
from sie_server.engine.models import Models, Slot, spec_of
from sie_server.engine.pipeline import Pipeline
from sie_server.engine.quantize import Finished, finish
from sie_server.engine.signal import Signal

# On padding devices a batch prefers texts of similar length, but not at the price of more than this much waiting.
PATIENCE_S = 0.05


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """Bounds that hold for every model. `cpu_batch_tokens` keeps a batch's activations inside the CPU's cache."""

    max_batch_items: int
    cpu_batch_tokens: int
    max_text_chars: int
    queue: QueueLimits


@dataclass(frozen=True, slots=True)
class EnginePorts:
    """What the engine needs of the outside: the time, the memory of its device, somebody to tell of each batch."""

    clock: Clock
    memory: Callable[[str], tuple[GpuStatus, ...]]
    record: Callable[[BatchRecord], None]


@dataclass(frozen=True, slots=True)
class Encoded:
    """One encode answer: per item its outputs, how many components each has, and what it cost. Times in seconds."""

    model: str
    rows: Sequence[Mapping[str, Finished]]
    dims: Mapping[str, int]
    options: EncodeOptions
    queue_s: float
    tokenization_s: float
    inference_s: float
    input_tokens: int
    truncated_items: int


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
        self._pipeline = pipeline
        self._limits = limits
        self._memory = ports.memory
        self._queue_ports = Ports(ports.clock, self.changed.notify, ports.record)
        self._models = Models(models, self._load, self._open_loop, clock=ports.clock, changed=self.changed.notify)

    async def encode(self, name: str, items: Sequence[Item], params: EncodeParams) -> Encoded:
        """Encode the items of one request; cancelling it drops what has not started.

        Raises:
            Problem: any refusal of an encode call.
        """
        slot = self.lookup(name)
        options = resolve_encode(slot.model, params)
        texts = [options.prompt.apply(self._text(slot.model, at, item)) for at, item in enumerate(items)]
        if not texts:
            raise Problem(ErrorCode.INVALID_INPUT, "items is empty; send at least one item")
        loop = self._models.ready(slot)
        with loop.admit(len(texts)):
            prepared, tokenization_s = await self._pipeline.prepare(loop.adapter, texts, is_query=options.is_query)
            answer = await loop.submit(prepared)
            work = partial(_finish, answer.rows, options)
            # What adapters compute in already needs no work, and so no thread.
            rows = work() if options.output_dtype == "float32" else await self._pipeline.run(work)
        return Encoded(
            model=slot.model.sie_id,
            rows=rows,
            dims=slot.model.dims,
            options=options,
            queue_s=answer.queue_s,
            tokenization_s=tokenization_s,
            inference_s=answer.inference_s,
            input_tokens=sum(item.tokens for item in prepared),
            truncated_items=sum(item.truncated for item in prepared),
        )

    def lookup(self, name: str) -> Slot:
        """The model a request names.

        Raises:
            Problem: SHUTTING_DOWN, MODEL_NOT_FOUND.
        """
        if self.draining:
            raise Problem(ErrorCode.SHUTTING_DOWN, "this worker is shutting down; send the request to another one")
        return self._models.find(name)

    def refuse(self, name: str, task: str) -> Problem:
        """Why a model does not do a task."""
        return no_such_task(self.lookup(name).model, task)

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

    def _text(self, model: ModelConfig, at: int, item: Item) -> str:
        text = item.get("text")
        if item.get("images"):
            message = f"item {at} has images, but model '{model.sie_id}' reads text only"
            raise Problem(ErrorCode.INVALID_INPUT, message)
        if text is None:
            raise Problem(ErrorCode.INVALID_INPUT, f"item {at} has no text, which model '{model.sie_id}' needs")
        if len(text) > self._limits.max_text_chars:
            message = f"the text of item {at} has {len(text)} characters, the limit is {self._limits.max_text_chars}"
            raise Problem(ErrorCode.INPUT_TOO_LONG, message)
        return text

    def _load(self, model: ModelConfig) -> Adapter:
        adapter = find(model.profiles[DEFAULT_PROFILE].adapter, self._adapters)(spec_of(model))
        adapter.load(self._device.kind)
        return adapter

    def _open_loop(self, model: ModelConfig, adapter: Adapter) -> ModelLoop:
        tokens = model.profiles[DEFAULT_PROFILE].max_batch_tokens
        if self._device.kind == "cpu":
            tokens = min(tokens, self._limits.cpu_batch_tokens)
        patience_s = PATIENCE_S if adapter.capabilities.pads else 0.0
        return ModelLoop(
            model.sie_id,
            adapter,
            self._device,
            Limits(tokens, self._limits.max_batch_items, patience_s),
            self._limits.queue,
            self._queue_ports,
        )


def _finish(rows: Sequence[Row], options: EncodeOptions) -> list[dict[str, Finished]]:
    return [{kind: finish(row[kind], options.output_dtype) for kind in options.output_types} for row in rows]


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
