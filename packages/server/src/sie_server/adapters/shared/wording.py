"""The words around a page or a query: how models of page images (the ColPali family) are told what they read.

A page is a fixed sentence with an image in it. A query stands behind a few words and before some tokens that mean
nothing, in which the model may collect what the query is about; all of them are read and have vectors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from sie_protocol.arrays import Array
from sie_server.adapters.base import LoadError, Prepared
from sie_server.adapters.shared.tokenize import TextTokenizer
from sie_server.adapters.shared.weights import read_json
from sie_server.core.lifecycle import ErrorClass

AUGMENTATION: Final = 10  # tokens behind a query: ColPali's number (Faysse et al. 2024)


@dataclass(frozen=True, slots=True)
class Wording:
    """How a family writes, where a model's own files do not say otherwise.

    `page` has the image token, a place for `{bos}` and one for `{prompt}`; `query` one for `{bos}` and `{prompt}`, the
    text follows it. `bos` and `pad` are the names of these tokens.
    """

    image: str
    page: str
    query: str
    page_prompt: str
    query_prompt: str
    bos: str
    pad: str


@dataclass(frozen=True, slots=True)
class Page:
    """What the model reads: int64 token ids [tokens], and for a page its pixels [height, width, 3].

    The image's tokens are the `count` from `start` on. `places` [tokens, 3] are time, row and column of each token, for
    models whose positions have three axes; None: tokens are counted one by one.
    """

    ids: Array
    start: int = 0
    count: int = 0
    pixels: Array | None = None
    places: Array | None = None


class Reader:
    """Queries and pages to token ids, at most `length` of them. Safe to be used by several threads.

    Raises:
        LoadError: UNKNOWN when the image token is no token, or the words leave no room.
    """

    def __init__(self, folder: Path, wording: Wording, length: int, vocabulary: int) -> None:
        said = _read(folder / "processor_config.json")
        tokens = _read(folder / "tokenizer_config.json")
        bos, pad = (_token(tokens.get(f"{name}_token")) or getattr(wording, name) for name in ("bos", "pad"))
        self.tokenizer = TextTokenizer(folder, length, lower_case=False)
        self._vocabulary = vocabulary
        image = self.tokenizer.id_of(wording.image)
        if image is None:
            raise LoadError(ErrorClass.UNKNOWN, f"'{wording.image}' is no token of the model's tokenizer")
        prompt = said.get("visual_prompt_prefix") or wording.page_prompt
        page, self._end = wording.page.format(bos=bos, prompt=prompt), f"{pad * AUGMENTATION}\n"
        self._front = wording.query.format(bos=bos, prompt=said.get("query_prefix") or wording.query_prompt)
        if length <= max(self.tokenizer.count_plain(text) for text in (page, self._written(""))):
            raise LoadError(ErrorClass.UNKNOWN, f"{length} tokens leave no room for an image or a query in its words")
        self._page, self._tail = (np.array(self.tokenizer.plain_ids(text), np.int64) for text in (page, self._end))
        if np.count_nonzero(self._page == image) != 1:
            raise LoadError(
                ErrorClass.UNKNOWN, f"the model's prompt for pages has not one '{wording.image}': {prompt!r}"
            )
        self._start = int(np.argmax(self._page == image))
        self.room = length - len(self._page) + 1

    def queries(self, texts: Sequence[str]) -> list[Prepared]:
        """Token ids of each text in its words, which are kept where a text is cut."""
        cut = self.tokenizer.prepare_plain([self._written(text) for text in texts])
        return [self._query(each) for each in cut]

    def count(self, text: str) -> int:
        """How many tokens a query has before it is cut."""
        return self.tokenizer.count_plain(self._written(text))

    def page(self, pixels: Array, grid: tuple[int, int], *, has_axes: bool) -> Prepared:
        """Token ids of a page whose image tokens have so many rows and columns."""
        count = grid[0] * grid[1]
        behind = self._page[self._start + 1 :]
        before, image = self._page[: self._start], np.zeros(count, np.int64)  # whose own vectors nobody reads
        ids = np.concatenate((before, image, behind))
        places = _places(len(before), grid, len(behind)) if has_axes else None
        page = Page(self._known(ids), self._start, count, pixels, places)
        return Prepared(len(ids), truncated=False, payload=page)

    def _written(self, text: str) -> str:
        return f"{self._front}{text}{self._end}"

    def _query(self, cut: Prepared) -> Prepared:
        ids: Array = cut.payload
        if cut.truncated:
            ids = np.concatenate((ids[: len(ids) - len(self._tail)], self._tail))
        return Prepared(len(ids), cut.truncated, Page(self._known(ids)))

    def _known(self, ids: Array) -> Array:
        """Tokenizers know more tokens than some models: those of images, which are read as the first one in a text."""
        return np.where(ids < self._vocabulary, ids, 0)


def _places(before: int, grid: tuple[int, int], behind: int) -> Array:
    """Time, row and column of each token: an image is one moment, what follows goes on behind its longer side."""
    rows, columns = np.indices(grid).reshape(2, -1)
    image = np.stack((np.zeros_like(rows), rows, columns), axis=1) + before
    onward = np.arange(behind) + before + max(grid)
    return np.concatenate([np.repeat(np.arange(before)[:, None], 3, 1), image, np.repeat(onward[:, None], 3, 1)])


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _token(entry: object) -> str | None:
    """The text of a token as tokenizer_config.json has it, alone or with its properties."""
    content = entry.get("content") if isinstance(entry, dict) else entry
    return content if isinstance(content, str) else None
