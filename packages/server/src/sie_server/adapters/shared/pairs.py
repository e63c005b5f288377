"""Pairs of texts whose parts are tokenised once, however many pairs they are in."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from sie_protocol.arrays import Array
from sie_server.adapters.base import LoadError
from sie_server.adapters.shared.tokenize import open_tokenizer
from sie_server.core.lifecycle import ErrorClass


class PairTokenizer:
    """Puts pairs together as a model's own tokenizer would; a pair that is too long loses the end of its first text.

    `room` is for both texts together, in tokens, beside the special ones.
    """

    def __init__(self, folder: Path, max_length: int) -> None:
        self._tokenizer = open_tokenizer(folder)
        self._ids, self._types, self._first, self._second = _template(self._tokenizer)
        self.special = sum(map(len, self._ids))
        self.room = max_length - self.special

    def read(self, texts: Sequence[str]) -> list[Array]:
        """Token ids of each text alone, without special tokens; may be called from several threads."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.asarray(each.ids, np.int64) for each in encodings]

    def length(self, first: Array, second: Array) -> int:
        """Tokens of a pair, special ones included."""
        return min(len(first) + len(second), self.room) + self.special

    def pair(self, first: Array, second: Array) -> tuple[Array, Array]:
        """Ids and token types of a pair; the second text fits into `room`."""
        kept = first[: self.room - len(second)]
        before, between, after = self._ids
        ids = np.concatenate([before, kept, between, second, after])
        before, between, after = self._types
        firsts, seconds = np.full(len(kept), self._first), np.full(len(second), self._second)
        return ids, np.concatenate([before, firsts, between, seconds, after])


def _template(tokenizer: Tokenizer) -> tuple[list[Array], list[Array], int, int]:
    """Ids and types of the special tokens before, between and after two texts, and the types of the texts."""
    probe = tokenizer.encode("a", "a")
    texts = [[at for at, of in enumerate(probe.sequence_ids) if of == text] for text in (0, 1)]
    if not all(texts):
        raise LoadError(ErrorClass.UNKNOWN, "the model's tokenizer does not put two texts together")
    (first, *_), (second, *_) = texts
    cuts = [slice(0, first), slice(texts[0][-1] + 1, second), slice(texts[1][-1] + 1, len(probe))]
    ids, types = np.asarray(probe.ids, np.int64), np.asarray(probe.type_ids, np.int64)
    return [ids[cut] for cut in cuts], [types[cut] for cut in cuts], int(types[first]), int(types[second])
