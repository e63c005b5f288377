"""What a score request wants, how vectors become scores, and how scores become ranks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from sie_protocol.arrays import Array
from sie_protocol.catalog import ModelConfig
from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.items import MAX_CANDIDATES
from sie_server.core.options import Prompt, invalid, merged_options, no_such_task, prompt_of

SIMILARITIES: Final = ("cosine", "dot")
SMALLEST_NORM: Final = 1e-12


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """One score request, resolved. `reads_pairs`: the model scores pairs itself; else `similarity` compares vectors."""

    reads_pairs: bool
    query_prompt: Prompt
    document_prompt: Prompt
    similarity: str


def resolve_score(model: ModelConfig, instruction: str | None, asked: Mapping[str, Any]) -> ScoreOptions:
    """Resolve one score request against its model.

    A model with a score task reads query and document together. Another one with a dense output compares its vectors
    of the two. An instruction is for the query only.

    Raises:
        Problem: INVALID_INPUT; the message names what was asked and what the model has.
    """
    reads_pairs = model.tasks.score is not None
    if not reads_pairs and "dense" not in model.dims:
        raise no_such_task(model, "score")
    options = merged_options(model, asked)
    similarity = options.get("similarity", SIMILARITIES[0])
    if similarity not in SIMILARITIES:
        raise invalid(f"options.similarity is {similarity!r}; expected one of: {', '.join(SIMILARITIES)}")
    return ScoreOptions(
        reads_pairs,
        prompt_of(options, instruction, is_query=True),
        prompt_of(options, None, is_query=False),
        str(similarity),
    )


def check_candidates(count: int) -> None:
    """Refuse a request without items, or with too many.

    Raises:
        Problem: INVALID_INPUT or INPUT_TOO_LONG.
    """
    if not count:
        raise invalid("items is empty; send at least one item")
    if count > MAX_CANDIDATES:
        message = f"the request has {count} items, a query is scored against at most {MAX_CANDIDATES}; send fewer"
        raise Problem(ErrorCode.INPUT_TOO_LONG, message)


def compare(query: Array, documents: Sequence[Array], similarity: str) -> list[float]:
    """The similarity of a vector to each of the others, all of shape [dims]; a vector of zeros is like no other."""
    left, right = np.asarray(query, np.float64), np.stack(documents).astype(np.float64)
    if similarity == "cosine":
        left = left / max(float(np.linalg.norm(left)), SMALLEST_NORM)
        right /= np.maximum(np.linalg.norm(right, axis=1, keepdims=True), SMALLEST_NORM)
    scores: list[float] = (right @ left).tolist()
    return scores


def ranked(scores: Sequence[float]) -> tuple[int, ...]:
    """Places of the scores from the highest to the lowest; equal ones stay in their order.

    Raises:
        Problem: INFERENCE_ERROR when a score is no finite number: it has no rank, and no place in JSON.
    """
    wrong = next((at for at, score in enumerate(scores) if not math.isfinite(score)), None)
    if wrong is not None:
        raise Problem(ErrorCode.INFERENCE_ERROR, f"the model gave item {wrong} the score {scores[wrong]}")
    return tuple(sorted(range(len(scores)), key=lambda at: -scores[at]))
