"""An adapter whose loads and batches wait for the test, and an engine around it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from sie_protocol.catalog import EncodeTask, LoraConfig, ModelConfig, ProfileConfig, Tasks, VectorTask
from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.items import EncodeParams, Item
from sie_server.adapters.base import Capabilities, Input, ModelSpec, Outputs, Prepared, Steps, single_texts
from sie_server.core.memory import Reading
from sie_server.engine import encoding
from sie_server.engine.device import Device
from sie_server.engine.engine import Engine, EngineLimits, EnginePorts
from sie_server.engine.loading import Fetched
from sie_server.engine.loop import BatchRecord, QueueLimits
from sie_server.engine.models import LoadPolicy
from sie_server.engine.pipeline import Pipeline
from sie_server.engine.recovery import OomEvent
from sie_server.engine.residency import MemoryLimits, MemoryPorts
from sie_server.engine.results import Encoded
from sie_server.engine.turns import TURN_S

ADAPTERS = {"gated": "gated_adapter:GatedAdapter", "stepping": "gated_adapter:SteppingAdapter"}
WAIT_S = 60.0  # only against hanging: a busy machine may stand still for seconds
STEP_S = 2 * TURN_S


@dataclass(slots=True)
class Gate:
    """What the test opens, and what it sees: batches wait for `open`, loads for `may_load`, LoRAs for `may_read`."""

    open: threading.Event = field(default_factory=threading.Event)
    may_load: threading.Event = field(default_factory=threading.Event)
    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    loads: int = 0
    load_error: Exception | None = None
    run_error: Exception | None = None
    unload_error: Exception | None = None
    batches: list[list[str]] = field(default_factory=list)
    unloaded: bool = False
    fits: int = 10**9  # a batch of more tokens runs out of memory
    size_bytes: int = 0
    may_read: threading.Event = field(default_factory=threading.Event)
    reads: list[str] = field(default_factory=list)
    read_error: Exception | None = None
    lora_bytes: int = 0


class GatedAdapter:
    """Vectors are `[words, characters]` of each text; a token is a word. LoRA `N` makes that `[words + 100 N, ...]`."""

    capabilities = Capabilities(outputs=frozenset({"dense"}))

    def __init__(self, spec: ModelSpec) -> None:
        self._gate: Gate = spec.options["gate"]
        self._memory: Memory | None = spec.options.get("memory")
        self._name = spec.name

    def load(self, device: str) -> None:  # noqa: ARG002 - it has none
        self._gate.loads += 1
        assert self._gate.may_load.wait(WAIT_S)
        if self._gate.load_error is not None:
            raise self._gate.load_error
        if self._memory is not None:
            self._memory.held_bytes[self._name] = self._gate.size_bytes

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:  # noqa: ARG002 - the same
        texts = single_texts(inputs)
        return [Prepared(max(1, len(text.split())), truncated=False, payload=text) for text in texts]

    def run(self, batch: Sequence[Prepared], threads: int) -> Outputs:  # noqa: ARG002 - needs none
        texts = [each.payload for each in batch]
        self._gate.batches.append(texts)
        self._gate.entered.release()
        assert self._gate.open.wait(WAIT_S)
        if self._gate.run_error is not None and "bad" in texts:
            raise self._gate.run_error
        if sum(each.tokens for each in batch) > self._gate.fits:
            raise MemoryError
        loras = [each.lora or 0 for each in batch]
        if any(loras):
            rows = zip(texts, loras, strict=True)
            return {"dense": np.array([[len(text.split()) + 100 * own, len(text)] for text, own in rows], np.float32)}
        if "nan" in texts:
            return {"dense": np.array([[np.nan if text == "nan" else 1, len(text)] for text in texts], np.float32)}
        return {"dense": np.array([[len(text.split()), len(text)] for text in texts], dtype=np.float32)}

    def read_lora(self, folder: str) -> int:
        self._gate.reads.append(folder)
        assert self._gate.may_read.wait(WAIT_S)
        if self._gate.read_error is not None:
            raise self._gate.read_error
        return int(folder.rpartition("/")[2])

    def unload(self) -> None:
        self._gate.unloaded = True
        if self._gate.unload_error is not None:
            raise self._gate.unload_error
        if self._memory is not None:
            self._memory.held_bytes.pop(self._name, None)


@dataclass(slots=True)
class Clock:
    """Monotonic time that only the test moves."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


class SteppingAdapter(GatedAdapter):
    """The same, a step for each word of the longest text. A step takes a turn, and waits for the gate as batches do."""

    def steps(self, batch: Sequence[Prepared], threads: int) -> Steps:
        assert self._memory is not None
        try:
            for step in range(max(each.tokens for each in batch)):
                self._memory.events.append(f"{self._name} step {step}")
                self._gate.entered.release()
                assert self._gate.open.wait(WAIT_S)
                if self._gate.run_error is not None and step and "bad" in [each.payload for each in batch]:
                    raise self._gate.run_error
                self._memory.clock.now += STEP_S
                threads = yield
        except GeneratorExit:
            self._memory.events.append(f"{self._name} dropped")
            raise
        return self.run(batch, threads)


