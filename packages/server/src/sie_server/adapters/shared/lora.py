"""LoRAs in PEFT's layout: read, checked, and added to the products of a packed batch.

A LoRA gives a linear layer `x W^T` one more term, `scale * (x A^T) B^T` with small A and B (Hu et al. 2021, arXiv
2106.09685); `scale` is alpha / rank, or alpha / sqrt(rank) (Kalajdzievski 2023, arXiv 2312.03732). To a row of a table
of embeddings it adds the same row of `scale * A^T B^T`. Nothing is merged: the weights stay one for all, and texts of
one batch may have different LoRAs or none.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch.nn import functional

from sie_server.adapters.base import LoadError, Prepared
from sie_server.adapters.shared.loading import loading_onto
from sie_server.adapters.shared.torch_use import to_device
from sie_server.adapters.shared.weight_files import LORA_CONFIG, LORA_WEIGHTS
from sie_server.adapters.shared.weights import read_json, read_safetensors
from sie_server.core.lifecycle import ErrorClass

Tensors = Mapping[str, torch.Tensor]
# (name of a product, what goes in [rows, in], what came out [rows, out] and is changed in place)
Add = Callable[[str, torch.Tensor, torch.Tensor], None]

_HALF: Final = re.compile(
    r"(?:base_model\.model\.)?(?P<layer>.+)\.lora_(?:(?P<table>embedding_)(?P<row>[AB])|(?P<half>[AB])\.weight)"
)
TABLES: Final = -1  # the block of embeddings, which come before all others
# What of PEFT's configuration changes no number once the matrices are known. Whatever else is set is refused: it may be
# a way to compute that is not the one above.
_HARMLESS: Final = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "bias",
        "eva_config",
        "exclude_modules",
        "inference_mode",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "lora_alpha",
        "lora_dropout",
        "megatron_core",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "r",
        "revision",
        "target_modules",
        "task_type",
        "use_rslora",
    }
)
# Ways to begin a training that leave the model's own weights as they were.
_BEGINNINGS: Final = (True, False, None, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a linear layer [outputs, inputs] of a checkpoint stands: columns, from `start` on, of a product of a block.

    A table of embeddings [inputs, outputs] has a place of the block `TABLES`. `into` does to the first axis of a matrix
    what was done to that of the layer's weight when the model was loaded.
    """

    block: int
    product: str
    start: int
    outputs: int
    inputs: int
    into: Callable[[torch.Tensor], torch.Tensor] = lambda rows: rows


@dataclass(frozen=True, slots=True)
class Targets:
    """The linear layers of an encoder that a LoRA may change, and how the encoder keeps its numbers.

    `rename` gives tensors, whose names end in `.weight`, the names of `places`; those of several layers in one it cuts
    in parts. `tables` are embeddings that a LoRA may change.
    """

    places: Mapping[str, Place]
    rename: Callable[[Tensors], Tensors]
    device: str
    dtype: torch.dtype
    tables: Mapping[str, Place] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """What a LoRA says of one layer: A [rank, inputs] and B [outputs, rank]. `is_table`: the layer is embeddings."""

    layer: str
    down: torch.Tensor
    up: torch.Tensor
    is_table: bool = False


@dataclass(frozen=True, slots=True)
class Term:
    """What is added to some columns of a product: `down` is [in, rank], `up` [rank, columns] with the scale in it.

    For embeddings `down` has a row for each token.
    """

    columns: slice
    down: torch.Tensor
    up: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Lora:
    """A LoRA in memory: its terms by block and product."""

    terms: Mapping[tuple[int, str], Sequence[Term]]


