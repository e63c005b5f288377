"""What an extract request wants: which labels, and with which options of the model's family."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sie_protocol.catalog import ExtractTask, ModelConfig
from sie_protocol.errors import LABELS, PARAM, ErrorCode, Problem
from sie_protocol.items import MAX_LABELS, ExtractParams
from sie_server.core.extract_options import EXTRACT_OPTIONS, MAX_LABEL_CHARS
from sie_server.core.options import (
    MAX_INSTRUCTION_CHARS,
    check_chars,
    invalid,
    may_cut,
    merged_options,
    no_such_task,
    shown,
)
from sie_server.core.schema import Schema, read_schema


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
    options = {name: merged[name] for name in sorted(EXTRACT_OPTIONS.keys() & merged.keys())}
    for name, value in options.items():
        is_right, expected = EXTRACT_OPTIONS[name]
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
    check_chars(place, instruction, MAX_INSTRUCTION_CHARS)
    return instruction.strip()


def _unused(model: ModelConfig, name: str) -> Problem:
    return invalid(f"model '{model.sie_id}' cannot use {name}; leave it out")


def _labels(model: ModelConfig, task: ExtractTask, labels: list[str]) -> tuple[str, ...]:
    if labels and task.labels == "none":
        raise invalid(f"model '{model.sie_id}' reads no labels; leave them out")
    if not labels and task.labels == "required":
        instead = " or params.output_schema" if task.output_schema == "optional" else ""
        message = f"model '{model.sie_id}' looks for what labels name; send params.labels{instead}"
        raise Problem(ErrorCode.INVALID_INPUT, message, details={PARAM: LABELS})
    if len(labels) > MAX_LABELS:
        raise Problem(ErrorCode.INPUT_TOO_LONG, f"the request has {len(labels)} labels, the limit is {MAX_LABELS}")
    seen: set[str] = set()
    for at, label in enumerate(labels):
        if not label.strip():
            raise invalid(f"label {at} is empty; every label is a text")
        check_chars(f"label {at}", label, MAX_LABEL_CHARS)
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
