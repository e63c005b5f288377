"""Brings a model's files to this machine and says how much memory they will take. Imports no torch."""

from dataclasses import replace
from typing import Final

from sie_server.adapters.base import ModelSpec, WeightsSource
from sie_server.adapters.shared.weight_files import tensor_bytes
from sie_server.adapters.shared.weights import locate

CPU_FLOAT_BYTES: Final = 4  # a CPU computes in float32, whatever the files hold
FLOAT_BYTES: Final = {"float32": 4, "float16": 2, "bfloat16": 2}
NOWHERE: Final = WeightsSource()


def fetch(spec: ModelSpec, device: str) -> tuple[ModelSpec, int]:
    """The model with its files in a local folder, and the bytes of its weights on the device. May download.

    A model without weights of its own, such as a hash, takes none.

    Raises:
        LoadError: the weights cannot be found or read.
    """
    if replace(spec.source, allow_pickle=False) == NOWHERE:
        return spec, 0
    folder, allow_pickle = locate(spec.source), spec.source.allow_pickle
    float_bytes = CPU_FLOAT_BYTES if device == "cpu" else FLOAT_BYTES.get(spec.precision or "float16", 2)
    local = replace(spec, source=WeightsSource(path=str(folder), allow_pickle=allow_pickle))
    return local, tensor_bytes(folder, allow_pickle=allow_pickle, float_bytes=float_bytes)
