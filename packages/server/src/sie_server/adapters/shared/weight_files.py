"""Which files of a model folder hold its tensors, and how large those are. Reads headers only, and needs no torch."""

import glob
import json
import math
from pathlib import Path
from typing import Any, Final

from sie_server.adapters.base import LoadError
from sie_server.core.lifecycle import ErrorClass

SAFETENSORS: Final = "model.safetensors"
PICKLE: Final = "pytorch_model.bin"
LORA_CONFIG: Final = "adapter_config.json"
LORA_WEIGHTS: Final = "adapter_model.safetensors"
MAX_HEADER_BYTES: Final = 100 * 1024 * 1024  # as the safetensors library


def weight_files(folder: Path, *, allow_pickle: bool = False) -> list[Path]:
    """The files with the tensors of a model folder: one file, or the shards that its index names.

    Safetensors win over pickles, which count only where the catalogue allows them.

    Raises:
        LoadError: NOT_FOUND when there are none or a shard is missing, DEPENDENCY when there are pickles only.
    """
    files = _stored(folder, SAFETENSORS)
    pickles = [] if files else _stored(folder, PICKLE)
    if pickles and not allow_pickle:
        raise LoadError(
            ErrorClass.DEPENDENCY,
            f"the model has its weights as a pickle only ({pickles[0].name}); if you trust who published it, set "
            "allow_pickle: true in its catalogue file",
        )
    if not files and not pickles:
        raise LoadError(ErrorClass.NOT_FOUND, f"the model folder has no {SAFETENSORS}")
    return files or pickles


def tensor_bytes(folder: Path, *, allow_pickle: bool = False, float_bytes: int | None = None) -> int:
    """Bytes of a model's tensors, those of its modules' folders and of LoRAs in folders included, as stored.

    With `float_bytes`, as they are when each floating-point number takes that many: 4 on a CPU, which computes in
    float32, 2 for float16. Pickles count with the size of their files. A folder without weights has 0.

    Raises:
        LoadError: as `weight_files`, and UNKNOWN for a header that is none.
    """
    folders = [folder, *sorted(each for each in folder.iterdir() if each.is_dir())]
    files = [
        file
        for each in folders
        if _stored(each, SAFETENSORS) or _stored(each, PICKLE)
        for file in weight_files(each, allow_pickle=allow_pickle)
    ]
    files += [each / LORA_WEIGHTS for each in folders[1:] if (each / LORA_WEIGHTS).is_file()]
    return sum(_tensors_of(file, float_bytes) for file in files)


def graph_bytes(graph: Path) -> int:
    """Bytes of an ONNX graph and of the weights that lie beside it (`NAME_data`, `NAME.data`); 0 when there is none."""
    files = graph.parent.glob(f"{glob.escape(graph.name)}*")
    return sum(file.stat().st_size for file in files if file.is_file())


def lora_bytes(folder: Path, float_bytes: int) -> int:
    """Bytes of a LoRA's matrices when each number takes so many.

    Raises:
        LoadError: NOT_FOUND when the folder has none, UNKNOWN for a header that is none.
    """
    file = folder / LORA_WEIGHTS
    if not file.is_file():
        raise LoadError(ErrorClass.NOT_FOUND, f"the folder of the LoRA has no {LORA_WEIGHTS}")
    return _tensors_of(file, float_bytes)


def _stored(folder: Path, name: str) -> list[Path]:
    if (folder / name).is_file():
        return [folder / name]
    index = folder / f"{name}.index.json"
    if not index.is_file():
        return []
    shards = [folder / shard for shard in _shards(index)]
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise LoadError(ErrorClass.NOT_FOUND, f"{index.name} names {', '.join(missing)}, which the folder lacks")
    return shards


def _shards(index: Path) -> list[str]:
    try:
        names = {str(name) for name in json.loads(index.read_bytes())["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LoadError(ErrorClass.UNKNOWN, f"{index.name} is not an index of shards: {error}") from error
    if not names or any(Path(name).name != name for name in names):
        raise LoadError(ErrorClass.UNKNOWN, f"{index.name} names files outside of its folder, or none")
    return sorted(names)


def _tensors_of(file: Path, float_bytes: int | None) -> int:
    if file.suffix != ".safetensors":
        return file.stat().st_size
    try:
        with file.open("rb") as opened:
            size = min(int.from_bytes(opened.read(8), "little"), MAX_HEADER_BYTES)
            header = json.loads(opened.read(size))
        header.pop("__metadata__", None)
        return sum(_bytes_of(tensor, float_bytes) for tensor in header.values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LoadError(ErrorClass.UNKNOWN, f"{file.name} has no header of safetensors: {error}") from error


def _bytes_of(tensor: dict[str, Any], float_bytes: int | None) -> int:
    start, end = tensor["data_offsets"]
    if float_bytes is None or not str(tensor["dtype"]).startswith(("F", "BF")):
        return int(end) - int(start)
    elements: int = math.prod(tensor["shape"])
    return elements * float_bytes
