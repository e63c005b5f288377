"""One score per pair of texts from a decoder that is asked whether they fit: the probability of "yes" against "no".

The templates of query and document in the catalogue make the question; `prefix` and `suffix` go around it, and only the
question is cut when it is too long. Nothing is generated: two logits say which word would follow.
Options: `prefix`, `suffix`, `yes`, `no` (each one token). Published as Qwen3-Reranker (Zhang et al. 2025, arXiv
2506.05176).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sie_protocol.arrays import Array
from sie_server.adapters.base import (
    Capabilities,
    Input,
    LoadError,
    ModelSpec,
    Pair,
    Prepared,
    UnsupportedInputError,
    text_pairs,
)
from sie_server.adapters.shared.architectures import Encoder, read_architecture
from sie_server.adapters.shared.checkpoint import Checkpoint, expect
from sie_server.adapters.shared.held import Held, fitting, read_model
from sie_server.adapters.shared.pooling import pool
from sie_server.adapters.shared.tokenize import TextTokenizer
from sie_server.adapters.shared.torch_use import precision
from sie_server.core.lifecycle import ErrorClass


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory. `prefix` and `suffix` are token ids, `verdict` [width] is what "yes" has over "no"."""

    tokenizer: TextTokenizer
    encoder: Encoder
    prefix: Array
    suffix: Array
    verdict: torch.Tensor


class JudgeAdapter:
    """A Qwen3 with its language head; float32 on a CPU."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._held = Held[Loaded]()

    @property
    def capabilities(self) -> Capabilities:
        """Scores of pairs; accelerators pad inside attention."""
        return Capabilities(outputs=frozenset({"score"}), pads=self._held.pads)

    def load(self, device: str) -> None:
        """Find, read and check the model.

        Raises:
            LoadError: what is missing or wrong.
        """
        folder, config, tensors = read_model(self._spec.source)
        expect(config, "model_type", "qwen3")
        architecture, options = read_architecture(config), self._spec.options
        length = architecture.length(self._spec.max_sequence_length)
        whole = TextTokenizer(folder, length, lower_case=False)
        prefix, suffix = (np.array(whole.plain_ids(options.get(name, "")), np.int64) for name in ("prefix", "suffix"))
        room = length - len(prefix) - len(suffix)
        if room < 1:
            raise LoadError(ErrorClass.UNKNOWN, f"prefix and suffix leave no room for a question in {length} tokens")
        words = Checkpoint(tensors, lambda name: name.removeprefix("model."), device)
        head = words.find("lm_head.weight")
        if head is None:
            head = words.get("embed_tokens.weight")
        yes, no = (_one(whole, name, options.get(name, name)) for name in ("yes", "no"))
        with fitting(device):
            encoder = architecture.build(tensors, device, precision(self._spec.precision, device))
        tokenizer = TextTokenizer(folder, room, lower_case=False)
        self._held.fill(Loaded(tokenizer, encoder, prefix, suffix, head[yes] - head[no]), device)

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:  # noqa: ARG002 - pairs have both
        """Token ids of each question; one that is too long loses the end of its document."""
        loaded = self._held.parts()
        return [
            _framed(loaded, each) for each in loaded.tokenizer.prepare([_question(pair) for pair in text_pairs(inputs)])
        ]

    def tokens_of(self, given: Input, *, is_query: bool = False) -> int:  # noqa: ARG002 - pairs have both
        """How many tokens a pair has before it is cut, prefix and suffix included."""
        if not isinstance(given, Pair):
            raise UnsupportedInputError("the model reads pairs of texts only")
        loaded = self._held.parts()
        return len(loaded.prefix) + loaded.tokenizer.count(_question(given)) + len(loaded.suffix)

    @torch.inference_mode()
    def run(self, batch: Sequence[Prepared], threads: int) -> Mapping[str, Array]:
        """Float32 scores of shape [batch], from 0 to 1."""
        loaded = self._held.with_threads(threads)
        hidden, lengths = loaded.encoder.encode([each.payload for each in batch])
        return {"score": torch.sigmoid(pool(hidden, lengths, "last").float() @ loaded.verdict).cpu().numpy()}

    def unload(self) -> None:
        """Drop weights and buffers."""
        self._held.drop()


def _question(pair: Pair) -> str:
    return f"{pair.first}\n{pair.second}"


def _framed(loaded: Loaded, question: Prepared) -> Prepared:
    ids = np.concatenate((loaded.prefix, question.payload, loaded.suffix))
    return Prepared(len(ids), question.truncated, ids)


def _one(tokenizer: TextTokenizer, name: str, word: str) -> int:
    found = tokenizer.id_of(word)
    if found is None:
        raise LoadError(ErrorClass.UNKNOWN, f"option {name} is {word!r}, which is not one token of the model")
    return found
