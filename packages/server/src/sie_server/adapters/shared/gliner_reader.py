"""How GLiNER reads: labels first, unless an encoder of their own reads them, then a text word by word, in windows.

Published models cut a text after `max_len` words, and lose what stands there. Here the next window starts before the
end of the last one, so that every piece of a text that is no longer than what they share lies inside one of them.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
from tokenizers import Encoding

from sie_protocol.arrays import Array
from sie_server.adapters.base import Labelled, LoadError, UnsupportedInputError
from sie_server.adapters.shared.gliner_config import GlinerConfig
from sie_server.adapters.shared.tokenize import open_tokenizer
from sie_server.adapters.shared.windows import ends
from sie_server.core.lifecycle import ErrorClass

WORD: Final = re.compile(r"\w+(?:[-_]\w+)*|\S")
LABEL_SETS: Final = 64  # kept tokenised; callers mostly ask for the same few
CONTEXT_WORDS: Final = 32  # words that two windows share at least: the meaning of a word lies in those beside it


@dataclass(frozen=True, slots=True)
class Prompt:
    """The tokens before the text, [CLS] included, and the place of each label's token among them, if any.

    Places of relations come behind those of labels.
    """

    ids: Array
    labels: Array


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids of a text's words [tokens], and where each word's tokens begin and how many they are, each [words]."""

    ids: Array
    starts: Array
    counts: Array


@dataclass(frozen=True, slots=True)
class Window:
    """What the model reads at once: token ids, the place of each word's first token, the number of the first word."""

    ids: Array
    words: Array
    first_word: int


@dataclass(frozen=True, slots=True)
class Reading:
    """One text: where its words begin and end, in characters, the places of its labels, and its windows."""

    words: Array
    labels: Array
    windows: tuple[Window, ...]
    truncated: bool


@dataclass(frozen=True, slots=True)
class Bounds:
    """Tokens that are read at once, labels included, and in all windows of one text together."""

    window: int
    text: int


@dataclass(frozen=True, slots=True)
class Layout:
    """How a model reads: at most `max_words` at once, of which a window shares `overlap` with the next one.

    A label stands behind `label_token`, and `end_token` ends the labels; None: labels are not read with the text.
    `reads_label_token`: a label's vector is that of its `label_token`, not of the token behind it. So with relations,
    which stand behind the labels, and end as these do.
    """

    max_words: int
    overlap: int = CONTEXT_WORDS
    label_token: str | None = None
    end_token: str = ""
    reads_label_token: bool = True
    relation_token: str | None = None
    reads_relation_token: bool = True


def layout_of(config: GlinerConfig) -> Layout:
    """The layout of a GLiNER; every piece of up to `max_width` words lies inside one of its windows."""
    return Layout(
        config.max_words,
        max(config.max_width - 1, CONTEXT_WORDS),
        config.label_token if config.labels_encoder is None else None,
        config.end_token,
        config.reads_label_token,
        config.relation_token,
        config.reads_relation_token,
    )


