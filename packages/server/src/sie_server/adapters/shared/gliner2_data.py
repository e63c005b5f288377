"""Data in the form of a schema, with GLiNER2: records, relations and what a whole text is, all of them in one pass.

Each is a form of its own. How many records of a kind there are, the marker of its form says; each of them is then
looked for with queries that know those before it. A long text is read in windows; what they tell is put together here.
"""

from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final

import numpy as np
import torch

from sie_protocol.arrays import Array
from sie_server.adapters.base import Data, Piece, Value
from sie_server.adapters.shared.gliner2_head import Gliner2Head
from sie_server.adapters.shared.gliner2_reader import CLASS, FIELD, ROLE, Form, Sheet
from sie_server.adapters.shared.gliner_reader import Reading, Window
from sie_server.adapters.shared.spans import Spans, choose
from sie_server.adapters.shared.torch_use import to_device
from sie_server.core.schema import RELATION, Field, Question, Record, Schema

_ROLES: Final = tuple(map(Field, RELATION))
Draft = tuple[tuple[Piece, ...], ...]  # the values of each field of one record


@dataclass(frozen=True, slots=True)
class Seen:
    """What one window tells: the records of each kind, the pairs of each relation, the scores of each question."""

    records: Sequence[Sequence[Draft]]
    relations: Sequence[Sequence[Draft]]
    questions: Sequence[Sequence[float]]


def sheet_of(schema: Schema) -> Sheet:
    """The forms of a schema: records, relations, questions; and the choices of fields."""
    records = [
        Form(
            record.name,
            FIELD,
            tuple(field.name for field in record.fields),
            notes=tuple((field.name, field.description) for field in record.fields if field.description),
        )
        for record in schema.records
    ]
    relations = [Form(each.name, ROLE, RELATION, each.description) for each in schema.relations]
    questions = [Form(each.name, CLASS, each.labels, each.description) for each in schema.questions]
    choices = tuple(chain.from_iterable(map(_choices, schema.records)))
    return Sheet((*records, *relations, *questions), choices, "names of the schema")


def _choices(record: Record) -> list[str]:
    """`( name: field ( one | other ) , field ( one | other ) )`, or nothing."""
    pieces = []
    for field in record.fields:
        if field.choices:
            told = [piece for choice in field.choices for piece in ("|", choice)][1:]
            pieces += [",", field.name, "(", *told, ")"]
    return ["(", f"{record.name}:", *pieces[1:], ")"] if pieces else []


@dataclass(frozen=True, slots=True)
class Place:
    """A window of a text, and the states [tokens, width] that the model has of it."""

    text: str
    reading: Reading
    window: Window
    states: torch.Tensor

    def at(self, places: Array) -> torch.Tensor:
        """Some of the states."""
        return self.states[to_device(places, self.states.device)]


@dataclass(frozen=True, slots=True)
class Columns:
    """What was looked for at once: the proposals of each query, and the chance [choices, queries] of each choice.

    `rows` are those of the choices, by their text in lower case: where each first stands, be it as the choice of
    another field, or as a field's name. So the package reads them.
    """

    place: Place
    spans: Sequence[Spans]
    rows: Mapping[str, int]
    chances: Array
    threshold: float

    def values(self, field: Field, column: int) -> tuple[Piece, ...]:
        """What a field has, by one of the queries."""
        if field.choices:
            scores = [float(self.chances[self.rows[each.lower()], column]) for each in field.choices]
            chosen = zip(field.choices, scores, strict=True)
            return _settled(field, [Piece(*each) for each in chosen if each[1] >= self.threshold])
        words = self.place.reading.words[self.place.window.first_word :]
        return _settled(field, [Piece(*each) for each in pieces_of(self.place.text, words, self.spans[column])])


def seen(head: Gliner2Head, schema: Schema, sheet: Sheet, place: Place, threshold: float) -> Seen:
    """What one window of a text tells."""
    sizes = [1 + len(form.labels) for form in sheet.forms]
    markers = torch.split(place.at(place.reading.labels[: sum(sizes)]), sizes)
    kinds = [*(record.fields for record in schema.records), *(_ROLES for _ in schema.relations)]
    drafts = _drafts(head, sheet, place, [*zip(kinds, markers, strict=False)], threshold)
    questions = []
    for question, each in zip(schema.questions, markers[len(kinds) :], strict=True):
        logits = head.classes(each[1:])[:, 0]
        questions.append((logits.sigmoid() if question.many else logits.softmax(0)).tolist())
    return Seen(
        [[each for each in some if any(each)] for some in drafts[: len(schema.records)]],
        [[each for each in some if all(each)] for some in drafts[len(schema.records) :]],
        questions,
    )


def _drafts(
    head: Gliner2Head,
    sheet: Sheet,
    place: Place,
    kinds: Sequence[tuple[Sequence[Field], torch.Tensor]],
    threshold: float,
) -> list[list[Draft]]:
    """The records of each kind, of which there are fields and markers, however little is in them."""
    counts = [head.count(markers[0]) for _, markers in kinds]
    if not any(counts):
        return [[] for _ in kinds]
    queries = torch.cat(
        [
            head.queries(markers[1:], count).flatten(0, 1)
            for (_, markers), count in zip(kinds, counts, strict=True)
            if count
        ]
    )
    (logits,) = head.spans.logits(place.at(place.window.words), queries, [(len(place.window.words), slice(None))])
    columns = Columns(
        place,
        _by_label(head.spans.spans(logits, threshold), len(queries)),
        {piece.lower(): row for row, piece in reversed([*enumerate(sheet.choices)])},
        _chances(head, place, len(sheet.choices), queries),
        threshold,
    )
    numbers = iter(range(len(queries)))
    return [
        [tuple(columns.values(field, next(numbers)) for field in fields) for _ in range(count)]
        for (fields, _), count in zip(kinds, counts, strict=True)
    ]


