"""The inputs of one request between its place in the queue and its answer: tokenised, checked, sent to the device."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate
from typing import Any, Final

from sie_protocol.errors import ErrorCode, Problem, about_item
from sie_server.adapters.base import CountsTokens, Input, Pair, Prepared, UnreadableImageError, UnsupportedInputError
from sie_server.core.options import invalid
from sie_server.core.tasks import BySide
from sie_server.engine.jobs import too_late
from sie_server.engine.loop import Answer, ModelLoop, Row
from sie_server.engine.pipeline import Pipeline
from sie_server.engine.results import Cost

_QUERY: Final = "the query"


@dataclass(frozen=True, slots=True)
class Wants:
    """What a request wants of its inputs: some outputs or all, and whether an input that is too long loses its end.

    `counts`: how many inputs each item of the request has become; None: one.
    """

    outputs: frozenset[str] | None = None
    may_cut: bool = True
    counts: Sequence[int] | None = None

    def item_of(self, at: int) -> int:
        """The item that an input belongs to."""
        if self.counts is None:
            return at
        return next(item for item, end in enumerate(accumulate(self.counts)) if at < end)


@dataclass(slots=True, eq=False)
class Admitted:
    """Inputs ready for the device; written by their request's own task."""

    prepared: Sequence[Prepared]
    tokenization_s: float
    loop: ModelLoop
    _answers: list[Answer] = field(default_factory=list)

    async def rows(self, some: Sequence[Prepared]) -> Sequence[Row]:
        """The rows of these inputs, in order; cancelling drops what has not started.

        Raises:
            Problem: any refusal of the model's queue.
        """
        answer = await self.loop.submit(some)
        self._answers.append(replace(answer, rows=()))  # whoever asked decides how long rows are kept
        return answer.rows

    def cost(self) -> Cost:
        """What all inputs took up to now."""
        return Cost(
            queue_s=sum(each.queue_s for each in self._answers),
            tokenization_s=self.tokenization_s,
            inference_s=sum(each.inference_s for each in self._answers),
            input_tokens=sum(item.tokens for item in self.prepared),
            truncated_items=sum(item.truncated for item in self.prepared),
        )


async def prepare_in_time(
    loop: ModelLoop, pipeline: Pipeline, inputs: Sequence[Input], *, is_query: bool = False
) -> tuple[list[Prepared], float]:
    """Inputs ready for the device, and the seconds it took.

    Raises:
        UnsupportedInputError: the model cannot read one of them.
        Problem: DEADLINE_EXCEEDED when the CPU pool has more to do than fits the time.
    """
    try:
        async with asyncio.timeout(loop.timeout_s):
            return await pipeline.prepare(loop.adapter, inputs, is_query=is_query)
    except TimeoutError as error:
        raise too_late(loop.name, loop.timeout_s) from error


def unsupported(loop: ModelLoop, error: UnsupportedInputError) -> Problem:
    """The refusal of a request with an input that its model cannot read."""
    return invalid(f"model '{loop.name}': {error}")


@asynccontextmanager
async def admitted(
    loop: ModelLoop,
    pipeline: Pipeline,
    inputs: Sequence[Input],
    wants: Wants,
    *,
    is_query: bool = False,
    query: Input | None = None,
    loras: BySide[Any] = BySide(),  # noqa: B008 - it cannot change
) -> AsyncIterator[Admitted]:
    """Hold room for the inputs of one request; `query` is one more, in front, and read as one.

    `loras` are what inputs run with that are read as queries, and the others.

    Raises:
        Problem: INVALID_INPUT for what the model cannot read, INPUT_TOO_LONG, QUEUE_FULL, or DEADLINE_EXCEEDED when
            the CPU pool has more to do than fits the time.
    """
    groups = [("item {}", list(inputs), is_query)]
    if query is not None:
        groups.insert(0, (_QUERY, [query], True))
    with loop.admit(sum(len(some) for _, some, _ in groups)):
        prepared: list[Prepared] = []
        tokenization_s = 0.0
        for place, some, as_query in groups:
            try:
                ready, spent_s = await prepare_in_time(loop, pipeline, some, is_query=as_query)
            except UnreadableImageError as error:
                item = wants.item_of(error.at or 0)
                raise _about(place, item, invalid(f"{place.format(item)}: {error}")) from error
            except UnsupportedInputError as error:
                raise unsupported(loop, error) from error
            if not wants.may_cut:
                await _check_lengths(loop, pipeline, place, wants, some, ready, is_query=as_query)
            lora = loras.query if as_query else loras.document
            prepared += ready if lora is None else [replace(each, lora=lora) for each in ready]
            tokenization_s += spent_s
        if wants.outputs is not None and len(loop.adapter.capabilities.outputs) > 1:
            prepared = [replace(each, wanted=wants.outputs) for each in prepared]
        yield Admitted(prepared, tokenization_s, loop)


async def _check_lengths(
    loop: ModelLoop,
    pipeline: Pipeline,
    place: str,
    wants: Wants,
    inputs: Sequence[Input],
    prepared: Sequence[Prepared],
    *,
    is_query: bool,
) -> None:
    """Refuse the first input that was cut; `place` is what the caller calls an input, with `{}` for its number."""
    at = next((at for at, each in enumerate(prepared) if each.truncated), None)
    if at is None:
        return
    limit, adapter = prepared[at].tokens, loop.adapter
    found = f"more than {limit}"
    if isinstance(adapter, CountsTokens):
        found = str(await pipeline.run(partial(adapter.tokens_of, inputs[at], is_query=is_query)))
    item = wants.item_of(at)
    which = f"the query with item {at}" if isinstance(inputs[at], Pair) else place.format(item)
    refused = Problem(
        ErrorCode.INPUT_TOO_LONG,
        f"{which} has {found} tokens, model '{loop.name}' reads at most {limit}; shorten it, or have it cut with "
        "options.overflow_policy: truncate_text",
    )
    raise _about(place, item, refused)


def _about(place: str, item: int, refused: Problem) -> Problem:
    return refused if place == _QUERY else about_item(refused, item)
