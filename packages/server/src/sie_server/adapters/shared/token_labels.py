"""From the probabilities of each token to entities. Knows nothing of models.

Labels may follow BIO, BIOES or BILOU (`B-PER`, `I-PER`, `E-PER`, `S-PER`, `O`), or stand alone (`PER`, `O`). With the
strategy `simple` each token counts for itself. Otherwise a word has one label: that of its first token (`first`), of
its surest token (`max`), or the best on average (`average`). What a word is, the model's tokenizer says. Neighbours of
one label are one entity unless one begins or the other ends it; its score is the mean of its words' (or tokens')
probabilities. So does the token classification pipeline of transformers; here spaces at the ends are trimmed off.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from sie_protocol.arrays import Array
from sie_server.adapters.base import Entity, LoadError, UnsupportedInputError
from sie_server.core.lifecycle import ErrorClass

OUTSIDE: Final = "O"
_PREFIXED: Final = re.compile(r"([BIESLU])-(.+)", re.DOTALL)
_BEGINS, _ENDS = frozenset("BSU"), frozenset("ESL")


@dataclass(frozen=True, slots=True)
class Tag:
    """What one class of a model means; `kind` None is no entity."""

    kind: str | None
    begins: bool = False
    ends: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which kinds of entity to tell, and under which label; how sure, and how words are judged."""

    labels: Mapping[str, str]
    threshold: float
    strategy: str


def read_tags(config: Mapping[str, Any]) -> tuple[Tag, ...]:
    """What each class means, by its number.

    Raises:
        LoadError: UNKNOWN when the configuration does not name its labels.
    """
    named = config.get("id2label")
    try:
        names = {int(number): str(name) for number, name in dict(named or {}).items()}
        return tuple(_tag(names[number]) for number in range(max(1, len(names))))
    except (KeyError, TypeError, ValueError) as error:
        raise LoadError(
            ErrorClass.UNKNOWN, f"config.json has no id2label from 0 upwards, but {named!r:.200}"
        ) from error


def wanted_labels(tags: Sequence[Tag], asked: Sequence[str]) -> dict[str, str]:
    """Kind to the label it is told under: the caller's spelling of those asked for, or the model's of all.

    Case, spaces, `-` and `_` make no difference.

    Raises:
        UnsupportedInputError: the model does not know a label.
    """
    own = {_plain(tag.kind): tag.kind for tag in tags if tag.kind is not None}
    unknown = [label for label in asked if _plain(label) not in own]
    if unknown:
        names = ", ".join(sorted(own.values()))
        raise UnsupportedInputError(f"it does not know the label '{unknown[0][:100]}'; its labels: {names}")
    if not asked:
        return {kind: kind for kind in own.values()}
    return {own[_plain(label)]: label for label in reversed(asked)}


def find_entities(
    text: str, spans: Array, words: Array, probabilities: Array, tags: Sequence[Tag], wanted: Wanted
) -> tuple[Entity, ...]:
    """The entities of a text by their start.

    `spans` [tokens, 2] are places in characters, `words` [tokens] numbers of words, `probabilities` [tokens, classes].
    Where one of these is no number, the whole text is told with a score that is none: "nothing found" would be a lie.
    """
    if not len(spans):
        return ()
    if not np.isfinite(probabilities).all():
        return (Entity(text, OUTSIDE, math.nan, 0, len(text)),)
    starts, ends, rows = judged(spans, words, probabilities, wanted.strategy)
    classes = rows.argmax(1)
    scores = rows[np.arange(len(rows)), classes].tolist()
    runs = grouped([tags[each] for each in classes.tolist()])
    found = [
        _entity(text, int(starts[run[0]]), int(ends[run[-1]]), kind, [scores[at] for at in run])
        for kind, run in runs
        if kind in wanted.labels
    ]
    kept = [each for each in found if each.start < each.end and each.score >= wanted.threshold]
    return tuple(Entity(each.text, wanted.labels[each.label], each.score, each.start, each.end) for each in kept)


def judged(spans: Array, words: Array, probabilities: Array, strategy: str) -> tuple[Array, Array, Array]:
    """Where each word (with `simple`: each token) starts and ends, and its probabilities [words, classes]."""
    if strategy == "simple":
        return spans[:, 0], spans[:, 1], probabilities
    firsts = np.flatnonzero(np.diff(words, prepend=words[0] - 1))
    lasts = np.append(firsts[1:], len(words)) - 1
    match strategy:
        case "average":
            rows = np.add.reduceat(probabilities, firsts) / (lasts - firsts + 1)[:, None]
        case "max":
            numbers = np.repeat(np.arange(len(firsts)), lasts - firsts + 1)
            surest = np.lexsort((-probabilities.max(1), numbers))  # stable: of equally sure tokens the first
            rows = probabilities[surest[firsts]]
        case _:
            rows = probabilities[firsts]
    return spans[firsts, 0], spans[lasts, 1], rows


def grouped(tags: Sequence[Tag]) -> list[tuple[str, range]]:
    """Kind and places of each run of words that is one entity."""
    runs: list[tuple[str, range]] = []
    previous = Tag(None)
    for at, tag in enumerate(tags):
        if tag.kind is not None:
            if tag.kind == previous.kind and not tag.begins and not previous.ends:
                runs[-1] = (tag.kind, range(runs[-1][1].start, at + 1))
            else:
                runs.append((tag.kind, range(at, at + 1)))
        previous = tag
    return runs


def _entity(text: str, start: int, end: int, kind: str, scores: Sequence[float]) -> Entity:
    piece = text[start:end]
    start += len(piece) - len(piece.lstrip())
    piece = piece.strip()
    return Entity(piece, kind, sum(scores) / len(scores), start, start + len(piece))


def _tag(name: str) -> Tag:
    if name == OUTSIDE:
        return Tag(None)
    prefixed = _PREFIXED.fullmatch(name)
    if prefixed is None:
        return Tag(name)
    return Tag(prefixed[2], prefixed[1] in _BEGINS, prefixed[1] in _ENDS)


def _plain(label: str) -> str:
    return " ".join(label.casefold().replace("_", " ").replace("-", " ").split())
