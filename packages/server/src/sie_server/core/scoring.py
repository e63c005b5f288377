"""What a score request wants, and how scores become ranks."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from sie_protocol.catalog import ModelConfig
from sie_protocol.errors import ErrorCode, Problem, about_item
from sie_protocol.items import MAX_CANDIDATES
from sie_protocol.profiles import Muvera, muvera_of
from sie_server.core.options import (
    Prompt,
    computed_for,
    invalid,
    may_cut,
    merged_options,
    no_such_task,
    output_types,
    prompt_of,
    shown,
)
from sie_server.core.similarity import SIMILARITIES

HYBRID: Final = "hybrid"
KINDS: Final = ("dense", "sparse", "multivector")
SCORE_MODES: Final = MappingProxyType({**{kind: kind for kind in KINDS}, "colbert": "multivector", HYBRID: HYBRID})
# How much each of the kinds counts in a hybrid score: what BGE-M3 was published with.
HYBRID_WEIGHTS: Final = (0.4, 0.2, 0.4)
MAX_WEIGHT: Final = 1e9  # only their proportions count, and those of larger numbers are not exact for long


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """One score request, resolved.

    `weights`: the outputs that are compared and how much each counts, of 1 in all; none if the model reads pairs.
    `is_hybrid`: token vectors count by the mean over the query's tokens, as the other outputs know no number of tokens.
    `muvera`: the dense vectors that are compared are made of token vectors.
    """

    weights: Mapping[str, float]
    is_hybrid: bool
    query_prompt: Prompt
    document_prompt: Prompt
    similarity: str
    may_cut: bool
    muvera: Muvera | None = None

    @property
    def computed(self) -> frozenset[str]:
        """What the adapter has to give for the outputs that are compared."""
        return computed_for(self.weights, self.muvera)

    @property
    def reads_pairs(self) -> bool:
        """True when the model scores pairs itself."""
        return not self.weights


def resolve_score(model: ModelConfig, instruction: str | None, asked: Mapping[str, Any]) -> ScoreOptions:
    """Resolve one score request against its model.

    A model with a score task reads query and document together. Any other one compares its vectors of the two. An
    instruction is for the query only.

    Raises:
        Problem: INVALID_INPUT; the message names what was asked and what the model has.
    """
    if model.tasks.score is None and not model.dims:
        raise no_such_task(model, "score")
    options = merged_options(model, asked)
    muvera = muvera_of(model, options)
    similarity = options.get("similarity", SIMILARITIES[0] if muvera is None else "dot")
    if similarity not in SIMILARITIES:
        raise invalid(f"options.similarity is {shown(similarity)}; expected one of: {', '.join(SIMILARITIES)}")
    mode = _mode(model, options, may_mix=muvera is None)
    weights = _weights(model, mode, options.get("score_weights", HYBRID_WEIGHTS))
    return ScoreOptions(
        weights,
        mode == HYBRID,
        prompt_of(options, instruction, is_query=True),
        prompt_of(options, None, is_query=False),
        str(similarity),
        may_cut(options),
        muvera if "dense" in weights else None,
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


def pieces(sizes: Sequence[int], limit: int) -> Iterator[slice]:
    """Cut a sequence into neighbouring pieces of at most `limit` in all, but of one element at least."""
    start, total = 0, 0
    for at, size in enumerate(sizes):
        if at > start and total + size > limit:
            yield slice(start, at)
            start, total = at, 0
        total += size
    if start < len(sizes):
        yield slice(start, len(sizes))


def ranked(scores: Sequence[float]) -> tuple[int, ...]:
    """Places of the scores from the highest to the lowest; equal ones stay in their order.

    Raises:
        Problem: INFERENCE_ERROR when a score is no finite number: it has no rank, and no place in JSON.
    """
    wrong = next((at for at, score in enumerate(scores) if not math.isfinite(score)), None)
    if wrong is not None:
        refused = Problem(ErrorCode.INFERENCE_ERROR, f"the model gave item {wrong} the score {scores[wrong]}")
        raise about_item(refused, wrong)
    return tuple(sorted(range(len(scores)), key=lambda at: -scores[at]))


def _mode(model: ModelConfig, options: Mapping[str, Any], *, may_mix: bool) -> str | None:
    """What is compared, None for pairs; unless the request or the profile says so, the profile's first output.

    `may_mix`: its outputs are of one scale, so that a weighted mean of them means something.
    """
    asked = options.get("score_mode")
    if model.tasks.score is not None:
        if asked is not None:
            raise invalid(f"options.score_mode is {shown(asked)}; model '{model.sie_id}' reads pairs and has no modes")
        return None
    mode = SCORE_MODES.get(asked) if isinstance(asked, str) else None
    if asked is None:
        return output_types(model, options.get("output_types"))[0]
    able = (*model.dims, *([HYBRID] if may_mix and len(model.dims) > 1 else []))
    if mode not in able:
        raise invalid(f"options.score_mode is {shown(asked)}; model '{model.sie_id}' has: {', '.join(able)}")
    return mode


def _weights(model: ModelConfig, mode: str | None, asked: object) -> Mapping[str, float]:
    if mode is None:
        return {}
    if mode != HYBRID:
        return {mode: 1.0}
    numbers = asked if isinstance(asked, list | tuple) else ()
    if len(numbers) != len(KINDS) or not all(_is_weight(each) for each in numbers):
        raise invalid(
            f"options.score_weights is {shown(asked)}; expected three numbers from 0 to {MAX_WEIGHT:.0e}: "
            "for dense, sparse, multivector"
        )
    own = {kind: float(number) for kind, number in zip(KINDS, numbers, strict=True) if kind in model.dims and number}
    total = sum(own.values())
    if not total:
        raise invalid(f"options.score_weights is {shown(asked)}; an output of model '{model.sie_id}' must count")
    return {kind: number / total for kind, number in own.items()}


def _is_weight(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_WEIGHT
