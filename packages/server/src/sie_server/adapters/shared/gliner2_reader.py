"""How GLiNER2 reads: a form with the labels, then a text word by word in lower case, a long text in several windows.

A form is `( [P] name ( [E] label [E] label ) ) [SEP_TEXT]`, with `[E]` before kinds of entities, `[L]` before
classes. No token stands at the beginning or the end. A text that ends without a full stop is read with one.
"""

import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np

from sie_server.adapters.base import LoadError, UnsupportedInputError
from sie_server.adapters.shared.gliner_reader import (
    LABEL_SETS,
    Bounds,
    Layout,
    Prompt,
    Reading,
    Tokens,
    windows_of,
)
from sie_server.adapters.shared.tokenize import open_tokenizer
from sie_server.core.lifecycle import ErrorClass

NAME, ENTITY, CLASS, TEXT = "[P]", "[E]", "[L]", "[SEP_TEXT]"
MARKERS: Final = (NAME, ENTITY, CLASS, TEXT, "[C]", "[R]", "[SEP_STRUCT]", "[EXAMPLE]", "[OUTPUT]", "[DESCRIPTION]")
_ENDS: Final = (".", "!", "?")
_MARKS: Final = "".join(chr(at) for at in range(sys.maxunicode + 1) if unicodedata.category(chr(at)).startswith("M"))
# A letter with its marks, and what joins letters of some scripts.
_LETTER: Final = rf"[\w{_MARKS}\u200c\u200d]"
# Addresses are no longer than mail allows: a long run of letters and dots would be looked through at each of them.
WORD: Final = re.compile(
    r"https?://\S+|www\.\S+"
    r"|[a-z0-9._%+-]{1,64}+@[a-z0-9.-]{1,255}\.[a-z]{2,}|@[a-z0-9_]+"
    rf"|{_LETTER}+(?:[-_]{_LETTER}+)*|\S",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Form:
    """What is asked of a text: a name, and labels behind a marker of their kind."""

    name: str
    marker: str
    labels: tuple[str, ...]

    def written(self) -> list[str]:
        """The pieces that are tokenised one by one; labels are told by the markers before them."""
        fields = [piece for label in self.labels for piece in (self.marker, label)]
        return ["(", NAME, self.name, "(", *fields, ")", ")", TEXT]

    @property
    def markers(self) -> list[int]:
        """The places of the name's marker and of each label's, among the pieces."""
        return [1, *range(4, 4 + 2 * len(self.labels), 2)]


class Gliner2Reader:
    """Forms and texts to windows; `read` may be called from several threads.

    The first of the `labels` of a Reading is the marker of the form's name.
    """

    def __init__(self, folder: Path, layout: Layout, bounds: Bounds) -> None:
        self._tokenizer = open_tokenizer(folder)
        for token in (NAME, ENTITY, CLASS, TEXT):
            if self._tokenizer.token_to_id(token) is None:
                raise LoadError(ErrorClass.UNKNOWN, f"the model's tokenizer has no token '{token}'")
        self._layout = layout
        self._bounds = bounds
        self._prompt = lru_cache(maxsize=LABEL_SETS)(self._tokenized)

    def read(self, texts: Sequence[tuple[str, Form]], *, whole: Sequence[bool]) -> list[Reading]:
        """Tokenise all texts in one call. Of a text that is to be read `whole` there is one window, and its end is cut.

        Raises:
            UnsupportedInputError: a form has no labels, or so many that they leave no room for a text.
        """
        places = [self._places(text) for text, _ in texts]
        words = [
            [f"{text}."[start:end].lower() for start, end in each]
            for (text, _), each in zip(texts, places, strict=True)
        ]
        known = self._ids({word for each in words for word in each})
        return [
            self._reading(form, each, [known[word] for word in some], is_whole=is_whole)
            for (_, form), each, some, is_whole in zip(texts, places, words, whole, strict=True)
        ]

    def _places(self, text: str) -> list[tuple[int, int]]:
        """Where each word begins and ends; a full stop that is not there stands behind the text."""
        found = [match.span() for match in islice(WORD.finditer(text), self._bounds.text + 1)]
        return found if text.endswith(_ENDS) else [*found, (len(text), len(text) + 1)]

    def _reading(self, form: Form, places: list[tuple[int, int]], ids: list[list[int]], *, is_whole: bool) -> Reading:
        prompt, nothing = self._prompt(form), np.empty(0, np.int64)
        counts = np.array([len(each) for each in ids], np.int64)
        # Words of which the tokenizer leaves nothing are none for the model.
        kept = np.flatnonzero(counts)
        counts = counts[kept]
        tokens = Tokens(
            np.array([number for each in ids for number in each], np.int64), np.cumsum(counts) - counts, counts
        )
        layout = Layout(max(1, len(kept)), 0) if is_whole else self._layout
        windows, truncated = windows_of(tokens, prompt, nothing, layout, self._bounds, len(form.labels))
        if is_whole:
            windows, truncated = windows[:1], truncated or len(windows) > 1
        words = np.array(places, np.int64).reshape(-1, 2)[kept]
        return Reading(words, prompt.labels, windows, truncated or len(places) > self._bounds.text)

    def _tokenized(self, form: Form) -> Prompt:
        if not form.labels:
            raise UnsupportedInputError("the model looks for what it is asked for; give it at least one label")
        for asked in (form.name, *form.labels):
            marker = next((each for each in MARKERS if each in asked), None)
            if marker is not None:
                raise UnsupportedInputError(f"'{asked[:100]}' holds {marker}, which the model's forms are made of")
        pieces = form.written()
        known = self._ids(pieces)
        ids = [known[each] for each in pieces]
        starts = np.cumsum([0, *map(len, ids)])
        whole = np.array([number for each in ids for number in each], np.int64)
        return Prompt(whole, starts[form.markers].astype(np.int64))

    def _ids(self, pieces: Iterable[str]) -> Mapping[str, list[int]]:
        """The token ids of each piece by itself."""
        distinct = list(dict.fromkeys(pieces))
        encodings = self._tokenizer.encode_batch_fast(distinct, add_special_tokens=False)
        return {piece: each.ids for piece, each in zip(distinct, encodings, strict=True)}
