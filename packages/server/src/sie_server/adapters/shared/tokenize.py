"""Texts to token ids with the tokenizer that a model ships. Releases the GIL while it works."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from sie_server.adapters.base import LoadError, Prepared
from sie_server.core.lifecycle import ErrorClass


class TextTokenizer:
    """`payload` of what it prepares is an int64 array of token ids, special tokens included, at most `max_length`."""

    def __init__(self, folder: Path, max_length: int, *, lower_case: bool) -> None:
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise LoadError(ErrorClass.NOT_FOUND, "the model folder has no tokenizer.json")
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length)
        self._lower_case = lower_case

    @property
    def special_ids(self) -> tuple[int, ...]:
        """Ids of words like [SEP], ascending."""
        added = self._tokenizer.get_added_tokens_decoder()
        return tuple(sorted(identity for identity, token in added.items() if token.special))

    def id_of(self, word: str) -> int | None:
        """The id of a word of the vocabulary."""
        return self._tokenizer.token_to_id(word)

    def prepare(self, texts: Sequence[str]) -> list[Prepared]:
        """Tokenise in one call; may be called from several threads."""
        wanted = [text.lower() for text in texts] if self._lower_case else list(texts)
        encodings = self._tokenizer.encode_batch_fast(wanted)
        return [Prepared(len(each), bool(each.overflowing), np.asarray(each.ids, dtype=np.int64)) for each in encodings]
