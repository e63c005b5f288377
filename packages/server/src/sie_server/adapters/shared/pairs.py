"""Pairs of texts whose parts are tokenised once, however many pairs they are in."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sie_protocol.arrays import Array
from sie_server.adapters.shared.pair_frame import read_frame
from sie_server.adapters.shared.tokenize import open_tokenizer


class PairTokenizer:
    """Puts pairs together as a model's own tokenizer would; a pair that is too long loses the end of its first text.

    `room` is for both texts together, in tokens, beside the special ones.
    """

    def __init__(self, folder: Path, max_length: int) -> None:
        self._tokenizer = open_tokenizer(folder)
        self._frame = read_frame(self._tokenizer)
        self.special = self._frame.special
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
        return self._frame.around(first[: self.room - len(second)], second)
