"""Entities from a token classifier that is published as an ONNX graph, computed by ONNX Runtime on the CPU.

The option `graph` of the family names the graph inside the model's folder. One batch uses one core: the worker runs as
many batches side by side as it has cores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidGraph, InvalidProtobuf
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NotImplemented_

from sie_protocol.arrays import Array
from sie_server.adapters.base import Capabilities, Input, LoadError, ModelSpec, Outputs, Prepared
from sie_server.adapters.shared.chunks import CPU_TOKENS
from sie_server.adapters.shared.token_reader import TokenReader
from sie_server.adapters.shared.weights import locate, read_json
from sie_server.core.lifecycle import ErrorClass

DEFAULT_LENGTH: Final = 512
ERRORS_ONLY: Final = 3  # ONNX Runtime's own scale
UNREADABLE: Final = (Fail, InvalidGraph, InvalidProtobuf, NotImplemented_)  # they share no base class of their own
READS: Final = frozenset({"input_ids", "attention_mask", "token_type_ids"})
OUTPUT: Final = "logits"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A graph that is ready, and which of `READS` it wants."""

    reader: TokenReader
    session: onnxruntime.InferenceSession
    inputs: frozenset[str]

    def classify(self, sequences: list[Array]) -> Sequence[Array]:
        """Probabilities [tokens, classes] of each sequence of ids."""
        lengths = [len(each) for each in sequences]
        ids = np.zeros((len(sequences), max(lengths)), np.int64)
        mask = np.zeros_like(ids)
        for row, each in enumerate(sequences):
            ids[row, : len(each)], mask[row, : len(each)] = each, 1
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        [logits] = self.session.run([OUTPUT], {name: feed[name] for name in self.inputs})
        return [_softmax(row[:length]) for row, length in zip(logits, lengths, strict=True)]


class OnnxTokenClassifierAdapter:
    """A graph from token ids to the logits of each token's classes."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._loaded: Loaded | None = None

    @property
    def capabilities(self) -> Capabilities:
        """Entities of texts; a batch is padded to its longest sequence."""
        return Capabilities(outputs=frozenset({"entities"}), pads=True)

    def load(self, device: str) -> None:  # noqa: ARG002 - the graph runs on the CPU beside any device
        """Find, read and check the model.

        Raises:
            LoadError: what is missing or wrong.
        """
        file = self._spec.source.graph
        if file is None:
            raise LoadError(ErrorClass.UNKNOWN, "the catalogue names no ONNX graph; set adapter_options.graph")
        folder = locate(self._spec.source)
        config = read_json(folder / "config.json")
        reader = TokenReader(folder, config, self._spec.max_sequence_length or _positions(config))
        if not (folder / file).is_file():
            raise LoadError(ErrorClass.NOT_FOUND, f"the model folder has no {file}")
        session = _open(str(folder / file))
        inputs = frozenset(each.name for each in session.get_inputs())
        if not {"input_ids"} <= inputs <= READS:
            message = f"{file} reads {', '.join(sorted(inputs))}; known: {', '.join(sorted(READS))}"
            raise LoadError(ErrorClass.DEPENDENCY, message)
        _check_outputs(file, {each.name: each.shape for each in session.get_outputs()}, reader.classes)
        self._loaded = Loaded(reader, session, inputs)

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:  # noqa: ARG002 - read alike
        """Windows of token ids; no text is cut."""
        return self._ready().reader.prepare(inputs)

    def run(self, batch: Sequence[Prepared], threads: int) -> Outputs:  # noqa: ARG002 - always one: see the module
        """The entities of each text, by their start."""
        loaded = self._ready()
        return {"entities": loaded.reader.entities(batch, loaded.classify, CPU_TOKENS)}

    def unload(self) -> None:
        """Drop the graph."""
        self._loaded = None

    def _ready(self) -> Loaded:
        assert self._loaded is not None, "load comes first"  # noqa: S101 - a bug of the caller, not a refusal
        return self._loaded


def _positions(config: Mapping[str, Any]) -> int:
    """How many tokens a model reads where the catalogue does not say: RoBERTa never uses the first of its positions."""
    unused = int(config.get("pad_token_id") or 0) + 1 if "roberta" in str(config.get("model_type")) else 0
    return int(config.get("max_position_embeddings", DEFAULT_LENGTH)) - unused


def _check_outputs(file: str, shapes: Mapping[str, Sequence[int | str]], classes: int) -> None:
    """Refuse a graph without logits, or with those of another number of labels; a size that varies has a name."""
    if OUTPUT not in shapes:
        raise LoadError(ErrorClass.DEPENDENCY, f"{file} gives {', '.join(shapes)}; expected {OUTPUT}")
    found = shapes[OUTPUT][-1]
    if isinstance(found, int) and found != classes:
        raise LoadError(ErrorClass.UNKNOWN, f"{file} gives logits of {found} labels, config.json names {classes}")


def _open(path: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except UNREADABLE as error:
        raise LoadError(ErrorClass.UNKNOWN, f"ONNX Runtime cannot read the graph: {error}") from error


def _softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    shares: Array = powers / powers.sum(1, keepdims=True)
    return shares
