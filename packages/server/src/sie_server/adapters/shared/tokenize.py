"""Texts to token ids with the tokenizer that a model ships. Releases the GIL while it works."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from sie_server.adapters.base import LoadError, Pair, Prepared, UnsupportedInputError
from sie_server.core.lifecycle import ErrorClass


class TextTokenizer:
    """`payload` of what it prepares is an int64 array of token ids, special tokens included, at most `max_length`."""

    def __init__(self, folder: Path, max_length: int, *, lower_case: bool) -> None:
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise LoadError(ErrorClass.NOT_FOUND, "the model folder has no tokenizer.json")
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length)  # of a pair, the longer text loses its end first
        self._vocabulary = self._tokenizer.get_vocab_size()
        self._lower_case = lower_case

    def prepare(self, texts: Sequence[str]) -> list[Prepared]:
        """Tokenise in one call; may be called from several threads."""
        wanted = [text.lower() for text in texts] if self._lower_case else list(texts)
        encodings = self._tokenizer.encode_batch_fast(wanted)
        return [Prepared(len(each), bool(each.overflowing), np.asarray(each.ids, dtype=np.int64)) for each in encodings]

    def prepare_pairs(self, pairs: Sequence[Pair]) -> list[Prepared]:
        """The same for pairs, whose payload is [2, tokens]: the ids, and below them each token's type."""
        wanted = [Pair(*map(str.lower, pair)) for pair in pairs] if self._lower_case else list(pairs)
        encodings = self._tokenizer.encode_batch_fast(wanted)
        return [
            Prepared(len(each), bool(each.overflowing), np.array([each.ids, each.type_ids], dtype=np.int64))
            for each in encodings
        ]

    def texts_of(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """The text of each list of token ids, special tokens left out.

        Raises:
            UnsupportedInputError: an id outside the vocabulary.
        """
        wrong = [each for ids in tokens for each in ids if not 0 <= each < self._vocabulary]
        if wrong:
            message = f"token {wrong[0]} is not one of the model's tokens, which are 0 to {self._vocabulary - 1}"
            raise UnsupportedInputError(message)
        return self._tokenizer.decode_batch([list(ids) for ids in tokens], skip_special_tokens=True)
