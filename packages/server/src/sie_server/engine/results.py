"""What the engine answers. Values only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sie_protocol.errors import Problem
from sie_server.adapters.base import Data, Findings
from sie_server.core.options import EncodeOptions
from sie_server.engine.quantize import Finished


@dataclass(frozen=True, slots=True)
class Cost:
    """What one request took: times in seconds, tokens as the model read them, inputs that were cut at its limit.

    `postprocessing_s` is what is made of the model's outputs in the CPU pool, waiting for a thread included.
    """

    queue_s: float
    tokenization_s: float
    inference_s: float
    input_tokens: int
    truncated_items: int
    postprocessing_s: float = 0.0


def total(costs: Sequence[Cost]) -> Cost:
    """What several runs of one request took together."""
    return Cost(
        queue_s=sum(each.queue_s for each in costs),
        tokenization_s=sum(each.tokenization_s for each in costs),
        inference_s=sum(each.inference_s for each in costs),
        input_tokens=sum(each.input_tokens for each in costs),
        truncated_items=sum(each.truncated_items for each in costs),
        postprocessing_s=sum(each.postprocessing_s for each in costs),
    )


@dataclass(frozen=True, slots=True)
class Encoded:
    """One encode answer: per item its outputs, and how many components each has."""

    model: str
    rows: Sequence[Mapping[str, Finished]]
    dims: Mapping[str, int]
    options: EncodeOptions
    cost: Cost


@dataclass(frozen=True, slots=True)
class Scored:
    """One score answer: each item's score, and the items' places from the best to the worst."""

    model: str
    scores: Sequence[float]
    order: Sequence[int]
    cost: Cost


Found = Mapping[str, Findings | Data] | Problem  # in one item: by output, or why it could not be read


@dataclass(frozen=True, slots=True)
class Extracted:
    """One extract answer: what was found in each item, in order.

    `tells_evidence`: data say of each text how sure the model is of it, and where it stands.
    """

    model: str
    rows: Sequence[Found]
    cost: Cost
    tells_evidence: bool = False
