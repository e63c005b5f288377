"""The two steps of loading one model: have its files here, then read them. Both block, so they run in threads."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from sie_server.adapters.base import Adapter, HasTasks, LoadError, ModelSpec, WeightsSource
from sie_server.adapters.registry import AdapterFactory
from sie_server.adapters.shared.weight_files import graph_bytes, lora_bytes, tensor_bytes
from sie_server.core.lifecycle import ErrorClass
from sie_server.weights.store import PinnedModel, local_only

CPU_FLOAT_BYTES: Final = 4  # a CPU computes in float32, whatever the files hold
FLOAT_BYTES: Final = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class Fetched:
    """A model whose files are on this machine, and stay there until `release`; `size_bytes` is what it will take."""

    spec: ModelSpec
    size_bytes: int
    release: Callable[[], None] = lambda: None


def fetch(spec: ModelSpec, device: str, pin: Callable[[WeightsSource], PinnedModel] = local_only) -> Fetched:
    """Have the files of a model, or of a LoRA, in a local folder, and know what they take on the device. May download.

    A model without weights of its own, such as a hash, takes no memory.

    Raises:
        LoadError: the files cannot be had or read.
    """
    if not spec.source.is_named:
        return Fetched(spec, 0)
    pinned = pin(spec.source)
    float_bytes = CPU_FLOAT_BYTES if device == "cpu" else FLOAT_BYTES.get(spec.precision or "float16", 2)
    try:
        size = _size_of(pinned.folder, spec.source, float_bytes)
    except BaseException:
        pinned.release()
        raise
    local = replace(spec, source=replace(spec.source, path=str(pinned.folder)))
    return Fetched(local, size, pinned.release)


def _size_of(folder: Path, source: WeightsSource, float_bytes: int) -> int:
    if source.lora:
        return lora_bytes(folder, float_bytes)
    if source.graph is not None:
        return graph_bytes(folder / source.graph)
    return tensor_bytes(folder, allow_pickle=source.allow_pickle, float_bytes=float_bytes)


def build(factory: AdapterFactory, fetched: Fetched, device: str) -> Adapter:
    """A loaded adapter. The files it read stay on the disk as long as it lives, because it may have mapped them.

    Raises:
        LoadError: what is wrong with the files.
    """
    try:
        adapter = factory(fetched.spec)
        # Whoever drops the adapter last unpins the files: also the thread of a load that nobody waits for any more.
        weakref.finalize(adapter, fetched.release)
        _check_tasks(adapter, fetched.spec)
        adapter.load(device)
    except BaseException:
        fetched.release()
        raise
    return adapter


def _check_tasks(adapter: Adapter, spec: ModelSpec) -> None:
    if spec.tasks and not isinstance(adapter, HasTasks):
        message = f"the catalogue names the tasks {', '.join(spec.tasks)}; models of this adapter are run without any"
        raise LoadError(ErrorClass.DEPENDENCY, message)
