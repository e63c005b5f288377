"""The images of one request, each on its own way to the device.

A decoded image takes megabytes, so at most `max_decoded` of a model's queue exist at a time, and of one request at most
`AT_ONCE`: others have theirs in between. An image that cannot be read is refused alone.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sie_server.adapters.base import Input, LabelledPicture, UnreadableImageError, UnsupportedInputError
from sie_server.engine.admission import prepare_in_time, unsupported
from sie_server.engine.jobs import Row, too_late
from sie_server.engine.loop import ModelLoop
from sie_server.engine.pipeline import Pipeline
from sie_server.engine.results import Cost, total

AT_ONCE: Final = 8  # fills two batches of an accelerator, one to compute and one to come


@dataclass(frozen=True, slots=True)
class ReadImage:
    """What one image came to."""

    row: Row
    cost: Cost


@dataclass(frozen=True, slots=True)
class ReadImages:
    """What the images of one request came to, by their places in it, and the cost of all.

    Its times are those of the lane that took longest: lanes go side by side, and their sum is nobody's time.
    """

    found: Mapping[int, ReadImage | UnreadableImageError]
    cost: Cost


async def one_by_one(loop: ModelLoop, pipeline: Pipeline, inputs: Mapping[int, Input]) -> ReadImages:
    """What images came to; cancelling drops what has not started.

    Raises:
        Problem: INVALID_INPUT for another reason than an image, INPUT_TOO_LONG, or any refusal of the model's queue.
    """
    found: dict[int, ReadImage | UnreadableImageError] = {}
    left = iter(inputs.items())
    lanes_costs: list[Cost] = []

    async def lane() -> None:
        costs: list[Cost] = []
        for at, given in left:  # all lanes take from the same
            found[at] = read = await _read(loop, pipeline, at, given)
            if isinstance(read, ReadImage):
                costs.append(read.cost)
        lanes_costs.append(total(costs))

    with loop.admit(len(inputs)):
        try:
            async with asyncio.TaskGroup() as lanes:
                for _ in range(min(AT_ONCE, loop.max_decoded, len(inputs))):
                    lanes.create_task(lane())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None  # the others were cancelled with it, or say the same
    return ReadImages(found, _side_by_side(lanes_costs))


def _side_by_side(lanes: Sequence[Cost]) -> Cost:
    """What lanes took that began together."""
    longest = max(lanes, key=lambda each: each.queue_s + each.tokenization_s + each.inference_s)
    every = total(lanes)
    return replace(longest, input_tokens=every.input_tokens, truncated_items=every.truncated_items)


async def _read(loop: ModelLoop, pipeline: Pipeline, at: int, given: Input) -> ReadImage | UnreadableImageError:
    came_at = loop.now
    try:
        async with asyncio.timeout(loop.timeout_s):
            await loop.decoding.acquire()
    except TimeoutError as error:
        raise too_late(loop.name, loop.timeout_s) from error
    waited_s = loop.now - came_at
    try:
        prepared, spent_s = await prepare_in_time(loop, pipeline, [given])
        answer = await loop.submit(prepared, at)
    except UnreadableImageError as error:
        return error
    except UnsupportedInputError as error:
        if isinstance(given, LabelledPicture) and given.asks_itself:
            return UnreadableImageError(str(error))
        raise unsupported(loop, error) from error
    finally:
        loop.decoding.release()
    queue_s = waited_s + answer.queue_s
    cost = Cost(queue_s, spent_s, answer.inference_s, prepared[0].tokens, int(prepared[0].truncated))
    return ReadImage(answer.rows[0], cost)
