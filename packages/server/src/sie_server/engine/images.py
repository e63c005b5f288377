"""The images of one request, each on its own way to the device.

A decoded image takes megabytes, so at most `max_decoded` of a model's queue exist at a time, and of one request at most
`AT_ONCE`: others have theirs in between. An image that cannot be read is refused alone.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sie_server.adapters.base import Input, UnreadableImageError, UnsupportedInputError
from sie_server.engine.admission import prepare_in_time, unsupported
from sie_server.engine.jobs import Row, too_late
from sie_server.engine.loop import ModelLoop
from sie_server.engine.pipeline import Pipeline
from sie_server.engine.results import Cost

AT_ONCE: Final = 8  # fills two batches of an accelerator, one to compute and one to come


@dataclass(frozen=True, slots=True)
class ReadImage:
    """What one image came to."""

    row: Row
    cost: Cost


async def one_by_one(
    loop: ModelLoop, pipeline: Pipeline, inputs: Mapping[int, Input]
) -> dict[int, ReadImage | UnreadableImageError]:
    """What images came to, by their places in the request; cancelling drops what has not started.

    Raises:
        Problem: INVALID_INPUT for another reason than an image, INPUT_TOO_LONG, or any refusal of the model's queue.
    """
    read: dict[int, ReadImage | UnreadableImageError] = {}
    left = iter(inputs.items())

    async def lane() -> None:
        for at, given in left:  # all lanes take from the same
            read[at] = await _read(loop, pipeline, at, given)

    with loop.admit(len(inputs)):
        try:
            async with asyncio.TaskGroup() as lanes:
                for _ in range(min(AT_ONCE, loop.max_decoded, len(inputs))):
                    lanes.create_task(lane())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None  # the others were cancelled with it, or say the same
    return read


async def _read(loop: ModelLoop, pipeline: Pipeline, at: int, given: Input) -> ReadImage | UnreadableImageError:
    try:
        async with asyncio.timeout(loop.timeout_s):
            await loop.decoding.acquire()
    except TimeoutError as error:
        raise too_late(loop.name, loop.timeout_s) from error
    try:
        prepared, spent_s = await prepare_in_time(loop, pipeline, [given])
        answer = await loop.submit(prepared, at)
    except UnreadableImageError as error:
        return error
    except UnsupportedInputError as error:
        raise unsupported(loop, error) from error
    finally:
        loop.decoding.release()
    cost = Cost(answer.queue_s, spent_s, answer.inference_s, prepared[0].tokens, int(prepared[0].truncated))
    return ReadImage(answer.rows[0], cost)