@dataclass(slots=True)
class Memory:
    """A device of `limit_bytes` that holds what its models hold, and what happened to it; 0 is no known limit."""

    gates: Mapping[str, Gate]
    limit_bytes: int = 0
    held_bytes: dict[str, int] = field(default_factory=dict)
    releases: int = 0
    release_error: Exception | None = None
    may_release: threading.Event = field(default_factory=threading.Event)
    events: list[str] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock)

    def read(self) -> Reading | None:
        """What the models that are loaded hold."""
        return Reading(sum(self.held_bytes.values()), self.limit_bytes) if self.limit_bytes else None

    def release(self) -> None:
        """Count it, and wait for the test."""
        self.releases += 1
        assert self.may_release.wait(WAIT_S)
        if self.release_error is not None:
            raise self.release_error

    def fetch(self, spec: ModelSpec) -> Fetched:
        """Known sizes."""
        gate = self.gates[spec.name.partition(":")[0]]
        return Fetched(spec, gate.lora_bytes if spec.source.lora else gate.size_bytes)

    def on_oom(self, model: str, event: OomEvent) -> None:
        """Note it."""
        self.events.append(f"{model} {event}")

    def counted(self, event: OomEvent) -> int:
        """How often it happened."""
        return sum(each.endswith(f" {event}") for each in self.events)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that the event loop is about to make true."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - any condition, most of which have no event
            await asyncio.sleep(0.001)


@dataclass(frozen=True, slots=True)
class Kit:
    """An engine with gated models, and all that its ports saw."""

    engine: Engine
    gates: Mapping[str, Gate]
    clock: Clock
    records: list[BatchRecord]
    memory: "Memory"

    def send(self, *texts: str, model: str = "a") -> asyncio.Task[Encoded]:
        """Start an encode call."""
        items = [Item(text=text) for text in texts]
        return asyncio.create_task(encoding.encode(self.engine, model, items, EncodeParams()))

    async def queued(self, *texts: str) -> list[asyncio.Task[Encoded]]:
        """Start an encode call of model `a` for each, and wait until they are in its queue, in this order.

        Two that are sent at once are tokenised at once, and the second may be ready first.
        """
        tasks = []
        for count, text in enumerate(texts, self.waiting() + 1):
            tasks.append(self.send(text))
            await until(partial(self._is_waiting, count))
        return tasks

    def _is_waiting(self, count: int) -> bool:
        return self.waiting() == count

    async def encode(self, *texts: str, model: str = "a") -> Encoded:
        """Make an encode call."""
        async with asyncio.timeout(WAIT_S):
            return await self.send(*texts, model=model)

    async def refused(self, *texts: str, model: str = "a") -> Problem:
        """Make an encode call that must be refused."""
        try:
            await self.encode(*texts, model=model)
        except Problem as problem:
            return problem
        raise AssertionError("the call was not refused")

    def state(self, model: str = "a") -> str:
        """The model's state as callers see it."""
        return self.engine.info_of(model)["state"]

    async def load(self, model: str = "a") -> None:
        """Have a model loaded."""
        self.gates[model].may_load.set()
        assert (await self.refused("x", model=model)).code is ErrorCode.MODEL_LOADING
        await until(lambda: self.state(model) != "loading")

    def waiting(self, model: str = "a") -> int:
        """Items that wait for the device."""
        loop = self.engine.lookup(model).slot.loop
        return loop.waiting if loop else 0

    def depth(self) -> int:
        """Items accepted and not answered."""
        return sum(status.queue_depth for status in self.engine.statuses())

    async def entered(self, name: str = "a") -> None:
        """Wait until one more batch of a model has reached the device."""
        assert await asyncio.to_thread(self.gates[name].entered.acquire, timeout=WAIT_S)


def gated_model(name: str, gate: Gate, memory: Memory, loras: int = 0) -> ModelConfig:
    """A model with so many LoRAs, in profiles `1`, `2`, ...; one whose name begins with "slow" computes in steps."""
    adapter = "stepping" if name.startswith("slow") else "gated"
    own = ProfileConfig(adapter, 32, adapter_options={"gate": gate, "memory": memory})
    on_top = {
        f"{at}": ProfileConfig(adapter, 32, adapter_options=own.adapter_options, lora=LoraConfig(weights_path=f"/{at}"))
        for at in range(1, loras + 1)
    }
    return ModelConfig(name, Tasks(encode=EncodeTask(dense=VectorTask(2))), {"default": own, **on_top})


@asynccontextmanager
async def engine_of(
    *names: str,
    queue: QueueLimits | None = None,
    cores: int = 1,
    limit_bytes: int = 0,
    load_policy: LoadPolicy | None = None,
    drain_s: float = 30.0,
    loras: int = 0,
    max_loras: int = 10,
) -> AsyncIterator[Kit]:
    """An engine on one device lane; every gate is opened before it closes."""
    gates, records = {name: Gate() for name in names}, list[BatchRecord]()
    memory = Memory(gates, limit_bytes)
    clock = memory.clock
    memory.may_release.set()
    models = {name: gated_model(name, gate, memory, loras) for name, gate in gates.items()}
    pipeline, device = Pipeline(2, clock), Device("cpu", cores)
    bounds = MemoryLimits(100.0, drain_s)
    waiting = queue or QueueLimits(64, 1000, 60.0)
    limits = EngineLimits(8, 16, 1000, waiting, bounds, load_policy or LoadPolicy(), max_loras=max_loras)
    ports = EnginePorts(
        clock,
        lambda _: (),
        records.append,
        fetch=memory.fetch,
        memory=MemoryPorts(memory.read, memory.release),
        on_oom=memory.on_oom,
        on_idle=lambda name: memory.events.append(f"{name} idle"),
    )
    engine = Engine(models, ADAPTERS, device, pipeline, limits, ports)
    try:
        yield Kit(engine, gates, clock, records, memory)
    finally:
        memory.may_release.set()
        for gate in gates.values():
            gate.open.set()
            gate.may_load.set()
            gate.may_read.set()
        await engine.close()
        await device.close()
        await pipeline.close()
