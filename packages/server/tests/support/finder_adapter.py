"""An adapter that finds labels as words of the text: what extraction means, without a model."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

from sie_server.adapters.base import (
    Box,
    Capabilities,
    Classification,
    Data,
    DetectedObject,
    Entity,
    Input,
    Labelled,
    LabelledPicture,
    ModelSpec,
    Output,
    Outputs,
    Piece,
    Prepared,
    Relation,
    UnreadableImageError,
    UnsupportedInputError,
    labelled_pictures,
    labelled_texts,
)

ADAPTERS = {"finder": "finder_adapter:FinderAdapter"}


class FinderAdapter:
    """Option `gives`: entities (each place of a label in the text), classifications (the share of its characters),
    relations (each label between every two entities in their order, the farther apart the weaker), or data (of the
    properties of a schema, the places of their names in the text).

    A token is a word; a text of more than the model's length is said to be cut;
    the label "unknown" is none of this model's; the text "broken" has a score that is no number.
    Of `objects` the texts are the bytes of images: each place of a label is as far to the right, one pixel high, and
    bytes that are no UTF-8 are no image; "endless" has no end.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._gives: str = spec.options.get("gives", "entities")
        self._most = spec.max_sequence_length or 10**9

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(outputs=frozenset({self._gives}))

    def load(self, device: str) -> None:
        pass

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:  # noqa: ARG002 - the same
        texts = [*map(_told, labelled_pictures(inputs))] if self._gives == "objects" else labelled_texts(inputs)
        if any("unknown" in each.labels for each in texts):
            raise UnsupportedInputError("label 'unknown' is none of its labels")
        words = [max(1, len(each.text.split())) for each in texts]
        return [Prepared(min(n, self._most), n > self._most, each) for n, each in zip(words, texts, strict=True)]

    def run(self, batch: Sequence[Prepared], threads: int) -> Outputs:  # noqa: ARG002 - needs none
        return {self._gives: [FIND[self._gives](each.payload) for each in batch]}

    def unload(self) -> None:
        pass


def _told(given: LabelledPicture) -> Labelled:
    try:
        return Labelled(given.picture.data.decode(), given.labels, given.options)
    except UnicodeDecodeError as error:
        raise UnreadableImageError("an image cannot be read") from error


def _objects(asked: Labelled) -> tuple[DetectedObject, ...]:
    width = math.inf if asked.text == "endless" else 0.0
    return tuple(
        DetectedObject(each.label, each.score, Box(each.start, 0.0, width or len(each.text), 1.0))
        for each in _entities(asked)
    )


def _entities(asked: Labelled) -> tuple[Entity, ...]:
    text = asked.text
    found = [(at, label) for label in asked.labels for at in range(len(text)) if text.startswith(label, at)]
    score = float("nan") if text == "broken" else 1.0
    return tuple(Entity(label, label, score, at, at + len(label)) for at, label in sorted(found))


def _shares(asked: Labelled) -> tuple[Classification, ...]:
    text = asked.text
    shares = [Classification(label, text.count(label) * len(label) / len(text)) for label in asked.labels]
    return tuple(sorted(shares, key=lambda each: -each.score))


def _relations(asked: Labelled) -> tuple[Relation, ...]:
    pieces = [(asked.text[start:end], start) for start, end in asked.mentions]
    found = [
        Relation(head, tail, label, 1 / (1 + abs(at - other)))
        for (head, at), (tail, other) in combinations(pieces, 2)
        for label in asked.labels
    ]
    return tuple(sorted(found, key=lambda each: -each.score))


def _data(asked: Labelled) -> Data:
    (record,) = asked.schema.records if asked.schema is not None else ()
    values: dict[str, tuple[Piece, ...] | Piece | None] = {}
    for each in record.fields:
        found = _entities(Labelled(asked.text, (each.name,)))
        pieces = tuple(Piece(one.text, one.score, one.start, one.end) for one in found)
        values[each.name] = pieces if each.many else next(iter(pieces), None)
    return Data(values)


FIND: Mapping[str, Callable[[Labelled], Output]] = {
    "entities": _entities,
    "classifications": _shares,
    "objects": _objects,
    "relations": _relations,
    "data": _data,
}
