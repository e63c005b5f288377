"""How GLiNER2 reads: forms with the labels, then a text word by word in lower case, a long text in several windows.

A form is `( [P] name ( [E] label [E] label ) )`, with `[E]` before kinds of entities, `[L]` before classes, `[C]`
before fields of records, `[R]` before head and tail of a relation. `[SEP_STRUCT]` stands between forms, `[SEP_TEXT]`
behind them, and no token at the beginning or the end. A text that ends without a full stop is read with one. Choices
are read as words in front of the text.
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

NAME, ENTITY, CLASS, FIELD, ROLE, NOTE = "[P]", "[E]", "[L]", "[C]", "[R]", "[DESCRIPTION]"
NEXT, TEXT = "[SEP_STRUCT]", "[SEP_TEXT]"
READ: Final = (NAME, ENTITY, CLASS, FIELD, ROLE, NOTE, NEXT, TEXT)
MARKERS: Final = (*READ, "[EXAMPLE]", "[OUTPUT]")
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
    """What is asked of a text: a name, and labels behind a marker of their kind.

    `prompt` says more of the name, `notes` (label, text) more of some labels.
    """

    name: str
    marker: str
    labels: tuple[str, ...]
    prompt: str = ""
    notes: tuple[tuple[str, str], ...] = ()

    def written(self) -> list[str]:
        """The pieces that are tokenised one by one; labels are told by the markers before them."""
        notes = "".join(f" {NOTE} {label}: {text}" for label, text in self.notes)
        name = (f"{self.name}: {self.prompt}" if self.prompt else self.name) + notes
        fields = [piece for label in self.labels for piece in (self.marker, label)]
        return ["(", NAME, name, "(", *fields, ")", ")"]

    @property
    def markers(self) -> list[int]:
        """The places of the name's marker and of each label's, among the pieces."""
        return [1, *range(4, 4 + 2 * len(self.labels), 2)]

    def texts(self) -> tuple[str, ...]:
        """All that the caller wrote."""
        return (self.name, self.prompt, *self.labels, *(text for _, text in self.notes))


@dataclass(frozen=True, slots=True)
class Sheet:
    """All that is asked of a text at once. `choices` are pieces that are read in front of it as if they were words.

    `made_of` says what its labels are in a refusal.
    """

    forms: tuple[Form, ...]
    choices: tuple[str, ...] = ()
    made_of: str = "labels"

    def written(self) -> tuple[list[str], list[int]]:
        """The pieces in front of the text; and the places of each form's markers among them, then of each choice."""
        pieces: list[str] = []
        places: list[int] = []
        for form in self.forms:
            pieces += [NEXT] if pieces else []
            places += [len(pieces) + place for place in form.markers]
            pieces += form.written()
        pieces += [TEXT]
        return [*pieces, *self.choices], [*places, *range(len(pieces), len(pieces) + len(self.choices))]

    def named(self) -> str:
        """What it is in a refusal."""
        return f"the {sum(len(form.labels) for form in self.forms)} {self.made_of}"


class Gliner2Reader:
    """Sheets and texts to windows; `read` may be called from several threads.

    The `labels` of a Reading are, form by form, the marker of its name and those of its labels, and then the choices.
    """

    def __init__(self, folder: Path, layout: Layout, bounds: Bounds) -> None:
        self._tokenizer = open_tokenizer(folder)
        for token in READ:
            if self._tokenizer.token_to_id(token) is None:
                raise LoadError(ErrorClass.UNKNOWN, f"the model's tokenizer has no token '{token}'")
        self._layout = layout
        self._bounds = bounds
        self._prompt = lru_cache(maxsize=LABEL_SETS)(self._tokenized)

    def read(self, texts: Sequence[tuple[str, Sheet]], *, whole: Sequence[bool]) -> list[Reading]:
        """Tokenise all texts in one call. Of a text that is to be read `whole` there is one window, and its end is cut.

        Raises:
            UnsupportedInputError: a form has no labels, or there are so many that they leave no room for a text.
        """
        places = [self._places(text) for text, _ in texts]
        words = [
            [f"{text}."[start:end].lower() for start, end in each]
            for (text, _), each in zip(texts, places, strict=True)
        ]
        known = self._ids({word for each in words for word in each})
        return [
            self._reading(sheet, each, [known[word] for word in some], is_whole=is_whole)
            for (_, sheet), each, some, is_whole in zip(texts, places, words, whole, strict=True)
        ]

    def _places(self, text: str) -> list[tuple[int, int]]:
        """Where each word begins and ends; a full stop that is not there stands behind the text."""
        found = [match.span() for match in islice(WORD.finditer(text), self._bounds.text + 1)]
        return found if text.endswith(_ENDS) else [*found, (len(text), len(text) + 1)]

    def _reading(self, sheet: Sheet, places: list[tuple[int, int]], ids: list[list[int]], *, is_whole: bool) -> Reading:
        prompt, nothing = self._prompt(sheet), np.empty(0, np.int64)
        counts = np.array([len(each) for each in ids], np.int64)
        # Words of which the tokenizer leaves nothing are none for the model.
        kept = np.flatnonzero(counts)
        counts = counts[kept]
        tokens = Tokens(
            np.array([number for each in ids for number in each], np.int64), np.cumsum(counts) - counts, counts
        )
        layout = Layout(max(1, len(kept)), 0) if is_whole else self._layout
        windows, truncated = windows_of(tokens, prompt, nothing, layout, self._bounds, sheet.named())
        if is_whole:
            windows, truncated = windows[:1], truncated or len(windows) > 1
        words = np.array(places, np.int64).reshape(-1, 2)[kept]
        return Reading(words, prompt.labels, windows, truncated or len(places) > self._bounds.text)

    def _tokenized(self, sheet: Sheet) -> Prompt:
        if not all(form.labels for form in sheet.forms):
            raise UnsupportedInputError("the model looks for what it is asked for; give it at least one label")
        for asked in (*(text for form in sheet.forms for text in form.texts()), *sheet.choices):
            marker = next((each for each in MARKERS if each in asked), None)
            if marker is not None:
                raise UnsupportedInputError(f"'{asked[:100]}' holds {marker}, which the model's forms are made of")
        pieces, places = sheet.written()
        known = self._ids(pieces)
        ids = [known[each] for each in pieces]
        starts = np.cumsum([0, *map(len, ids)])
        whole = np.array([number for each in ids for number in each], np.int64)
        return Prompt(whole, starts[places].astype(np.int64))

    def _ids(self, pieces: Iterable[str]) -> Mapping[str, list[int]]:
        """The token ids of each piece by itself."""
        distinct = list(dict.fromkeys(pieces))
        encodings = self._tokenizer.encode_batch_fast(distinct, add_special_tokens=False)
        return {piece: each.ids for piece, each in zip(distinct, encodings, strict=True)}
