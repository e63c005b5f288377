"""Texts to token ids with the tokenizer that a model ships. Releases the GIL while it works."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from tokenizers import Encoding, Tokenizer

from sie_server.adapters.base import Input, LoadError, Pair, Prepared, UnsupportedInputError
from sie_server.core.lifecycle import ErrorClass

# Of a text that is much longer than a model reads, so many characters a token are read first, and no fewer than these.
# What the front gives is what the whole would give, but for the word that is cut. That is one token for a vocabulary of
# words when it is longer than 100 characters, and up to 100 when it is not: so the front counts only if it has another
# whole text of tokens, and more than these, behind those that are kept.
FRONT_CHARS: Final = 12  # about three times what a token of most languages has
LEAST_FRONT_CHARS: Final = 1024
LEAST_LEFT_TOKENS: Final = 128
SHORT_SHARE: Final = 8  # a text with an eighth of a model's tokens for characters has at most half of them for tokens

T = TypeVar("T", str, Pair)


def open_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model's folder; it neither pads nor cuts, whatever its file says.

    Raises:
        LoadError: NOT_FOUND when there is no tokenizer.json, UNKNOWN when it is none.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise LoadError(ErrorClass.NOT_FOUND, "the model folder has no tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library has no narrower class
        raise LoadError(ErrorClass.UNKNOWN, f"tokenizer.json cannot be read: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


class TextTokenizer:
    """`payload` of what it prepares is an int64 array of token ids, special tokens included, at most `max_length`.

    With `end_token` every text ends with it, cut or not; most tokenizers that need one add it themselves.
    """

    def __init__(self, folder: Path, max_length: int, *, lower_case: bool, end_token: str | None = None) -> None:
        self._tokenizer = open_tokenizer(folder)
        self.max_length = max_length
        self._end = _missing_end(self._tokenizer, end_token)
        self._tokenizer.enable_truncation(max_length - len(self._end))  # of a pair, the longer text loses its end first
        self._vocabulary = self._tokenizer.get_vocab_size()
        self._lower_case = lower_case
        self._front_chars = max(FRONT_CHARS * max_length, LEAST_FRONT_CHARS)
        self._left_pieces = 2 + LEAST_LEFT_TOKENS // max_length

    @property
    def special_ids(self) -> tuple[int, ...]:
        """Ids of words like [SEP], ascending."""
        added = self._tokenizer.get_added_tokens_decoder()
        return tuple(sorted(identity for identity, token in added.items() if token.special))

    def id_of(self, word: str) -> int | None:
        """The id of a word of the vocabulary."""
        return self._tokenizer.token_to_id(word)

    def plain_ids(self, text: str) -> list[int]:
        """The ids of a text without special tokens around it."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def prepare_plain(self, texts: Sequence[str]) -> list[Prepared]:
        """As `prepare`, but without special tokens and end token."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [Prepared(len(each), bool(each.overflowing), np.asarray(each.ids, np.int64)) for each in encodings]

    def prepare(self, texts: Sequence[str]) -> list[Prepared]:
        """Tokenise in one call; may be called from several threads."""
        return [self._prepared(each) for each in self._encoded(texts)]

    def prepare_pairs(self, pairs: Sequence[Pair]) -> list[Prepared]:
        """The same for pairs, whose payload is [2, tokens]: the ids, and below them each token's type."""
        return [
            Prepared(len(each), bool(each.overflowing), np.array([each.ids, each.type_ids], dtype=np.int64))
            for each in self._encoded(pairs)
        ]

    def count(self, given: Input) -> int:
        """How many tokens a text, or a pair, has before it is cut, special tokens included.

        Raises:
            UnsupportedInputError: it is neither.
        """
        if not isinstance(given, str | Pair):
            raise UnsupportedInputError("the model reads texts only")
        specials = self._tokenizer.num_special_tokens_to_add(isinstance(given, Pair)) + len(self._end)
        return specials + self.count_plain(given)

    def count_plain(self, given: str | Pair) -> int:
        """The same without special tokens."""
        texts = (given,) if isinstance(given, str) else given
        return sum(self._whole(text.lower() if self._lower_case else text) for text in texts)

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

    def _encoded(self, given: Sequence[T]) -> list[Encoding]:
        """Each text or pair, cut. Of one that is much too long only the front is read, if that alone is too long."""
        fronts = [self._front(each) for each in given]
        encodings: list[Encoding] = self._tokenizer.encode_batch_fast(list(map(self._cased, fronts)))
        too_short = [
            at
            for at, front in enumerate(fronts)
            if front is not given[at] and len(encodings[at].overflowing) < self._left_pieces
        ]
        whole = self._tokenizer.encode_batch_fast([self._cased(given[at]) for at in too_short]) if too_short else []
        for at, encoding in zip(too_short, whole, strict=True):
            encodings[at] = encoding
        return encodings

    def _front(self, given: T) -> T:
        room = self._front_chars
        if isinstance(given, str):
            return given[:room] if len(given) > 2 * room else given
        first, second = given
        # Which text of a pair is cut, and where, depends on the lengths of both, unless one is far too long and the
        # other surely short.
        if len(second) > 2 * room and SHORT_SHARE * len(first) < self.max_length:
            return Pair(first, second[:room])
        return given

    def _cased(self, given: str | Pair) -> str | Pair:
        if not self._lower_case:
            return given
        return given.lower() if isinstance(given, str) else Pair(*map(str.lower, given))

    def _whole(self, text: str) -> int:
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return len(encoding) + sum(len(piece) for piece in encoding.overflowing)

    def _prepared(self, encoding: Encoding) -> Prepared:
        ids = np.asarray([*encoding.ids, *self._end] if self._end else encoding.ids, dtype=np.int64)
        return Prepared(len(ids), bool(encoding.overflowing), ids)


def _missing_end(tokenizer: Tokenizer, token: str | None) -> list[int]:
    """The token that a text must end with, where the tokenizer does not see to it."""
    if token is None:
        return []
    number = tokenizer.token_to_id(token)
    if number is None:
        raise LoadError(
            ErrorClass.UNKNOWN, f"end_token '{token}' of the catalogue is no token of the model's tokenizer"
        )
    return [] if tokenizer.encode("").ids[-1:] == [number] else [number]
