"""What Florence-2 writes about an image: words, and places in it, each a thousandth of its width or height.

A place is two tokens, `<loc_120><loc_87>`. How words and places belong together depends on the task; what is read here
is what transformers' processor reads, but that places keep their fractions of a pixel, as in the publisher's own code.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from sie_server.adapters.base import Box, Data, DetectedObject, Passage, Value
from sie_server.adapters.shared.boxes import Seen, objects
from sie_server.adapters.shared.generation import probability

BINS: Final = 1000  # along each side of an image
UNREAD: Final = frozenset({"<s>", "</s>", "<pad>"})
_BIN: Final = re.compile(r"<loc_(\d+)>")
_BINS: Final = r"(?:<loc_\d+>)"
_BOX: Final = re.compile(_BINS + "{4}")
_BOXES: Final = re.compile(_BINS + "{4,}")
_NAMED_BOXES: Final = re.compile(rf"[^<]+{_BINS}{{4,}}")
_QUAD: Final = re.compile(rf"(?P<words>.+?)(?P<bins>{_BINS}{{8}})")
_OUTLINE: Final = r"(?:<loc_\d+>|<sep>|<poly>|</poly>)"
_OUTLINES: Final = re.compile(_OUTLINE + "{4,}")
_NAMED_OUTLINES: Final = re.compile(rf"[^<]+{_OUTLINE}{{4,}}")
_OUTLINED: Final = re.compile(r"<poly>(.*?)</poly>")
_ONE_OUTLINE: Final = re.compile(rf"({_BINS}+)(?:<sep>|$)")
_NAME: Final = re.compile(r"\s*.*?(?=<loc_|<poly>)")
# Words of a caption that name nothing in an image.
NAMES_NOTHING: Final = frozenset(
    {
        *("it", "I", "me", "mine", "you", "your", "yours", "he", "him", "his", "she", "her", "hers", "they", "them"),
        *("their", "theirs", "one", "oneself", "we", "us", "our", "ours", "its", "myself", "yourself", "himself"),
        *("herself", "itself", "ourselves", "yourselves", "themselves", "this", "that", "these", "those", "who"),
        *("whom", "whose", "which", "what", "all", "another", "any", "anybody", "anyone", "anything", "each"),
        *("everybody", "everyone", "everything", "few", "many", "nobody", "none", "several", "some", "somebody"),
        *("someone", "something", "each other", "one another", "the image", "image", "images", "the", "a", "an"),
        *("a group", "other objects", "lots", "a set"),
    }
)


@dataclass(frozen=True, slots=True)
class Reading:
    """A text in pieces, and the natural logarithms of how sure the model was of the tokens of each."""

    pieces: tuple[str, ...]
    logprobs: tuple[tuple[float, ...], ...]

    @property
    def text(self) -> str:
        """The whole."""
        return "".join(self.pieces)

    def score(self, *spans: tuple[int, int]) -> float:
        """The geometric mean of the probabilities of the tokens in these parts of the text, or of all; 0 of none."""
        starts = [0, *accumulate(map(len, self.pieces))]
        parts: set[int] = set() if spans else set(range(len(self.pieces)))
        for start, end in spans:
            parts.update(at for at in range(bisect_right(starts, start) - 1, len(self.pieces)) if starts[at] < end)
        return probability([each for at in sorted(parts) for each in self.logprobs[at]])


@dataclass(frozen=True, slots=True)
class Named:
    """Something with a place: corners x, y, x, y, ... in pixels, of each outline that it has."""

    label: str
    score: float
    outlines: tuple[tuple[float, ...], ...]

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom."""
        xs = [x for outline in self.outlines for x in outline[::2]]
        ys = [y for outline in self.outlines for y in outline[1::2]]
        return (min(xs), min(ys), max(xs), max(ys)) if xs else (0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Scale:
    """An image's own size in pixels."""

    width: int
    height: int

    def pixels(self, bins: str) -> tuple[float, ...]:
        """Places in pixels: the middles of their bins."""
        sides = (self.width, self.height)
        return tuple((int(each) + 0.5) * (sides[at % 2] / BINS) for at, each in enumerate(_BIN.findall(bins)))


@dataclass(frozen=True, slots=True)
class Answer:
    """The outputs of one image."""

    data: Data
    entities: tuple[Passage, ...] = ()
    objects: tuple[DetectedObject, ...] = ()


Read = Callable[[Reading, str, str, Scale, Mapping[str, Any]], Answer]


def as_text(reading: Reading, task: str, label: str, scale: Scale, options: Mapping[str, Any]) -> Answer:  # noqa: ARG001 - as all
    """An answer in words."""
    text = reading.text.strip()
    passages = (Passage(text, label, reading.score()),) if text else ()
    return Answer(Data({task: text}), passages)


def as_quads(reading: Reading, task: str, label: str, scale: Scale, options: Mapping[str, Any]) -> Answer:  # noqa: ARG001 - as all
    """Texts, each behind it the four corners of where it stands."""
    found = [
        Named(each["words"].strip(), reading.score(each.span()), (scale.pixels(each["bins"]),))
        for each in _QUAD.finditer(reading.text)
    ]
    passages = tuple(Passage(each.label, label, each.score, _box(each.extent)) for each in found)
    return Answer(Data({task: {"quad_boxes": _corners(found), "labels": _labels(found)}}), passages)


def as_boxes(reading: Reading, task: str, label: str, scale: Scale, options: Mapping[str, Any]) -> Answer:
    """Names, each with the boxes of what is called so."""
    return _of_boxes(list(_named_boxes(reading, scale, _NAMED_BOXES)), task, label, scale, options)


def as_nameless_boxes(reading: Reading, task: str, label: str, scale: Scale, options: Mapping[str, Any]) -> Answer:
    """Boxes only; `label` is that of their objects."""
    return _of_boxes(list(_named_boxes(reading, scale, _BOXES)), task, label, scale, options)


def as_grounding(reading: Reading, task: str, label: str, scale: Scale, options: Mapping[str, Any]) -> Answer:
    """Phrases of a caption with their boxes, but for words that name nothing."""
    return _of_boxes(list(_named_boxes(reading, scale, _NAMED_BOXES, NAMES_NOTHING)), task, label, scale, options)


def as_outlines(reading: Reading, task: str, label: str, scale: Scale, options: Mapping[str, Any]) -> Answer:
    """Outlines; `label` is that of objects without a name."""
    found = list(_outlined(reading, scale, _OUTLINES))
    data: dict[str, Value] = {
        "polygons": [[list(each) for each in one.outlines] for one in found],
        "labels": _labels(found),
    }
    return Answer(Data({task: data}), objects=_objects(found, scale, options, label))


def as_boxes_or_outlines(reading: Reading, task: str, label: str, scale: Scale, options: Mapping[str, Any]) -> Answer:
    """Names with boxes, or with outlines."""
    outlined = "<poly>" in reading.text
    found = list(_outlined(reading, scale, _NAMED_OUTLINES) if outlined else _named_boxes(reading, scale, _NAMED_BOXES))
    data: dict[str, Value] = {
        "bboxes": [] if outlined else _corners(found),
        "bboxes_labels": [] if outlined else _labels(found),
        "polygons": [[list(each) for each in one.outlines] for one in found] if outlined else [],
        "polygons_labels": _labels(found) if outlined else [],
    }
    return Answer(Data({task: data}), objects=_objects(found, scale, options, label))


@dataclass(frozen=True, slots=True)
class Task:
    """What the model is asked in a task's place, with `{}` for what the caller says; and what is made of its answer."""

    prompt: str
    read: Read
    label: str = ""

    @property
    def takes_input(self) -> bool:
        """Whether the caller says something."""
        return "{}" in self.prompt


TASKS: Final[Mapping[str, Task]] = MappingProxyType(
    {
        "<OCR>": Task("What is the text in the image?", as_text, "text"),
        "<OCR_WITH_REGION>": Task("What is the text in the image, with regions?", as_quads, "text"),
        "<CAPTION>": Task("What does the image describe?", as_text, "caption"),
        "<DETAILED_CAPTION>": Task("Describe in detail what is shown in the image.", as_text, "caption"),
        "<MORE_DETAILED_CAPTION>": Task("Describe with a paragraph what is shown in the image.", as_text, "caption"),
        "<OD>": Task("Locate the objects with category name in the image.", as_boxes),
        "<DENSE_REGION_CAPTION>": Task("Locate the objects in the image, with their descriptions.", as_boxes),
        "<REGION_PROPOSAL>": Task("Locate the region proposals in the image.", as_nameless_boxes, "region"),
        "<CAPTION_TO_PHRASE_GROUNDING>": Task("Locate the phrases in the caption: {}", as_grounding),
        "<REFERRING_EXPRESSION_SEGMENTATION>": Task("Locate {} in the image with mask", as_outlines, "segment"),
        "<REGION_TO_SEGMENTATION>": Task("What is the polygon mask of region {}", as_outlines, "segment"),
        "<OPEN_VOCABULARY_DETECTION>": Task("Locate {} in the image.", as_boxes_or_outlines),
        "<REGION_TO_CATEGORY>": Task("What is the region {}?", as_text, "category"),
        "<REGION_TO_DESCRIPTION>": Task("What does the region {} describe?", as_text, "description"),
        "<REGION_TO_OCR>": Task("What text is in the region {}?", as_text, "text"),
    }
)


def own_task(name: str) -> Task:
    """A task that a model was fine-tuned for: it reads the task's name and right behind it the question."""
    return Task(name.replace("{}", "") + "{}", as_text, "answer")


def _named_boxes(
    reading: Reading, scale: Scale, pattern: re.Pattern[str], unless: frozenset[str] = frozenset()
) -> Iterator[Named]:
    for found in pattern.finditer(reading.text):
        name = _NAME.match(found[0])
        if name is None or name[0].strip() in unless:
            continue
        words = (found.start(), found.start() + name.end())
        label = name[0].strip().encode("ascii", "ignore").decode("ascii")
        for box in _BOX.finditer(found[0]):
            span = (found.start() + box.start(), found.start() + box.end())
            score = reading.score(*(each for each in (words, span) if each[0] < each[1]))
            yield Named(label, score, (scale.pixels(box[0]),))


def _outlined(reading: Reading, scale: Scale, pattern: re.Pattern[str]) -> Iterator[Named]:
    for found in pattern.finditer(reading.text):
        name = _NAME.match(_BIN.sub("", found[0], count=1) if _BIN.match(found[0]) else found[0])
        if name is None:
            continue
        whole = "<poly>" in found[0] and "</poly>" in found[0]
        for one in _OUTLINED.findall(found[0]) if whole else [found[0]]:
            outlines = [scale.pixels(each[1]) for each in _ONE_OUTLINE.finditer(one)]
            if outlines:
                even = tuple(each[: len(each) // 2 * 2] for each in outlines)
                yield Named(name[0].strip(), reading.score(found.span()), even)


def _of_boxes(found: Sequence[Named], task: str, label: str, scale: Scale, options: Mapping[str, Any]) -> Answer:
    data: dict[str, Value] = {"bboxes": _corners(found), "labels": _labels(found)}
    return Answer(Data({task: data}), objects=_objects(found, scale, options, label))


def _corners(found: Sequence[Named]) -> list[list[float]]:
    return [list(each.outlines[0]) for each in found]


def _labels(found: Sequence[Named]) -> list[str]:
    return [each.label for each in found]


def _objects(
    found: Sequence[Named], scale: Scale, options: Mapping[str, Any], nameless: str
) -> tuple[DetectedObject, ...]:
    """Those that cover something, the best first."""
    labels = sorted({each.label or nameless for each in found})
    seen = Seen(
        scores=np.array([each.score for each in found]),
        labels=np.array([labels.index(each.label or nameless) for each in found], np.int64),
        corners=np.array([each.extent for each in found], np.float64).reshape(-1, 4),
    )
    return objects(seen, labels, scale.width, scale.height, options)


def _box(extent: tuple[float, float, float, float]) -> Box:
    left, top, right, bottom = extent
    return Box(left, top, right - left, bottom - top)
