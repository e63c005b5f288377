"""The head of masked language models, asked only how strongly a text suggests each word of the vocabulary."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nn import functional

from sie_server.adapters.shared.bert_weights import Norm, canonical
from sie_server.adapters.shared.checkpoint import Checkpoint

# Logits of this many tokens exist at a time: 30,522 words x 128 tokens in float32 are 16 MB, of 16,384 tokens 2 GB.
CHUNK_TOKENS: Final = 128
# Of RoBERTa, Alibaba's encoder and DistilBERT, in the order in which they are looked for.
_BERT_NAMES: Final = (
    ("lm_head.dense.", "cls.predictions.transform.dense."),
    ("lm_head.layer_norm.", "cls.predictions.transform.LayerNorm."),
    ("lm_head.norm.", "cls.predictions.transform.LayerNorm."),
    ("lm_head.", "cls.predictions."),
    ("vocab_transform.", "cls.predictions.transform.dense."),
    ("vocab_layer_norm.", "cls.predictions.transform.LayerNorm."),
    ("vocab_projector.", "cls.predictions.decoder."),
)


@dataclass(frozen=True, slots=True)
class MlmHead:
    """`dense` is [in, out], `words` [vocabulary, width]."""

    dense: torch.Tensor
    dense_bias: torch.Tensor
    norm: Norm
    norm_eps: float
    words: torch.Tensor
    words_bias: torch.Tensor

    @property
    def vocabulary(self) -> int:
        """How many words there are."""
        return len(self.words)

    def peaks(self, hidden: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        """The largest logit of each word over the tokens of each sequence of a packed [tokens, width] batch.

        Returns float32 [sequences, vocabulary].
        """
        states = functional.gelu(torch.addmm(self.dense_bias, hidden, self.dense))
        states = functional.layer_norm(states, (states.shape[1],), self.norm.weight, self.norm.bias, self.norm_eps)
        peaks = states.new_full((len(lengths), self.vocabulary), -torch.inf)
        memory = states.new_empty(min(CHUNK_TOKENS, len(states)) * self.vocabulary)
        for start, spans in chunks(lengths):
            chunk = states[start : start + CHUNK_TOKENS]
            for peak, (sequence, _, _) in zip(self._tops(chunk, spans, memory), spans, strict=True):
                torch.maximum(peaks[sequence], peak, out=peaks[sequence])
        return peaks.add_(self.words_bias).float()  # a bias is the same for all tokens, so it may wait for the largest

    def _tops(
        self, chunk: torch.Tensor, spans: list[tuple[int, int, int]], memory: torch.Tensor
    ) -> Iterator[torch.Tensor]:
        """The largest logit of each word, its bias left out, for each span of a [tokens, width] chunk."""
        logits = memory[: len(chunk) * self.vocabulary]
        if len(spans) == 1:  # the product is a third faster with one row a word, but only whole rows are quick to scan
            yield torch.mm(self.words, chunk.t(), out=logits.view(self.vocabulary, len(chunk))).amax(1)
            return
        rows = torch.mm(chunk, self.words.t(), out=logits.view(len(chunk), self.vocabulary))
        for _, low, high in spans:
            yield rows[low:high].amax(0)


def chunks(lengths: list[int], size: int = CHUNK_TOKENS) -> Iterator[tuple[int, list[tuple[int, int, int]]]]:
    """Cut packed sequences into pieces of `size` tokens, whatever sequence they belong to.

    Yields where a piece starts, and which sequence has which of its tokens: (sequence, from, to) inside the piece.
    """
    start, spans, filled = 0, list[tuple[int, int, int]](), 0
    for sequence, length in enumerate(lengths):
        left = length
        while left:
            taken = min(left, size - filled)
            spans.append((sequence, filled, filled + taken))
            filled, left = filled + taken, left - taken
            if filled == size:
                yield start, spans
                start, spans, filled = start + size, [], 0
    if filled:
        yield start, spans


def read_head(
    tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any], width: int, device: str, dtype: torch.dtype
) -> MlmHead:
    """The head of a BERT's checkpoint; its word matrix is that of the embeddings unless it brings its own.

    Raises:
        LoadError: UNKNOWN naming a tensor that is missing or has another shape.
    """
    checkpoint = Checkpoint(tensors, _canonical, device)

    def get(name: str, *wanted: int) -> torch.Tensor:
        return checkpoint.get(f"cls.predictions.{name}", *wanted, dtype=dtype)

    words = checkpoint.find("cls.predictions.decoder.weight", dtype=dtype)
    if words is None:
        words = checkpoint.get("embeddings.word_embeddings.weight", dtype=dtype)
    bias = checkpoint.find("cls.predictions.decoder.bias", len(words), dtype=dtype)
    return MlmHead(
        dense=get("transform.dense.weight", width, width).t().contiguous(),
        dense_bias=get("transform.dense.bias", width),
        norm=Norm(get("transform.LayerNorm.weight", width), get("transform.LayerNorm.bias", width)),
        norm_eps=float(config.get("layer_norm_eps", 1e-12)),
        words=words,
        words_bias=get("bias", len(words)) if bias is None else bias,
    )


def _canonical(name: str) -> str:
    """A tensor's name as BERT has it."""
    for own, bert in _BERT_NAMES:
        name = name.replace(own, bert)
    return canonical(name)
