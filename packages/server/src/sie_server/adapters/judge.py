"""One score per pair of texts from a decoder that is asked whether they fit: "yes" against "no".

The templates of query and document in the catalogue make the question; `prefix` and `suffix` go around it, and only the
question is cut when it is too long. Nothing is generated: two logits say which word would follow, and the score is the
sigmoid of their difference, a probability, or with `activation: identity` the difference itself.
Options: `prefix`, `suffix`, `yes`, `no` (each one token), `activation`, and `separator`: query and document are then
tokenised each by itself, with these tokens between them. Published as Qwen3-Reranker (Zhang et al. 2025, arXiv
2506.05176), and as mxbai-rerank-v2 with a separator.
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
    Pair,
    Prepared,
    UnsupportedInputError,
    text_pairs,
)
from sie_server.adapters.shared.adapter import LoraAdapter
from sie_server.adapters.shared.architectures import Encoder, read_architecture
from sie_server.adapters.shared.checkpoint import Checkpoint, expect
from sie_server.adapters.shared.linear import Activation, activation_named
from sie_server.adapters.shared.loading import loading_onto, read_model
from sie_server.adapters.shared.lora import loras_of
from sie_server.adapters.shared.pooling import pool
from sie_server.adapters.shared.tokenize import TextTokenizer
from sie_server.adapters.shared.torch_use import precision
from sie_server.core.lifecycle import ErrorClass


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory. `prefix`, `separator` and `suffix` are token ids; `verdict` [width] is "yes" less "no".

    Without a `separator` query and document are one text with a line break between them.
    """

    tokenizer: TextTokenizer
    encoder: Encoder
    prefix: Array
    suffix: Array
    separator: Array | None
    verdict: torch.Tensor
    activation: Activation


class JudgeAdapter(LoraAdapter[Loaded]):
    """A Qwen2 or Qwen3 with its language head; float32 on a CPU."""

    @property
    def capabilities(self) -> Capabilities:
        """Scores of pairs; accelerators pad inside attention."""
        return Capabilities(outputs=frozenset({"score"}), pads=self._loaded.pads)

    def load(self, device: str) -> None:
        """Find, read and check the model.

        Raises:
            LoadError: what is missing or wrong.
        """
        folder, config, tensors = read_model(self._spec.source)
        expect(config, "model_type", "qwen2", "qwen3")
        architecture, options = read_architecture(config), self._spec.options
        length = architecture.length(self._spec.max_sequence_length)
        whole = TextTokenizer(folder, length, lower_case=False)
        prefix, suffix, separator = (
            np.array(whole.plain_ids(options.get(name) or ""), np.int64) for name in ("prefix", "suffix", "separator")
        )
        room = length - len(prefix) - len(suffix)
        if room < 1:
            raise LoadError(ErrorClass.UNKNOWN, f"prefix and suffix leave no room for a question in {length} tokens")
        words = Checkpoint(tensors, lambda name: name.removeprefix("model."), device)
        head = words.find("lm_head.weight")
        if head is None:
            head = words.get("embed_tokens.weight")
        yes, no = (_one(whole, name, options.get(name, name)) for name in ("yes", "no"))
        with loading_onto(device):
            encoder = architecture.build(tensors, device, precision(self._spec.precision, device))
        tokenizer = TextTokenizer(folder, room, lower_case=False)
        between, activation = separator if options.get("separator") else None, options.get("activation", "sigmoid")
        verdict = head[yes] - head[no]
        loaded = Loaded(tokenizer, encoder, prefix, suffix, between, verdict, activation_named(activation))
        self._loaded.fill(loaded, device)

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:  # noqa: ARG002 - pairs have both
        """Token ids of each question; one that is too long loses the end of its document."""
        loaded, pairs = self._loaded.parts(), text_pairs(inputs)
        if loaded.separator is None:
            questions = loaded.tokenizer.prepare([_question(pair) for pair in pairs])
        else:
            questions = _apart(loaded.tokenizer, pairs, loaded.separator)
        return [_framed(loaded, each) for each in questions]

    def tokens_of(self, given: Input, *, is_query: bool = False) -> int:  # noqa: ARG002 - pairs have both
        """How many tokens a pair has before it is cut, prefix and suffix included."""
        if not isinstance(given, Pair):
            raise UnsupportedInputError("the model reads pairs of texts only")
        loaded = self._loaded.parts()
        frame = len(loaded.prefix) + len(loaded.suffix)
        if loaded.separator is None:
            return frame + loaded.tokenizer.count(_question(given))
        return frame + len(loaded.separator) + loaded.tokenizer.count_plain(given)

    @torch.inference_mode()
    def run(self, batch: Sequence[Prepared], threads: int) -> Mapping[str, Array]:
        """Float32 scores of shape [batch]."""
        loaded = self._loaded.with_threads(threads)
        hidden, lengths = loaded.encoder.encode([each.payload for each in batch], loras=loras_of(batch))
        difference = pool(hidden, lengths, "last").float() @ loaded.verdict
        return {"score": loaded.activation(difference).cpu().numpy()}


def _question(pair: Pair) -> str:
    return f"{pair.first}\n{pair.second}"


def _apart(tokenizer: TextTokenizer, pairs: Sequence[Pair], separator: Array) -> list[Prepared]:
    """Each pair as one question of at most the tokenizer's length; a query is tokenised once for all its documents."""
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    parts = dict(zip(texts, tokenizer.prepare_plain(texts), strict=True))
    questions = []
    for first, second in ((parts[pair.first], parts[pair.second]) for pair in pairs):
        ids = np.concatenate((first.payload, separator, second.payload))
        kept = ids[: tokenizer.max_length]
        cut = first.truncated or second.truncated or len(kept) < len(ids)
        questions.append(Prepared(len(kept), cut, kept))
    return questions


def _framed(loaded: Loaded, question: Prepared) -> Prepared:
    ids = np.concatenate((loaded.prefix, question.payload, loaded.suffix))
    return Prepared(len(ids), question.truncated, ids)


def _one(tokenizer: TextTokenizer, name: str, word: str) -> int:
    found = tokenizer.id_of(word)
    if found is None:
        raise LoadError(ErrorClass.UNKNOWN, f"option {name} is {word!r}, which is not one token of the model")
    return found
