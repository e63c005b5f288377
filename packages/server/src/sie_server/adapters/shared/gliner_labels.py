"""Labels that an encoder of their own reads (Stepanov and Shtopko 2024, arXiv:2406.12925): the mean of its states.

What a label means does not depend on the text then, nor on the other labels, so its vector is kept: callers ask
for the same few labels again and again, and a thousand of them cost as little as one once they are known.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch

from sie_protocol.arrays import Array
from sie_server.adapters.base import UnsupportedInputError
from sie_server.adapters.shared.architectures import Encoder, read_architecture
from sie_server.adapters.shared.checkpoint import Checkpoint
from sie_server.adapters.shared.chunks import chunk_tokens, chunks
from sie_server.adapters.shared.gliner_config import GlinerConfig, saved_by_an_old_version
from sie_server.adapters.shared.gliner_heads import Linear, linear
from sie_server.adapters.shared.pooling import pool
from sie_server.adapters.shared.tokenize import open_tokenizer

# Vectors kept of one model, the latest asked for: four requests of as many labels as one may have, some 10 MB.
LABELS_KEPT: Final = 4096
TOKENIZER: Final = "labels_tokenizer"
_ENCODER: Final = "token_rep_layer.labels_encoder.model."
_PROJECTION: Final = "token_rep_layer.labels_projection"


class LabelText(NamedTuple):
    """A label and its token ids, special tokens included."""

    text: str
    ids: Array


class LabelVectors:
    """From labels to vectors; may be used from several threads."""

    def __init__(
        self, folder: Path, encoder: Encoder, positions: int, projection: Linear | None, limit: int, kept: int
    ) -> None:
        self._tokenizer = open_tokenizer(folder)
        self._encoder = encoder
        self._positions = positions
        self._projection = projection
        self._limit = limit
        self._most = kept
        self._kept: OrderedDict[str, torch.Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, labels: Sequence[str]) -> tuple[LabelText, ...]:
        """Tokenise labels.

        Raises:
            UnsupportedInputError: one is longer than its encoder reads.
        """
        encodings = self._tokenizer.encode_batch_fast(list(labels))
        read = tuple(
            LabelText(label, np.asarray(encoding.ids, np.int64))
            for label, encoding in zip(labels, encodings, strict=True)
        )
        for label, ids in read:
            if len(ids) > self._positions:
                raise UnsupportedInputError(
                    f"the label '{label[:100]}' has {len(ids)} tokens, the model reads {self._positions} of a label"
                )
        return read

    def unknown_tokens(self, labels: Iterable[LabelText]) -> int:
        """How many tokens the encoder would read of these labels now: those of labels that are not kept."""
        with self._lock:
            return sum(len(ids) for text, ids in labels if text not in self._kept)

    @torch.inference_mode()
    def of(self, labels: Sequence[LabelText]) -> torch.Tensor:
        """Float32 vectors [labels, width]; labels that are not kept are computed in pieces of bounded size."""
        found = self._recall(labels)
        missing = list({each.text: each for each in labels if each.text not in found}.values())
        for places in chunks([len(each.ids) for each in missing], self._limit):
            hidden, lengths = self._encoder.encode([missing[at].ids for at in places])
            vectors = pool(hidden.float(), lengths, "mean")
            vectors = vectors if self._projection is None else self._projection(vectors)
            # A row of its own each: a view would keep the vectors of all its neighbours alive.
            found |= {missing[at].text: row.clone() for at, row in zip(places, vectors, strict=True)}
        self._keep({each.text: found[each.text] for each in missing})
        return torch.stack([found[each.text] for each in labels])

    def _recall(self, labels: Sequence[LabelText]) -> dict[str, torch.Tensor]:
        with self._lock:
            found = {each.text: self._kept[each.text] for each in labels if each.text in self._kept}
            for text in found:
                self._kept.move_to_end(text)
            return found

    def _keep(self, vectors: Mapping[str, torch.Tensor]) -> None:
        with self._lock:
            self._kept.update(vectors)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)


def read_label_vectors(
    folder: Path,
    tensors: Mapping[str, torch.Tensor],
    config: GlinerConfig,
    device: str,
    dtype: torch.dtype,
    kept: int = LABELS_KEPT,
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
