"""The models of one worker and the way of a request through them. Knows no task and nothing of HTTP."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from sie_protocol.catalog import DEFAULT_PROFILE, ModelConfig
from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.items import ModelInfo
from sie_protocol.status import GpuStatus, ModelStatus
from sie_server.adapters.base import (
    Adapter,
    Input,
    LabelledPicture,
    LoadError,
    ModelSpec,
    Picture,
    ReadsTokens,
    RunsInSteps,
    UnsupportedInputError,
)
from sie_server.adapters.registry import find
from sie_server.core.batching import Limits
from sie_server.core.lifecycle import ErrorClass, State
from sie_server.core.memory import Reading
from sie_server.core.options import invalid
from sie_server.engine.admission import Admitted, Wants, admitted
from sie_server.engine.device import Device
from sie_server.engine.health import DeviceHealth, HealthLimits
from sie_server.engine.images import ReadImages, one_by_one
from sie_server.engine.info import model_info, model_statuses
from sie_server.engine.loading import Fetched, build
from sie_server.engine.loop import BatchRecord, Clock, ModelLoop, Ports, QueueLimits, Row
from sie_server.engine.loras import LoraLimits, Loras
from sie_server.engine.models import LoadPolicy, LoadPorts, Models
from sie_server.engine.pipeline import Pipeline
from sie_server.engine.recovery import OomEvent, RescuePorts
from sie_server.engine.residency import MemoryLimits, MemoryPorts, Residency
from sie_server.engine.results import Cost
from sie_server.engine.signal import Signal
from sie_server.engine.slots import Choice, Slot, Slots

# On padding devices a batch prefers texts of similar length, but not at the price of more than this much waiting.
PATIENCE_S = 0.05
# A batch that pads may be so many times its budget of tokens long with the padding; likeness in length does the rest.
PADDED_BUDGETS: Final = 2
# Outputs of an adapter, one of which each of these tasks needs; encode is checked by the dimensions of its vectors.
TASK_OUTPUTS: Final = MappingProxyType(
    {
        "score": frozenset({"score"}),
        "extract": frozenset({"entities", "classifications", "relations", "objects", "data"}),
    }
)

EVERYTHING: Final = Wants()

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """Bounds that hold for every model. `cpu_batch_tokens` keeps a batch's activations inside the CPU's cache.

    `max_loras` are those of one model. `score_vector_bytes`: token vectors of one score request that exist at a time; a
    thousand long documents have many times as many. `answer_vector_bytes`: those of one encode request, which all exist
    until they are sent. `max_request_pixels`: of all images of one request; a megapixel may take 40 ms to decode.
    """

    max_batch_items: int
    cpu_batch_tokens: int
    max_text_chars: int
    queue: QueueLimits
    memory: MemoryLimits = field(default_factory=MemoryLimits)
    load_policy: LoadPolicy = field(default_factory=LoadPolicy)
    health: HealthLimits = field(default_factory=HealthLimits)
    max_loras: int = 10
    score_vector_bytes: int = 256 * 1024 * 1024
    answer_vector_bytes: int = 512 * 1024 * 1024
    max_request_pixels: int = 512_000_000


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a request's inputs came to: a row for each, in order, and the cost of all."""

    rows: Sequence[Row]
    cost: Cost


def _no_files(spec: ModelSpec) -> Fetched:
    return Fetched(spec, 0)