@dataclass(frozen=True, slots=True)
class Mixture:
    """The LoRAs of a packed batch, each with its rows: a slice where they lie together, else their numbers."""

    parts: Sequence[tuple[Lora, slice | torch.Tensor]]

    def add(self, block: int, product: str, states: torch.Tensor, out: torch.Tensor) -> None:
        """Add to `out` [rows, out], in place, what the LoRAs make of `states` [rows, in]."""
        for lora, rows in self.parts:
            for term in lora.terms.get((block, product), ()):
                own, inner = out[:, term.columns], torch.mm(states[rows], term.down)
                if isinstance(rows, slice):
                    own[rows].addmm_(inner, term.up)
                else:
                    own.index_add_(0, rows, torch.mm(inner, term.up))

    def look_up(self, table: str, ids: torch.Tensor, out: torch.Tensor) -> None:
        """Add to `out` [rows, out], in place, what the LoRAs change in the embeddings of `ids` [rows]."""
        for lora, rows in self.parts:
            for term in lora.terms.get((TABLES, table), ()):
                inner = functional.embedding(ids[rows], term.down)
                if isinstance(rows, slice):
                    out[rows].addmm_(inner, term.up)
                else:
                    out.index_add_(0, rows, torch.mm(inner, term.up))


def adding(mixture: Mixture | None, block: int) -> Add | None:
    """What adds to the products of one block; None where there is nothing to add."""
    return None if mixture is None else partial(mixture.add, block)


def loras_of(batch: Sequence[Prepared]) -> list[Lora | None] | None:
    """The LoRA of each input; None for a batch without any."""
    loras = [each.lora for each in batch]
    return loras if any(each is not None for each in loras) else None


def mix(loras: Sequence[Lora | None] | None, lengths: Sequence[int], device: str) -> Mixture | None:
    """Which rows are whose, of sequences of these lengths that lie one after the other."""
    if loras is None:
        return None
    ends = np.cumsum(lengths)
    parts = list[tuple[Lora, slice | torch.Tensor]]()
    for lora in dict.fromkeys(each for each in loras if each is not None):
        places = [at for at, each in enumerate(loras) if each is lora]
        first, last = places[0], places[-1]
        if len(places) == last - first + 1:
            parts.append((lora, slice(int(ends[first] - lengths[first]), int(ends[last]))))
            continue
        rows = np.concatenate([np.arange(ends[at] - lengths[at], ends[at]) for at in places])
        parts.append((lora, to_device(rows, device)))
    return Mixture(parts)


def read_lora(folder: str, targets: Targets | None) -> Lora:
    """A LoRA for an encoder, on its device and in its precision.

    Raises:
        LoadError: NOT_FOUND for a file that is missing, DEPENDENCY for what is not computed here, UNKNOWN for matrices
            that do not fit the model, OOM.
    """
    targets = usable(targets)
    config = read_json(Path(folder, LORA_CONFIG))
    scale = _scale(config)
    file = Path(folder, LORA_WEIGHTS)
    if not file.is_file():
        raise LoadError(ErrorClass.NOT_FOUND, f"the folder of the LoRA has no {LORA_WEIGHTS}")
    return lora_of(_changes(read_safetensors(file), config["r"]), scale, targets)


def usable(targets: Targets | None) -> Targets:
    """The targets of an encoder that is run with LoRAs.

    Raises:
        LoadError: DEPENDENCY when it is not.
    """
    if targets is None:
        raise LoadError(ErrorClass.DEPENDENCY, "models of this architecture are not run with LoRAs")
    return targets


def lora_of(changes: Iterable[Change], scale: float, targets: Targets) -> Lora:
    """A LoRA on the encoder's device and in its precision, of float32 matrices.

    Raises:
        LoadError: as `read_lora`.
    """
    terms: dict[tuple[int, str], list[Term]] = {}
    with loading_onto(targets.device):
        for change in changes:
            for place, own in _placed(change, targets):
                columns = slice(place.start, place.start + place.outputs)
                ready = place.into(own * scale).t().contiguous().to(targets.device, targets.dtype)
                entry = torch.empty(change.down.shape[::-1], dtype=targets.dtype, device=targets.device)
                entry.copy_(change.down.t())  # never the mapped file itself, which may go
                terms.setdefault((place.block, place.product), []).append(Term(columns, entry, ready))
    return Lora(terms)


