"""How late-interaction models read texts: with a marker, with filled-up queries, without a document's punctuation."""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sie_protocol.arrays import Array
from sie_server.adapters.base import LoadError, Prepared
from sie_server.adapters.shared.sentence_transformers_files import read_text_settings
from sie_server.adapters.shared.tokenize import TextTokenizer
from sie_server.core.lifecycle import ErrorClass

FILLINGS, PADDINGS = ("[MASK]", "<mask>"), ("[PAD]", "<pad>")


@dataclass(frozen=True, slots=True)
class Tokens:
    """One text: its ids, how many of them others attend to, and which of their vectors are wanted; both [tokens]."""

    ids: Array
    key_length: int
    kept: Array


@dataclass(frozen=True, slots=True)
class Side:
    """How queries, or documents, are read. `fill` is the id that fills them up to `length`, `skipped` are ids too.

    `sees_filling`: tokens look at what fills.
    """

    tokenizer: TextTokenizer
    marker: int
    length: int
    fill: int | None
    skipped: Array
    sees_filling: bool = False

    def prepare(self, texts: Sequence[str]) -> list[Prepared]:
        """`payload` is Tokens."""
        return [self._one(each) for each in self.tokenizer.prepare(texts)]

    def _one(self, text: Prepared) -> Prepared:
        ids = np.insert(text.payload, 1, self.marker)
        key_length = len(ids)
        if self.fill is not None:
            ids = np.concatenate([ids, np.full(self.length - key_length, self.fill, ids.dtype)])
        key_length = len(ids) if self.sees_filling else key_length
        return Prepared(len(ids), text.truncated, Tokens(ids, key_length, ~np.isin(ids, self.skipped)))


def read_queries(folder: Path, options: Mapping[str, Any], length: int) -> Side:
    """Queries of at most this many tokens, marker included; exactly as many with `query_expansion`.

    Raises:
        LoadError: a token that an option names is not in the vocabulary.
    """
    tokenizer = _tokenizer(folder, length)
    fill = _id(tokenizer, *FILLINGS) if options.get("query_expansion", True) else None
    marker, seen = _id(tokenizer, options.get("query_marker", "[unused0]")), bool(options.get("expansion_seen", False))
    return Side(tokenizer, marker, length, fill, np.array([], np.int64), seen)


def read_documents(folder: Path, options: Mapping[str, Any], length: int) -> Side:
    """Documents of at most this many tokens, marker included; punctuation is skipped if `skip_punctuation`.

    Raises:
        LoadError: a token that an option names is not in the vocabulary.
    """
    tokenizer = _tokenizer(folder, length)
    skips = options.get("skip_punctuation", True)
    found = [tokenizer.id_of(symbol) for symbol in (*PADDINGS, *(string.punctuation if skips else ""))]
    skipped = np.array([each for each in found if each is not None], np.int64)
    return Side(tokenizer, _id(tokenizer, options.get("doc_marker", "[unused1]")), length, None, skipped)


def _tokenizer(folder: Path, length: int) -> TextTokenizer:
    lower_case = bool(read_text_settings(folder).get("do_lower_case", False))
    return TextTokenizer(folder, length - 1, lower_case=lower_case)  # one token less: the marker needs its place


def _id(tokenizer: TextTokenizer, *tokens: str) -> int:
    """The id of the first of these that there is."""
    found = next((each for token in tokens if (each := tokenizer.id_of(token)) is not None), None)
    if found is None:
        raise LoadError(ErrorClass.UNKNOWN, f"the model's vocabulary has no token '{' or '.join(tokens)}'")
    return found
