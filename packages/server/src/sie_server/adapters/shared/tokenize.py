"""Texts to token ids with the tokenizer that a model ships. Releases the GIL while it works."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from tokenizers import Encoding, Tokenizer

from sie_server.adapters.base import Input, LoadError, Pair, Prepared, UnsupportedInputError
from sie_server.adapters.shared.pair_frame import longest_first, read_frame
from sie_server.core.lifecycle import ErrorClass

# Of a text that is much longer than a model reads, so many characters a token are read first, and no fewer than these.
# What the front gives is what the whole would give, but for the word that is cut. That is one token for a vocabulary of
# words when it is longer than 100 characters, and up to 100 when it is not: so the front counts only if it has another
# whole text of tokens, and more than these, behind those that are kept.
FRONT_CHARS: Final = 12  # about three times what a token of most languages has
LEAST_FRONT_CHARS: Final = 1024
LEAST_LEFT_TOKENS: Final = 128


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

    With `end_token` every text ends with it, cut or not; most tokenizers that need one add it themselves. `pairs`: it
    also reads pairs.
    """

    def __init__(
        self, folder: Path, max_length: int, *, lower_case: bool, end_token: str | None = None, pairs: bool = False
    ) -> None:
        self._tokenizer = open_tokenizer(folder)
        self._frame = read_frame(self._tokenizer) if pairs else None
        self.max_length = max_length
        self._end = _missing_end(self._tokenizer, end_token)
        self._tokenizer.enable_truncation(max_length - len(self._end))
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
        encodings = self._encoded(texts, special=False)
        return [Prepared(len(each), bool(each.overflowing), np.asarray(each.ids, np.int64)) for each in encodings]

    def prepare(self, texts: Sequence[str]) -> list[Prepared]:
        """Tokenise in one call; may be called from several threads."""
        return [self._prepared(each) for each in self._encoded(texts)]

    def prepare_pairs(self, pairs: Sequence[Pair]) -> list[Prepared]:
        """The same for pairs, whose payload is [2, tokens]: the ids, and below them each token's type.

        Of a pair that is too long, the longer text loses its end first. Each text is tokenised once and alone: the
        library, given a pair, makes every way to go on with both texts, which of two long ones fill any memory.
        """
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        read = dict(zip(texts, self.prepare_plain(texts), strict=True))
        whole = cache(self._whole)
        return [self._paired(pair, read[pair.first], read[pair.second], whole) for pair in pairs]

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
        return sum(map(self._whole, texts))

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

    def _encoded(self, texts: Sequence[str], *, special: bool = True) -> list[Encoding]:
        """Each text, cut. Of one that is much too long only the front is read, if that alone is too long."""
        fronts = [self._front(each) for each in texts]
        encodings = self._encode(fronts, special=special)
        too_short = [
            at
            for at, front in enumerate(fronts)
            if front is not texts[at] and len(encodings[at].overflowing) < self._left_pieces
        ]
        whole = self._encode([texts[at] for at in too_short], special=special) if too_short else []
        for at, encoding in zip(too_short, whole, strict=True):
            encodings[at] = encoding
        return encodings

    def _encode(self, texts: Sequence[str], *, special: bool) -> list[Encoding]:
        cased = [each.lower() for each in texts] if self._lower_case else list(texts)
        encodings: list[Encoding] = self._tokenizer.encode_batch_fast(cased, add_special_tokens=special)
        return encodings

    def _front(self, text: str) -> str:
        room = self._front_chars
        return text[:room] if len(text) > 2 * room else text

    def _paired(self, pair: Pair, first: Prepared, second: Prepared, whole: Callable[[str], int]) -> Prepared:
        """`whole` counts all tokens of a text; the two are cut at `max_length`, which is more than fits."""
        assert self._frame is not None, "it was not made for pairs"  # noqa: S101 - a bug of the adapter
        room = self.max_length - self._frame.special
        lengths = first.tokens + first.truncated, second.tokens + second.truncated
        if room % 2 and first.truncated and second.truncated:
            lengths = whole(pair.first), whole(pair.second)  # the longer one keeps the odd token
        kept = longest_first(*lengths, room)
        payload = np.stack(self._frame.around(first.payload[: kept[0]], second.payload[: kept[1]]))
        return Prepared(payload.shape[1], sum(lengths) > room, payload)

    def _whole(self, text: str) -> int:
        encoding = self._tokenizer.encode(text.lower() if self._lower_case else text, add_special_tokens=False)
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
