"""Texts of any length as windows that a model can read, and which window answers for which token.

Neighbouring windows share `stride` tokens. The first half of those belongs to the earlier window, the second half to
the later one, so that every token is answered once, by the window in which it stands farther from a border: findings
need no merging, and may be longer than what windows share.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Encoding, Tokenizer

from sie_protocol.arrays import Array
from sie_server.adapters.base import LoadError
from sie_server.adapters.shared.tokenize import open_tokenizer
from sie_server.core.lifecycle import ErrorClass

DEFAULT_STRIDE = 64


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens `start` to `end` of a text, of which those from `own_start` to `own_end` are this window's to answer."""

    start: int
    end: int
    own_start: int
    own_end: int


def plan(tokens: int, room: int, stride: int) -> list[Window]:
    """Windows of at most `room` tokens over a text, the last one as long as the others; `stride` is below `room`."""
    windows: list[Window] = []
    start, own_start = 0, 0
    while start + room < tokens:
        following = min(start + room - stride, tokens - room)
        own_end = (start + room + following + 1) // 2
        windows.append(Window(start, start + room, own_start, own_end))
        start, own_start = following, own_end
    return [*windows, Window(start, tokens, own_start, tokens)]


@dataclass(frozen=True, slots=True)
class WindowedText:
    """One text. Each of its `tokens` has a place in the text, `spans` [tokens, 2] in characters, and a word's number.

    `sequences` are the ids of each window, special tokens included, of which `lead` come first.
    """

    sequences: tuple[Array, ...]
    windows: tuple[Window, ...]
    lead: int
    spans: Array
    words: Array

    def joined(self, rows: Sequence[Array]) -> Array:
        """One row for each token of the text, from the rows [tokens of a window, ...] of each window."""
        parts = [
            part[self.lead + window.own_start - window.start : self.lead + window.own_end - window.start]
            for part, window in zip(rows, self.windows, strict=True)
        ]
        return np.concatenate(parts)


class WindowTokenizer:
    """Tokenises whole texts for a model of at most `max_length` tokens, special tokens included."""

    def __init__(self, folder: Path, max_length: int) -> None:
        self._tokenizer = open_tokenizer(folder)
        self._before, self._after = ends(self._tokenizer)
        self.room = max_length - len(self._before) - len(self._after)
        if self.room < 1:
            raise LoadError(ErrorClass.UNKNOWN, f"a length of {max_length} tokens leaves no room for a text")

    def read(self, texts: Sequence[str], strides: Sequence[int]) -> list[WindowedText]:
        """Tokenise in one call; may be called from several threads."""
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [self._windowed(encoding, stride) for encoding, stride in zip(encodings, strides, strict=True)]

    def _windowed(self, encoding: Encoding, stride: int) -> WindowedText:
        ids = np.asarray(encoding.ids, np.int64)
        windows = plan(len(ids), self.room, stride)
        sequences = [np.concatenate([self._before, ids[each.start : each.end], self._after]) for each in windows]
        # A token without a word of its own is one: numbers below zero are nobody else's.
        words = [-1 - at if word is None else word for at, word in enumerate(encoding.word_ids)]
        spans = np.asarray(encoding.offsets, np.int64).reshape(-1, 2)
        return WindowedText(tuple(sequences), tuple(windows), len(self._before), spans, np.asarray(words, np.int64))


def ends(tokenizer: Tokenizer) -> tuple[Array, Array]:
    """The special tokens before and after a text."""
    probe = tokenizer.encode("a")
    inside = [at for at, is_special in enumerate(probe.special_tokens_mask) if not is_special]
    if not inside:
        raise LoadError(ErrorClass.UNKNOWN, "the model's tokenizer reads nothing in the text 'a'")
    ids = np.asarray(probe.ids, np.int64)
    return ids[: inside[0]], ids[inside[-1] + 1 :]
