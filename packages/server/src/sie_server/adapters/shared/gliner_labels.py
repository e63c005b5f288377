"""Labels that an encoder of their own reads (Stepanov and Shtopko 2024, arXiv:2406.12925): the mean of its states.

What a label means does not depend on the text then, nor on the other labels, so its vector is kept: callers ask
for the same few labels again and again, and a thousand of them cost as little as one once they are known.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import torch

from sie_protocol.arrays import Array
from sie_server.adapters.base import UnsupportedInputError
from sie_server.adapters.shared.architectures import Encoder, read_architecture
from sie_server.adapters.shared.checkpoint import Checkpoint
from sie_server.adapters.shared.chunks import chunk_tokens
from sie_server.adapters.shared.gliner_config import GlinerConfig, saved_by_an_old_version
from sie_server.adapters.shared.gliner_heads import Linear, linear
from sie_server.adapters.shared.pooling import pool
from sie_server.adapters.shared.tokenize import open_tokenizer
from sie_server.adapters.shared.vector_cache import SIZE, Key, VectorCache

TOKENIZER: Final = "labels_tokenizer"
_ENCODER: Final = "token_rep_layer.labels_encoder.model."
_PROJECTION: Final = "token_rep_layer.labels_projection"


class LabelVectors:
    """From labels to vectors; may be used from several threads."""

    def __init__(
        self, folder: Path, encoder: Encoder, positions: int, projection: Linear | None, limit: int, kept: int
    ) -> None:
        self._tokenizer = open_tokenizer(folder)
        self._encoder = encoder
        self._positions = positions
        self._projection = projection
        self._cache = VectorCache(self._compute, limit, kept)

    def read(self, labels: Sequence[str]) -> tuple[Key, ...]:
        """The token ids of labels, special tokens included.

        Raises:
            UnsupportedInputError: one is longer than its encoder reads.
        """
        read = tuple(tuple(each.ids) for each in self._tokenizer.encode_batch_fast(list(labels)))
        for label, ids in zip(labels, read, strict=True):
            if len(ids) > self._positions:
                raise UnsupportedInputError(
                    f"the label '{label[:100]}' has {len(ids)} tokens, the model reads {self._positions} of a label"
                )
        return read

    def unknown_tokens(self, labels: Iterable[Key]) -> int:
        """How many tokens the encoder would read of these labels now: those of labels that are not kept."""
        return self._cache.missing_tokens(labels)

    @torch.inference_mode()
    def of(self, labels: Sequence[Key]) -> torch.Tensor:
        """Float32 vectors [labels, width]."""
        return self._cache.of(labels)

    def _compute(self, labels: Sequence[Array]) -> torch.Tensor:
        hidden, lengths = self._encoder.encode(labels)
        vectors = pool(hidden.float(), lengths, "mean")
        return vectors if self._projection is None else self._projection(vectors)


def read_label_vectors(
    folder: Path,
    tensors: Mapping[str, torch.Tensor],
    config: GlinerConfig,
    device: str,
    dtype: torch.dtype,
    kept: int = SIZE,
) -> LabelVectors | None:
    """The second encoder of a model that has one.

    Raises:
        LoadError: DEPENDENCY for an encoder that is not computed here or a folder without its tokenizer, UNKNOWN naming
            a tensor that is missing or has another shape.
    """
    if config.labels_encoder is None:
        return None
    if not (folder / TOKENIZER / "tokenizer.json").is_file():
        raise saved_by_an_old_version(f"the model folder has no {TOKENIZER}/tokenizer.json")
    architecture = read_architecture(config.labels_encoder)
    own = {name.removeprefix(_ENCODER): each for name, each in tensors.items() if name.startswith(_ENCODER)}
    encoder = architecture.build(own, device, dtype)
    get, is_alike = Checkpoint(tensors, str, device).get, architecture.width == config.width
    projection = None if is_alike else linear(get, _PROJECTION, architecture.width, config.width)
    limit = chunk_tokens(device)
    return LabelVectors(folder / TOKENIZER, encoder, architecture.positions, projection, limit, kept)
