"""What an extract request wants: which labels, and with which options of the model's family."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from sie_protocol.catalog import ExtractTask, ModelConfig
from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.items import MAX_LABELS, ExtractParams
from sie_server.core.options import (
    EXTRACT_OPTIONS,
    MAX_LABEL_CHARS,
    invalid,
    may_cut,
    merged_options,
    no_such_task,
    shown,
)
from sie_server.core.schema import Schema, read_schema

AGGREGATIONS: Final = ("first", "average", "max", "simple")
MAX_COUNT: Final = 1_000_000  # of tokens, objects or findings; no model reads or gives more
MAX_NEW_TOKENS: Final = 4096  # each is a step of the model; a model that can write fewer says so itself
MAX_BEAMS: Final = 8  # every beam costs as much as an input of its own; publishers use up to 5
MAX_INSTRUCTION_CHARS: Final = 10_000
FINDINGS: Final = ("entities", "classifications")
SLOT: Final = "{}"


@dataclass(frozen=True, slots=True)
class ExtractOptions:
    """One extract request, resolved: labels in the caller's order, and those options that the caller or profile set.

    `schema`: data of this form are wanted, and no labels. `reads_entities`: every item says which entities are in its
    text. `may_cut`: an item that is too long loses its end, else it is refused. `instruction` stands beside every item
    that has none of its own.
    """

    labels: tuple[str, ...]
    options: Mapping[str, Any]
    reads_entities: bool = False
    may_cut: bool = True
    schema: Schema | None = None
    instruction: str = ""

    @property
    def tells_evidence(self) -> bool:
        """Whether data say of each text how sure the model is of it, and where it stands."""
        return bool(self.options.get("evidence", False))


def resolve_extract(model: ModelConfig, params: ExtractParams) -> ExtractOptions:
    """Resolve one extract request against its model.

    Raises:
        Problem: INVALID_INPUT or INPUT_TOO_LONG; the message names what was asked and what the model can use.
    """
    task = model.tasks.extract
    if task is None:
        raise no_such_task(model, "extract")
    if params.output_schema is not None and task.output_schema == "none":
        raise _unused(model, "output_schema")
    if params.instruction is not None and task.instruction == "none":
        raise _unused(model, "instruction")
    instruction = checked_instruction("params.instruction", params.instruction or "")
    merged = merged_options(model, params.options or {})
    options = {name: merged[name] for name in sorted(EXTRACT_OPTIONS & merged.keys()) if merged[name] is not None}
    for name, value in options.items():
        is_right, expected = CHECKS[name]
        if not is_right(value):
            raise invalid(f"options.{name} is {shown(value)}; expected {expected}")
    schema = None
    if params.output_schema is None:
        labels = _labels(model, task, params.labels or [])
    else:
        if params.labels:
            raise invalid("the request has params.labels and params.output_schema; send one of them in a request")
        labels, schema = (), read_schema(params.output_schema)
    return ExtractOptions(labels, options, task.entities == "required", may_cut(merged), schema, instruction)


def checked_instruction(place: str, instruction: str) -> str:
    """A question as the model reads it, without spaces around it.

    Raises:
        Problem: INPUT_TOO_LONG.
    """
    if len(instruction) > MAX_INSTRUCTION_CHARS:
        message = f"{place} has {len(instruction)} characters, the limit is {MAX_INSTRUCTION_CHARS}"
        raise Problem(ErrorCode.INPUT_TOO_LONG, message)
    return instruction.strip()


def _unused(model: ModelConfig, name: str) -> Problem:
    return invalid(f"model '{model.sie_id}' cannot use {name}; leave it out")


def _labels(model: ModelConfig, task: ExtractTask, labels: list[str]) -> tuple[str, ...]:
    if labels and task.labels == "none":
        raise invalid(f"model '{model.sie_id}' reads no labels; leave them out")
    if not labels and task.labels == "required":
        instead = " or params.output_schema" if task.output_schema == "optional" else ""
        raise invalid(f"model '{model.sie_id}' looks for what labels name; send params.labels{instead}")
    if len(labels) > MAX_LABELS:
        raise Problem(ErrorCode.INPUT_TOO_LONG, f"the request has {len(labels)} labels, the limit is {MAX_LABELS}")
    seen: set[str] = set()
    for at, label in enumerate(labels):
        if not label.strip():
            raise invalid(f"label {at} is empty; every label is a text")
        if len(label) > MAX_LABEL_CHARS:
            message = f"label {at} has {len(label)} characters, the limit is {MAX_LABEL_CHARS}"
            raise Problem(ErrorCode.INPUT_TOO_LONG, message)
        if label in seen:
            raise invalid(f"label {at}, {shown(label)}, is there twice; send every label once")
        seen.add(label)
    return tuple(labels)


def check_finite(scores: list[float], place: int) -> None:
    """Refuse scores that have no place in an order, or in JSON.

    Raises:
        Problem: INFERENCE_ERROR naming the item.
    """
    wrong = next((score for score in scores if not math.isfinite(score)), None)
    if wrong is not None:
        raise Problem(ErrorCode.INFERENCE_ERROR, f"the model gave a finding in item {place} the score {wrong}")


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _is_switch(value: object) -> bool:
    return isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT


def _is_positive(value: object) -> bool:
    return _is_count(value) and value != 0


def _is_length(value: object) -> bool:
    return _is_positive(value) and isinstance(value, int) and value <= MAX_NEW_TOKENS


def _are_beams(value: object) -> bool:
    return _is_positive(value) and isinstance(value, int) and value <= MAX_BEAMS


def _is_template(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_LABEL_CHARS and value.count(SLOT) == 1


def _is_name(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_LABEL_CHARS and bool(value.strip())


def _is_labels(value: object) -> bool:
    if not isinstance(value, list) or len(value) > MAX_LABELS:
        return False
    return all(map(_is_name, value)) and len(set(value)) == len(value)


def _is_findings(value: object) -> bool:
    return value in FINDINGS


def _is_aggregation(value: object) -> bool:
    return value in AGGREGATIONS


_SHARE: Final = (_is_share, "a number from 0 to 1")
_SWITCH: Final = (_is_switch, "true or false")
_TEMPLATE: Final = (_is_template, f"a text with exactly one {SLOT}, where the label goes")
# What each option may be; the models' own defaults are with their families.
CHECKS: Final[Mapping[str, tuple[Callable[[object], bool], str]]] = MappingProxyType(
    {
        "aggregation_strategy": (_is_aggregation, f"one of: {', '.join(AGGREGATIONS)}"),
        "box_threshold": _SHARE,
        "evidence": _SWITCH,
        "findings": (_is_findings, f"one of: {', '.join(FINDINGS)}"),
        "flat_ner": _SWITCH,
        "hypothesis_template": _TEMPLATE,
        "label_template": _TEMPLATE,
        "max_new_tokens": (_is_length, f"a number of tokens, 1 to {MAX_NEW_TOKENS}"),
        "max_objects": (_is_positive, "a number of objects, 1 or more"),
        "merge_adjacent_entities": _SWITCH,
        "multi_label": _SWITCH,
        "nms_threshold": _SHARE,
        "num_beams": (_are_beams, f"a number of beams, 1 to {MAX_BEAMS}"),
        "relation_labels": (_is_labels, f"a list of at most {MAX_LABELS} texts, each once"),
        "relation_threshold": _SHARE,
        "score_threshold": _SHARE,
        "stride": (_is_count, f"a number of tokens, 0 to {MAX_COUNT}"),
        "task": (_is_name, f"a text of at most {MAX_LABEL_CHARS} characters that is not empty"),
        "text_threshold": _SHARE,
        "threshold": _SHARE,
        "top_k": (_is_positive, "a number of findings, 1 or more"),
    }
)