class GlinerReader:
    """Labels and texts to windows; `read` may be called from several threads."""

    def __init__(self, folder: Path, layout: Layout, bounds: Bounds) -> None:
        self._tokenizer = open_tokenizer(folder)
        self._layout = layout
        self._bounds = bounds
        if layout.label_token is None:
            before, self._end = ends(self._tokenizer)
            alone = Prompt(before, np.empty(0, np.int64))
            self._prompt = lru_cache(maxsize=1)(lambda _, __: alone)
            return
        for token in (layout.label_token, layout.end_token, layout.relation_token):
            if token is not None and self._tokenizer.token_to_id(token) is None:
                raise LoadError(ErrorClass.UNKNOWN, f"the model's tokenizer has no token '{token}'")
        self._end = self._tokenized_prompt((), ())[1]
        self._prompt = lru_cache(maxsize=LABEL_SETS)(lambda *asked: self._tokenized_prompt(*asked)[0])

    def read(self, inputs: Sequence[Labelled], relations: Sequence[tuple[str, ...]] = ()) -> list[Reading]:
        """Tokenise all texts in one call; `relations` are those that are asked for of each text, if of any.

        Raises:
            UnsupportedInputError: there are no labels, or so many that they leave no room for a text.
        """
        found = [list(islice(WORD.finditer(each.text), self._bounds.text + 1)) for each in inputs]
        words = [[match.group() for match in matches] for matches in found]
        encodings = self._tokenizer.encode_batch(words, is_pretokenized=True, add_special_tokens=False)
        places = [np.array([match.span() for match in matches], np.int64).reshape(-1, 2) for matches in found]
        related = relations or [()] * len(inputs)
        return [self._reading(*each) for each in zip(inputs, related, places, encodings, strict=True)]

    def _reading(self, asked: Labelled, relations: tuple[str, ...], places: Array, encoding: Encoding) -> Reading:
        if not asked.labels:
            raise UnsupportedInputError("the model finds what it is asked for; give it at least one label")
        prompt = self._prompt(asked.labels, relations)
        # Words of which the tokenizer leaves nothing, control characters for one, are none for the model.
        of_word = np.array(encoding.word_ids, np.int64)
        kept, starts, counts = np.unique(of_word, return_index=True, return_counts=True)
        tokens = Tokens(np.array(encoding.ids, np.int64), starts, counts)
        named = f"the {len(asked.labels) + len(relations)} labels"
        windows, truncated = windows_of(tokens, prompt, self._end, self._layout, self._bounds, named)
        return Reading(places[kept], prompt.labels, windows, truncated or len(places) > self._bounds.text)

    def _tokenized_prompt(self, labels: tuple[str, ...], relations: tuple[str, ...]) -> tuple[Prompt, Array]:
        """The prompt, and the tokens that stand behind the text."""
        layout = self._layout
        pieces = [*_marked(str(layout.label_token), labels), layout.end_token]
        markers = [*range(0, 2 * len(labels), 2)]
        shifts = [0 if layout.reads_label_token else 1] * len(labels)
        if layout.relation_token is not None:
            markers += range(len(pieces), len(pieces) + 2 * len(relations), 2)
            shifts += [0 if layout.reads_relation_token else 1] * len(relations)
            pieces += [*_marked(layout.relation_token, relations), layout.end_token]
        encoding = self._tokenizer.encode(pieces, is_pretokenized=True)
        of_word = np.array([-1 if word is None else word for word in encoding.word_ids], np.int64)
        end = int(np.flatnonzero(of_word >= 0)[-1]) + 1
        ids = np.array(encoding.ids, np.int64)
        places = [int(np.flatnonzero(of_word == number)[0]) for number in markers]
        return Prompt(ids[:end], np.array(places, np.int64) + np.array(shifts, np.int64)), ids[end:]


def _marked(marker: str, labels: tuple[str, ...]) -> list[str]:
    return [word for label in labels for word in (marker, label)]


def windows_of(
    tokens: Tokens, prompt: Prompt, end: Array, layout: Layout, bounds: Bounds, asked: str
) -> tuple[tuple[Window, ...], bool]:
    """The windows of a text behind a prompt, and whether something of the text is in none; `asked` tells of the prompt.

    Raises:
        UnsupportedInputError: the prompt leaves no room for a text.
    """
    room = bounds.window - len(prompt.ids) - len(end)
    if room < 1:
        raise UnsupportedInputError(
            f"{asked} take {len(prompt.ids)} tokens, and the model reads {bounds.window} at once, text included; ask "
            "for fewer at a time"
        )
    windows: list[Window] = []
    total, truncated = 0, bool((tokens.counts > room).any())
    for first, last in _parts(tokens.counts, layout.max_words, room, layout.overlap):
        start = tokens.starts[first]
        ids = tokens.ids[start : tokens.starts[last - 1] + tokens.counts[last - 1]][:room]
        total += len(prompt.ids) + len(ids) + len(end)
        if windows and total > bounds.text:
            truncated = True
            break
        whole = np.concatenate([prompt.ids, ids, end])
        windows.append(Window(whole, tokens.starts[first:last] - start + len(prompt.ids), first))
    return tuple(windows), truncated


def _parts(counts: Array, max_words: int, max_tokens: int, overlap: int) -> Iterator[tuple[int, int]]:
    """First word and the one after the last, for windows over words of so many tokens; at least one word each."""
    ends = np.cumsum(counts)
    first = 0
    while first < len(counts):
        before = ends[first] - counts[first]
        fitting = int(np.searchsorted(ends, before + max_tokens, side="right"))
        last = max(first + 1, min(first + max_words, fitting))
        yield first, last
        if last == len(counts):
            return
        first = last - min(overlap, (last - first) // 2)
