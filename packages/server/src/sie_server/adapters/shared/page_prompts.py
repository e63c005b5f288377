"""The words around a page or a query: how models of page images (the ColPali family) are told what they read.

A page is a fixed sentence with an image in it. A query stands behind a few words and before some tokens that mean
nothing, in which the model may collect what the query is about; all of them are read and have vectors.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from sie_protocol.arrays import Array
from sie_server.adapters.base import LoadError, Prepared
from sie_server.adapters.shared.tiles import ONE_TILE
from sie_server.adapters.shared.tokenize import TextTokenizer
from sie_server.adapters.shared.weights import read_json
from sie_server.core.lifecycle import ErrorClass

AUGMENTATION: Final = 10  # tokens behind a query: ColPali's number (Faysse et al. 2024)


@dataclass(frozen=True, slots=True)
class PromptTemplates:
    """How a family writes, where a model's own files do not say otherwise.

    `page` has the image token, a place for `{bos}` and one for `{prompt}`; `query` one for `{bos}` and `{prompt}`, the
    text follows it, and then `end` with a place for `{filling}`. `bos` and `pad` are the names of these tokens;
    `filler` is the one that queries are filled with, if that is not `pad`. `around` stands between the tiles of an
    image, in the models that cut them into tiles.
    """

    image: str
    page: str
    query: str
    end: str
    page_prompt: str
    query_prompt: str
    bos: str = ""
    pad: str = ""
    filler: str | None = None
    around: str | None = None

    def image_tokens(self, tiles: tuple[int, int]) -> str:
        """What stands in a page in the place of the image token: the token, or one for each tile with its place."""
        if self.around is None:
            return self.image
        whole = f"{self.around}<global-img>{self.image}{self.around}"
        if tiles == ONE_TILE:
            return whole
        rows, columns = (range(1, count + 1) for count in tiles)
        lines = ["".join(f"{self.around}<row_{row}_col_{each}>{self.image}" for each in columns) for row in rows]
        return "".join(f"{line}\n" for line in lines) + f"\n{whole}"


@dataclass(frozen=True, slots=True)
class Layout:
    """How the vectors of an image lie: rows and columns of one tile's (`grid`), and of the tiles in the image.

    An image of several tiles has one more, which shows the whole.
    """

    grid: tuple[int, int]
    tiles: tuple[int, int] = ONE_TILE


@dataclass(frozen=True, slots=True)
class PageImage:
    """What a model is shown of an image: uint8 pixels [..., height, width, 3], and how what it sees in them lies."""

    pixels: Array
    layout: Layout


@dataclass(frozen=True, slots=True)
class Page:
    """What the model reads: int64 token ids [tokens], and for a page the pixels of its image.

    `image` are the places of the image's tokens, int64. `places` [tokens, 3] are time, row and column of each token,
    for models whose positions have three axes; None: tokens are counted one by one.
    """

    ids: Array
    image: Array = field(default_factory=partial(np.zeros, 0, np.int64))
    pixels: Array | None = None
    places: Array | None = None


class Reader:
    """Queries and pages to token ids, at most `length` of them. Safe to be used by several threads.

    Raises:
        LoadError: UNKNOWN when the image token is no token, or the words leave no room.
    """

    def __init__(self, folder: Path, templates: PromptTemplates, length: int, vocabulary: int) -> None:
        said = _read(folder / "processor_config.json")
        tokens = _read(folder / "tokenizer_config.json")
        bos, pad = (_token(tokens.get(f"{name}_token")) or getattr(templates, name) for name in ("bos", "pad"))
        self.tokenizer = TextTokenizer(folder, length, lower_case=False)
        self._vocabulary = vocabulary
        image = self.tokenizer.id_of(templates.image)
        if image is None:
            raise LoadError(ErrorClass.UNKNOWN, f"'{templates.image}' is no token of the model's tokenizer")
        prompt = said.get("visual_prompt_prefix") or templates.page_prompt
        page = templates.page.format(bos=bos, prompt=prompt)
        self._end = templates.end.format(filling=(templates.filler or pad) * AUGMENTATION)
        self._front = templates.query.format(bos=bos, prompt=said.get("query_prefix") or templates.query_prompt)
        if length <= max(self.tokenizer.count_plain(text) for text in (page, self._written(""))):
            raise LoadError(ErrorClass.UNKNOWN, f"{length} tokens leave no room for an image or a query in its words")
        if self.tokenizer.plain_ids(page).count(image) != 1:
            raise LoadError(
                ErrorClass.UNKNOWN, f"the model's prompt for pages has not one '{templates.image}': {prompt!r}"
            )
        self._templates, self._page, self._image = templates, page, image
        self._tail = np.array(self.tokenizer.plain_ids(self._end), np.int64)
        self.room = length - self.tokenizer.count_plain(page) + 1

    def queries(self, texts: Sequence[str]) -> list[Prepared]:
        """Token ids of each text in its words, which are kept where a text is cut."""
        cut = self.tokenizer.prepare_plain([self._written(text) for text in texts])
        return [self._query(each) for each in cut]

    def count(self, text: str) -> int:
        """How many tokens a query has before it is cut."""
        return self.tokenizer.count_plain(self._written(text))

    def page(self, shown: PageImage, *, has_axes: bool) -> Prepared:
        """Token ids of a page with this image."""
        short = np.array(self.tokenizer.plain_ids(self._in_words(shown.layout)), np.int64)
        each = math.prod(shown.layout.grid)
        ids = np.repeat(short, np.where(short == self._image, each, 1))
        image = np.flatnonzero(ids == self._image)
        ids[image] = 0  # whose own vectors nobody reads
        places = _places(int(image[0]), shown.layout.grid, len(ids) - int(image[-1]) - 1) if has_axes else None
        return Prepared(len(ids), truncated=False, payload=Page(self._known(ids), image, shown.pixels, places))

    def check(self, largest: Layout) -> None:
        """Refuse a model whose images have more tokens than it may read.

        Raises:
            LoadError: UNKNOWN.
        """
        words = self._in_words(largest)
        more = words.count(self._templates.image) * (math.prod(largest.grid) - 1)
        tokens, room = self.tokenizer.count_plain(words) + more, self.tokenizer.max_length
        if tokens > room:
            message = f"a page has up to {tokens} tokens, but max_sequence_length is {room}"
            raise LoadError(ErrorClass.UNKNOWN, message)

    def _in_words(self, layout: Layout) -> str:
        return self._page.replace(self._templates.image, self._templates.image_tokens(layout.tiles))

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