def _chances(head: Gliner2Head, place: Place, count: int, queries: torch.Tensor) -> Array:
    """[choices, queries] of the last labels of a reading, each of which is a piece of one word."""
    choices = place.at(place.reading.labels[len(place.reading.labels) - count :])
    if not count:
        return np.empty((0, len(queries)), np.float32)
    (logits,) = replace(head.spans, max_width=1).logits(choices, queries, [(count, slice(None))])
    return logits[:, 0].sigmoid().cpu().numpy()


def data_of(schema: Schema, windows: Sequence[Seen], threshold: float) -> Data:
    """What all windows of a text tell.

    Of what a text has once, each field is that of the window that is surest of it; of what it has several times, all
    windows tell theirs, each once.
    """
    values: dict[str, Value] = {}
    for at, record in enumerate(schema.records):
        told = _records(record, [each.records[at] for each in windows])
        values |= told if record.key is None else {record.key: told[record.key]}
    for at, relation in enumerate(schema.relations):
        pairs = _distinct([each.relations[at] for each in windows])
        values[relation.name] = tuple(_told(_ROLES, each) for each in pairs)
    for at, question in enumerate(schema.questions):
        values[question.name] = _answer(question, [each.questions[at] for each in windows], threshold)
    return Data({key: values[key] for key in schema.keys})


def _records(record: Record, windows: Sequence[Sequence[Draft]]) -> dict[str, Value]:
    """What the answer has of one kind of record, by key."""
    if record.many:
        return {str(record.key): tuple(_told(record.fields, each) for each in _distinct(windows))}
    first = [drafts[0] for drafts in windows if drafts]
    merged = [
        _settled(field, [*chain.from_iterable(draft[number] for draft in first)])
        for number, field in enumerate(record.fields)
    ]
    told = _told(record.fields, merged)
    return told if record.key is None else {record.key: told if first else None}


def _answer(question: Question, windows: Sequence[Sequence[float]], threshold: float) -> Value:
    """The label that the surest window is surest of; or all that some window is sure enough of."""
    if not windows:
        return () if question.many else None
    if question.many:
        best = [max(scores) for scores in zip(*windows, strict=True)]
        chosen = zip(question.labels, best, strict=True)
        return tuple(Piece(label, score) for label, score in chosen if score >= threshold)
    pieces = [Piece(*each) for each in zip(question.labels, max(windows, key=max), strict=True)]
    return max(pieces, key=lambda each: each.score)


def pieces_of(text: str, words: Array, spans: Spans) -> list[tuple[str, float, int, int]]:
    """Those of the proposals that do not overlap, the best ones, by start: text, score, start and end in characters.

    `words` [words, 2] are where each begins and ends; a full stop that was put behind the text is cut.
    """
    if not len(spans):
        return []
    kept = choose(spans, flat=True, multi_label=False)
    starts = words[kept.firsts, 0].tolist()
    ends = np.minimum(words[kept.lasts, 1], len(text)).tolist()
    found = zip(starts, ends, kept.scores.tolist(), strict=True)
    return [(text[start:end], score, start, end) for start, end, score in found if start < end]


def _by_label(spans: Spans, labels: int) -> list[Spans]:
    """The proposals of each label, in their order."""
    order = np.argsort(spans.labels, kind="stable")
    return [spans.at(some) for some in np.split(order, np.searchsorted(spans.labels[order], np.arange(1, labels)))]


def _settled(field: Field, pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """What of some values a field has: the best one; or the best of each choice, or all pieces that do not overlap."""
    if not field.many:
        return tuple(sorted(pieces, key=lambda each: -each.score)[:1])
    if not field.choices:
        return _apart(pieces)
    best = {each.text: each for each in sorted(pieces, key=lambda each: each.score)}
    return tuple(best[choice] for choice in field.choices if choice in best)


def _apart(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """The best scored pieces that share no characters, by start."""
    kept: list[tuple[int, int, Piece]] = []
    for piece in sorted(pieces, key=lambda each: -each.score):
        start, end = piece.start or 0, piece.end or 0
        at = bisect(kept, start, key=lambda each: each[0])
        if (at == 0 or kept[at - 1][1] <= start) and (at == len(kept) or end <= kept[at][0]):
            kept.insert(at, (start, end, piece))
    return tuple(piece for _, _, piece in kept)


def _distinct(windows: Sequence[Sequence[Draft]]) -> list[Draft]:
    """The drafts of all windows, of those with the same pieces the first."""
    found: dict[object, Draft] = {}
    for draft in chain.from_iterable(windows):
        found.setdefault(tuple(tuple((each.text, each.start) for each in pieces) for pieces in draft), draft)
    return [*found.values()]


def _told(fields: Sequence[Field], draft: Sequence[tuple[Piece, ...]]) -> dict[str, Value]:
    return {
        field.name: pieces if field.many else next(iter(pieces), None)
        for field, pieces in zip(fields, draft, strict=True)
    }
