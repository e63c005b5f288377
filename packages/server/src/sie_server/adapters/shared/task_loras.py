"""LoRAs that come with a model's own weights, one for each task it was trained for: those of jina-embeddings-v3.

As it was first published, the LoRAs of all tasks stand beside each matrix, one behind the other:
`parametrizations.weight.0.lora_A` [tasks, rank, in] and `lora_B` [tasks, out, rank], for embeddings [tasks, rows, rank]
and [tasks, rank, width]; the matrix itself is called `parametrizations.weight.original`. A task adds `alpha / rank`
times B A, or A B to embeddings (Sturua et al. 2024, arXiv 2409.10173). config.json lists their names in that order
(`lora_adaptations`) and has `lora_rank` and `lora_alpha`.

As published for transformers, each is a LoRA in PEFT's layout in a folder of its own beside the weights, whose name is
spelled with underscores: `retrieval_query` has the one for `retrieval.query`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from sie_server.adapters.base import LoadError
from sie_server.adapters.shared.lora import Change, Lora, Targets, lora_of, read_lora, usable
from sie_server.adapters.shared.weight_files import LORA_CONFIG
from sie_server.core.lifecycle import ErrorClass

Pair = dict[str, torch.Tensor]  # A and B of one layer, of all tasks

_HALF: Final = re.compile(r"(?P<layer>.+)\.parametrizations\.weight\.0\.lora_(?P<half>[AB])")
_TABLE: Final = "_embeddings"  # so end the names of embeddings, and of nothing else
_UNUSED: Final = "pooler."  # vectors are made without it
_AXES: Final = 3
_NOT_IN_FOLDERS: Final = re.compile(r"[.-]")


def read_task_loras(
    wanted: Sequence[str],
    folder: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    targets: Targets | None,
) -> dict[str, Lora]:
    """The LoRAs of these tasks by name, on the encoder's device; the others are not read.

    Raises:
        LoadError: UNKNOWN when the weights have no such task or matrices that do not fit, DEPENDENCY for what is not
            computed here, OOM.
    """
    if not wanted:
        return {}
    names = config.get("lora_adaptations")
    if not isinstance(names, list):
        beside = sorted(file.parent.name for file in folder.glob(f"*/{LORA_CONFIG}"))
        folders = {task: _NOT_IN_FOLDERS.sub("_", task) for task in wanted}
        _check_names({task for task in wanted if folders[task] not in beside}, beside)
        return {task: read_lora(str(folder / own), targets) for task, own in folders.items()}
    _check_names(set(wanted).difference(names), names)
    rank, alpha = config.get("lora_rank"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        message = f"config.json has lora_rank {rank!r} and lora_alpha {alpha!r}; expected numbers"
        raise LoadError(ErrorClass.UNKNOWN, message)
    pairs, fit = _pairs(tensors, len(names), rank), usable(targets)
    return {task: lora_of(_changes(pairs, names.index(task)), alpha / rank, fit) for task in wanted}


def _check_names(missing: set[str], names: Sequence[object]) -> None:
    if missing:
        known = f"they have: {', '.join(map(str, names))}" if names else "they have none"
        message = f"the weights have no LoRA for task '{min(missing)}', which the catalogue names; {known}"
        raise LoadError(ErrorClass.UNKNOWN, message)


def _pairs(tensors: Mapping[str, torch.Tensor], tasks: int, rank: int) -> Mapping[str, Pair]:
    """The matrices of each layer that is changed."""
    pairs: dict[str, Pair] = {}
    for name, tensor in tensors.items():
        found = _HALF.fullmatch(name)
        if found is not None and _UNUSED not in name:
            pairs.setdefault(found["layer"], {})[found["half"]] = tensor
    if not pairs:
        raise LoadError(ErrorClass.UNKNOWN, "config.json lists LoRAs of tasks, but the weights have no matrices of any")
    for layer, pair in pairs.items():
        shapes = {half: tuple(each.shape) for half, each in sorted(pair.items())}
        is_whole = len(pair) == len("AB") and all(len(shape) == _AXES for shape in shapes.values())
        if not is_whole or not _are_of(shapes["A"], shapes["B"], tasks, rank, is_table=layer.endswith(_TABLE)):
            message = f"the matrices of '{layer}' for tasks are {shapes}; expected {tasks} tasks of rank {rank}"
            raise LoadError(ErrorClass.UNKNOWN, message)
    return pairs


def _are_of(down: Sequence[int], up: Sequence[int], tasks: int, rank: int, *, is_table: bool) -> bool:
    """Whether A and B have these shapes for so many tasks."""
    ranks = (down[2], up[1]) if is_table else (down[1], up[2])
    return (down[0], up[0]) == (tasks, tasks) and ranks == (rank, rank)


def _changes(pairs: Mapping[str, Pair], task: int) -> Iterator[Change]:
    for layer, pair in pairs.items():
        down, up = pair["A"][task].float(), pair["B"][task].float()
        is_table = layer.endswith(_TABLE)
        yield Change(layer, down.t(), up.t(), is_table) if is_table else Change(layer, down, up)