def _scale(config: Mapping[str, Any]) -> float:
    """Alpha over rank, or over its root; refuses whatever is computed in another way."""
    if config.get("peft_type") != "LORA":
        raise _not_computed(f"peft_type {config.get('peft_type')!r}; LORA is")
    if config.get("bias", "none") != "none":
        raise _not_computed(f"bias {config['bias']!r}; biases must be left alone")
    if config.get("init_lora_weights", True) not in _BEGINNINGS:
        raise _not_computed(
            f"init_lora_weights {config['init_lora_weights']!r}, which changes the model's own weights; save it again "
            "with PEFT's path_initial_model_for_weight_conversion"
        )
    strange = sorted(key for key, value in config.items() if value and key not in _HARMLESS)
    if strange:
        raise _not_computed(f"{', '.join(strange)} in its {LORA_CONFIG}")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise LoadError(ErrorClass.UNKNOWN, f"{LORA_CONFIG} has r {rank!r} and lora_alpha {alpha!r}; expected numbers")
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _changes(tensors: Tensors, rank: int) -> list[Change]:
    """Each layer that is changed, with its matrices in float32."""
    halves: dict[tuple[str, bool], dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        found = _HALF.fullmatch(name)
        if found is None:
            message = f"a tensor '{name}'; matrices A and B of linear layers and of embeddings are all that is read"
            raise _not_computed(message)
        own = halves.setdefault((found["layer"], found["table"] is not None), {})
        own[found["half"] or found["row"]] = tensor.float()
    for (layer, _), pair in halves.items():
        shapes = {half: tuple(tensor.shape) for half, tensor in sorted(pair.items())}
        is_whole = len(pair) == len("AB") and len(pair["A"].shape) == len(pair["B"].shape) == 2  # noqa: PLR2004 - axes
        if not is_whole or not len(pair["A"]) == pair["B"].shape[1] == rank:
            raise LoadError(ErrorClass.UNKNOWN, f"the LoRA's matrices of '{layer}' are {shapes}, its rank is {rank}")
    if not halves:
        raise LoadError(ErrorClass.UNKNOWN, f"{LORA_WEIGHTS} has no matrices")
    # What training never reached is still zero: a pooler, for vectors that are made without it. It changes nothing.
    return [
        Change(layer, pair["A"], pair["B"], is_table)
        for (layer, is_table), pair in halves.items()
        if pair["A"].any() and pair["B"].any()
    ]


def _placed(change: Change, targets: Targets) -> list[tuple[Place, torch.Tensor]]:
    """The parts of B, each with its place."""
    layer, inputs = change.layer, change.down.shape[1]
    places = targets.tables if change.is_table else targets.places
    named = targets.rename({f"{layer}.weight": change.up})
    renamed = {name.removesuffix(".weight"): rows for name, rows in named.items()}
    if change.is_table:  # never cut in parts; a rename may add a table that a family lacks
        renamed = {name: rows for name, rows in renamed.items() if rows is change.up}
    found = [(places[name], rows) for name, rows in renamed.items() if name in places]
    if not found:
        known = ", ".join(sorted({name.rpartition(".")[2] for name in places})) or "no embeddings"
        where = "" if change.is_table else ", within its blocks"
        raise _not_computed(f"matrices for '{layer}'; of this model those for {known} are{where}")
    for place, rows in found:
        if (len(rows), inputs) != (place.outputs, place.inputs):
            message = (
                f"the LoRA's matrices of '{layer}' make {len(rows)} numbers of {inputs}, the model's layer "
                f"makes {place.outputs} of {place.inputs}; it was made for another model"
            )
            raise LoadError(ErrorClass.UNKNOWN, message)
    return found


def _not_computed(what: str) -> LoadError:
    return LoadError(ErrorClass.DEPENDENCY, f"the LoRA has {what}: that is not computed here")
