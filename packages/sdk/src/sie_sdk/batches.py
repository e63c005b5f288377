"""Long lists as several requests: where to cut, what the parts are called, and how ranked answers become one.

A worker takes `MAX_ITEMS` items at a time from everybody. A call sends parts of an eighth of that and four at once, so
that no call alone fills a queue, several workers share a list, and progress can be told.
"""

import heapq
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from sie_protocol.codec import MAX_BODY_BYTES
from sie_protocol.items import MAX_ITEMS, Item, ScoreEntry, ScoreResult, Usage, id_of
from sie_sdk import flow
from sie_sdk.flow import Part
from sie_sdk.messages import Answer, Flow, OnProgress, Plan, Request, T
from sie_sdk.retry import Terms

PART_ITEMS: Final = MAX_ITEMS // 8
PART_BYTES: Final = MAX_BODY_BYTES // 4
AT_ONCE: Final = 4

Ask = Callable[[Sequence[Item]], Request]
Parse = Callable[[Sequence[Item], Answer], T]


def call(
    items: Sequence[Item],
    terms: Terms,
    ask: Ask,
    parse: Parse[list[T]],
    progress: OnProgress | None,
    *,
    by_place: bool = False,
) -> Plan[list[T]]:
    """A call with one result per item: one request, or several for a long list.

    `by_place`: the server names items without an id by their place, which in a part is another one.

    Raises:
        TypeError: an item cannot be sent; nothing was.
    """
    whole = _whole(items, ask)
    if whole is not None:
        return _told(flow.single(whole, terms, partial(parse, items)), len(items), progress)
    parts = _parts(named(items) if by_place else items, ask, parse)
    return flow.many(parts, len(items), terms, AT_ONCE, progress)


def ranked(
    items: Sequence[Item], terms: Terms, ask: Ask, parse: Parse[ScoreResult], progress: OnProgress | None
) -> Plan[ScoreResult]:
    """A call that ranks all its items: as `call`, and the rankings of the parts become one.

    Every score depends on its own item alone, so the ranking is that of one request.
    """
    whole = _whole(items, ask)
    if whole is not None:
        return _told(flow.single(whole, terms, partial(parse, items)), len(items), progress)

    def spread(some: Sequence[Item], answer: Answer) -> list[ScoreResult]:
        return [parse(some, answer)] * len(some)  # `many` wants a result for each item; which part it is, is enough

    parts = _parts(named(items), ask, spread)
    everything = flow.many(parts, len(items), terms, AT_ONCE, progress)

    def begin(start: float) -> Flow[ScoreResult]:
        results = yield from everything(start)
        return merged([results[part.places][0] for part in parts])

    return begin


def merged(parts: Sequence[ScoreResult]) -> ScoreResult:
    """The ranking of all items of rankings in the order of their items; equal scores keep that order."""
    entries = heapq.merge(*(part["scores"] for part in parts), key=lambda entry: -entry["score"])
    scores = [ScoreEntry(item_id=e["item_id"], score=e["score"], rank=rank) for rank, e in enumerate(entries)]
    result = parts[0].copy()
    result["scores"] = scores
    usages = [part["usage"] for part in parts if "usage" in part]
    if usages:
        result["usage"] = Usage(
            input_tokens=sum(usage.get("input_tokens", 0) for usage in usages),
            truncated_items=sum(usage.get("truncated_items", 0) for usage in usages),
        )
    return result


def split(sizes: Sequence[int], max_items: int = PART_ITEMS, max_bytes: int = PART_BYTES) -> list[slice]:
    """Cut items of these sizes into as few parts as their order allows; an item too large for a part has its own."""
    parts: list[slice] = []
    begin, size = 0, 0
    for at, each in enumerate(sizes):
        if at > begin and (at - begin == max_items or size + each > max_bytes):
            parts.append(slice(begin, at))
            begin, size = at, 0
        size += each
    return [*parts, slice(begin, len(sizes))] if len(sizes) > begin else parts


def named(items: Sequence[Item]) -> list[Item]:
    """The items, each with the id that its answer would have in one request."""
    return [item | {"id": id_of(item, at)} for at, item in enumerate(items)]


def _whole(items: Sequence[Item], ask: Ask) -> Request | None:
    """The one request, unless the list is too long for it."""
    if len(items) > PART_ITEMS:
        return None
    request = ask(items)
    return request if len(request.body) <= PART_BYTES or len(items) == 1 else None


def _parts(items: Sequence[Item], ask: Ask, parse: Parse[list[T]]) -> list[Part[Sequence[T]]]:
    sizes = [len(ask([item]).body) for item in items]  # every item is checked before the first part is sent
    return [_part(items[places], places, ask, parse) for places in split(sizes)]


def _part(some: Sequence[Item], places: slice, ask: Ask, parse: Parse[list[T]]) -> Part[Sequence[T]]:
    return Part(places, partial(ask, some), partial(parse, some))


def _told(plan: Plan[T], total: int, progress: OnProgress | None) -> Plan[T]:
    if progress is None:
        return plan

    def begin(start: float) -> Flow[T]:
        result = yield from plan(start)
        progress(total, total)
        return result

    return begin