@dataclass(frozen=True, slots=True)
class EnginePorts:
    """What the engine needs of the outside: time, chance, the device's memory and errors, somebody who counts.

    `fetch` brings a model's files here and says how much memory it will take; `self_test` has the device compute
    something and raises when it cannot; both block.
    """

    clock: Clock
    gpus: Callable[[str], tuple[GpuStatus, ...]]
    record: Callable[[BatchRecord], None]
    fetch: Callable[[ModelSpec], Fetched] = _no_files
    memory: MemoryPorts = field(default_factory=MemoryPorts)
    is_out_of_memory: Callable[[BaseException], bool] = lambda error: isinstance(error, MemoryError)
    self_test: Callable[[str], None] = lambda _: None
    on_oom: Callable[[str, OomEvent], None] = lambda _, __: None
    on_idle: Callable[[str], None] = lambda _: None
    draw: Callable[[], float] = lambda: 0.0


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
        self._ports = ports
        slots, clock = Slots(models, limits.load_policy.pinned), ports.clock
        residency = Residency(slots, limits.memory, ports.memory, clock, self.changed)
        load = LoadPorts(ports.fetch, self._build, self._open_loop)
        self._models = Models(
            slots, load, residency, limits.load_policy, clock=clock, changed=self.changed, on_idle=ports.on_idle
        )
        self._loras = Loras(
            ports.fetch,
            residency,
            LoraLimits(limits.max_loras, limits.load_policy.load_timeout_s),
            [slots.find(name, {}) for name in limits.load_policy.preload],
            clock=clock,
            changed=self.changed,
        )
        self._residency = residency
        self.health = DeviceHealth(device, ports.self_test, limits.health, clock, self.changed)
        rescue = RescuePorts(ports.is_out_of_memory, residency.clear, residency.evict_other, ports.on_oom)
        self._queue_ports = Ports(clock, self.changed.notify, self._on_batch, rescue, ports.draw)

    async def run(
        self, choice: Choice, inputs: Sequence[Input], *, is_query: bool = False, wants: Wants = EVERYTHING
    ) -> RunResult:
        """One request's inputs through tokenizer and device; cancelling it drops what has not started.

        Raises:
            Problem: INVALID_INPUT, INPUT_TOO_LONG, MODEL_LOADING, LORA_LOADING, MODEL_LOAD_FAILED, or any refusal of
                the queue.
        """
        async with self.admitted(choice, inputs, wants, is_query=is_query) as ready:
            rows = await ready.rows(ready.prepared)
            return RunResult(rows, ready.cost())

    async def run_images(self, choice: Choice, inputs: Mapping[int, Input]) -> ReadImages:
        """What one request's images came to: a few are decoded at a time, however many there are.

        Raises:
            Problem: as `run`; but an image that cannot be read has its refusal in its place.
        """
        await self._check_pixels(list(inputs.values()))
        loop = self._models.ready(choice.slot)
        read = await one_by_one(loop, self.pipeline, inputs)
        self._models.used(choice.slot)
        return read

    @asynccontextmanager
    async def admitted(
        self,
        choice: Choice,
        inputs: Sequence[Input],
        wants: Wants,
        *,
        is_query: bool = False,
        query: Input | None = None,
    ) -> AsyncIterator[Admitted]:
        """The first half of `run`, for who wants the rows piece by piece; `query` is one more input, in front.

        Raises:
            Problem: as `run`.
        """
        await self._check_pixels(inputs)
        loop = self._models.ready(choice.slot)  # no pause from here on until it is admitted: the model could leave
        with self._loras.held(choice) as loras:
            given = admitted(loop, self.pipeline, inputs, wants, is_query=is_query, query=query, loras=loras)
            async with given as ready:
                yield ready
                self._models.used(choice.slot)

    async def texts_of(self, name: str, tokens: Sequence[Sequence[int]]) -> list[str]:
        """The texts of lists of token ids of a model's own tokenizer.

        Raises:
            Problem: INVALID_INPUT when the model has no tokenizer or no such token; else as `encode`.
        """
        choice = self.lookup(name)
        adapter = self._models.ready(choice.slot).adapter
        if not isinstance(adapter, ReadsTokens):
            raise invalid(f"model '{choice.model.sie_id}' cannot read token ids; send text")
        try:
            return await self.pipeline.run(partial(adapter.texts_of, tokens))
        except UnsupportedInputError as error:
            raise invalid(f"model '{choice.model.sie_id}': {error}") from error

    def lookup(self, name: str, options: Mapping[str, Any] = MappingProxyType({})) -> Choice:
        """The model and profile that a request means by its name (`model` or `model:profile`) and `options.profile`.

        Raises:
            Problem: SHUTTING_DOWN, MODEL_NOT_FOUND, INVALID_INPUT.
        """
        if self.draining:
            raise Problem(ErrorCode.SHUTTING_DOWN, "this worker is shutting down; send the request to another one")
        return self._models.find(name, options)

    @property
    def unready(self) -> str | None:
        """Why this worker should get no requests now; None when it should."""
        if self.draining:
            return "shutting down"
        if self.health.problem is not None:
            return f"the device does not work: {self.health.problem}"
        waits_for = [*self._models.preloading, *self._loras.preloading]
        return f"loading {', '.join(waits_for)}" if waits_for else None

    def info(self) -> list[ModelInfo]:
        """Every model of this worker, with its profiles."""
        return [self.info_of(name) for name in self._models.slots.models]

    def info_of(self, name: str) -> ModelInfo:
        """One model, or one profile of it.

        Raises:
            Problem: MODEL_NOT_FOUND.
        """
        choice = self._models.find(name, {})
        return model_info(self._models.slots, choice)

    def statuses(self) -> tuple[ModelStatus, ...]:
        """Every model that is more than available."""
        return model_statuses(self._models.slots)

    def gpus(self) -> tuple[GpuStatus, ...]:
        """The accelerators of this worker."""
        return self._ports.gpus(self._device.kind)

    def memory(self) -> Reading | None:
        """Memory of the device, or of the process on a CPU; None when unknown."""
        return self._ports.memory.read()

    def adopt(self, models: Mapping[str, ModelConfig]) -> None:
        """Serve these models from now on, keyed by their ids in lower case.

        What is loaded and would be loaded alike stays. Every other model finishes what it accepted, and if it was
        loaded and is still wanted, it is loaded anew.
        """
        self._models.adopt(models)

    def preload(self) -> None:
        """Start the loads that readiness waits for."""
        self._models.preload()
        self._loras.preload(lambda slot: slot.name in self._models.preloading)

    async def unload(self, name: str) -> None:
        """Have a model finish what it accepted and drop its weights; nothing when it is not loaded.

        Raises:
            Problem: MODEL_NOT_FOUND.
        """
        slot = self._models.find(name, {}).slot
        if slot.state in (State.LOADED, State.UNLOADING):
            await asyncio.shield(self._residency.unload(slot))

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
        await self._loras.close()
        await self._models.close()

    async def _check_pixels(self, inputs: Sequence[Input]) -> None:
        labelled = (each.picture if isinstance(each, LabelledPicture) else each for each in inputs)
        pictures = [each for each in labelled if isinstance(each, Picture)]
        if not pictures:
            return
        from sie_server.adapters.shared.pixels import pixels_of  # noqa: PLC0415 - only who gets images needs Pillow

        pixels, limit = await self.pipeline.run(partial(pixels_of, pictures)), self.limits.max_request_pixels
        if pixels > limit:
            message = f"the images of the request have {pixels} pixels, the limit is {limit}; send fewer in one request"
            raise Problem(ErrorCode.INPUT_TOO_LONG, message)

    def _on_batch(self, record: BatchRecord) -> None:
        self.health.computed()
        self._ports.record(record)

    def _build(self, slot: Slot, fetched: Fetched) -> Adapter:
        name = slot.model.profiles[DEFAULT_PROFILE].adapter
        try:
            adapter = build(find(name, self._adapters), fetched, self._device.kind)
        except Exception as error:
            if isinstance(error, LoadError) or not self._ports.is_out_of_memory(error):
                raise
            message = f"the model does not fit into the memory of {self._device.kind}"
            raise LoadError(ErrorClass.OOM, message) from error
        _check_tasks(slot.model, adapter)
        return adapter

    def _open_loop(self, slot: Slot, adapter: Adapter) -> ModelLoop:
        tokens = slot.weights.max_batch_tokens
        if self._device.kind == "cpu" and not isinstance(adapter, RunsInSteps):  # a step is one token an input
            tokens = min(tokens, self.limits.cpu_batch_tokens)
        pads = adapter.capabilities.pads
        patience_s = PATIENCE_S if pads else 0.0
        return ModelLoop(
            slot.name,
            adapter,
            self._device,
            Limits(tokens, self.limits.max_batch_items, patience_s, PADDED_BUDGETS * tokens if pads else None),
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
    extract = model.tasks.extract
    if extract is not None and extract.output_schema != "none" and "data" not in adapter.capabilities.outputs:
        name = model.profiles[DEFAULT_PROFILE].adapter
        message = f"the catalogue has callers of the model send an output_schema, adapter '{name}' gives no data"
        raise LoadError(ErrorClass.UNKNOWN, message)
