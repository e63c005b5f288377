"""How a model's tokenizer puts two texts together, and which of their tokens fit."""

from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from sie_protocol.arrays import Array
from sie_server.adapters.base import LoadError
from sie_server.core.lifecycle import ErrorClass


@dataclass(frozen=True, slots=True)
class PairFrame:
    """Ids and token types of the special tokens before, between and after two texts, and the types of the texts."""

    ids: tuple[Array, Array, Array]
    types: tuple[Array, Array, Array]
    first: int
    second: int

    @property
    def special(self) -> int:
        """How many special tokens a pair has."""
        return sum(map(len, self.ids))

    def around(self, first: Array, second: Array) -> tuple[Array, Array]:
        """Ids and token types [tokens] of a pair, from the ids of its texts without special tokens."""
        before, between, after = self.ids
        ids = np.concatenate([before, first, between, second, after])
        before, between, after = self.types
        firsts, seconds = np.full(len(first), self.first), np.full(len(second), self.second)
        return ids, np.concatenate([before, firsts, between, seconds, after])


def read_frame(tokenizer: Tokenizer) -> PairFrame:
    """The frame that a tokenizer, which does not cut, puts around two texts.

    Raises:
        LoadError: UNKNOWN when it does not put two texts together.
    """
    probe = tokenizer.encode("a", "a")
    texts = [[at for at, of in enumerate(probe.sequence_ids) if of == text] for text in (0, 1)]
    if not all(texts):
        raise LoadError(ErrorClass.UNKNOWN, "the model's tokenizer does not put two texts together")
    (first, *_), (second, *_) = texts
    before, between, after = slice(0, first), slice(texts[0][-1] + 1, second), slice(texts[1][-1] + 1, len(probe))
    ids, types = np.asarray(probe.ids, np.int64), np.asarray(probe.type_ids, np.int64)
    return PairFrame(
        (ids[before], ids[between], ids[after]),
        (types[before], types[between], types[after]),
        int(types[first]),
        int(types[second]),
    )


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of each of two texts fit into `room`: the longer one is cut, and once they are equal both are.

    The rule of the library `tokenizers`: of an odd number the longer text has one more, the second of two equal ones.
    """
    short, long = min(first, second), max(first, second)
    if first + second > room:
        long = max(short, room - short)
        if short + long > room:
            short, long = room // 2, room - room // 2
    return (long, short) if first > second else (short, long)
