"""Writes small seeded GLiNER2 checkpoints with the package `gliner2`, and answers for them with it: the oracle."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sie_server.core.schema import Schema
from tiny_gliner import BERT, COMMON, DEBERTA, TOKENIZERS, wrapped

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the oracle's own
    from gliner2 import GLiNER2
    from gliner2.configuration import ExtractorConfig
    from transformers import BertConfig, DebertaV2Config

CONFIGS: Mapping[str, Any] = {"bert": BertConfig, "deberta-v2": DebertaV2Config}
MAX_WORDS = 24

# What is found: text, label, score, first character, the one after the last.
Found = tuple[str, str, float, int, int]


@dataclass(frozen=True, slots=True)
class Variety:
    """How a checkpoint is written; `config` goes over the common part of its configuration.

    `instances`: whether the model expects any entities at all; a number: as many of everything.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    encoder: Mapping[str, Any] = field(default_factory=lambda: DEBERTA)
    seed: int = 0
    instances: bool | int = True


def write_gliner2(folder: Path, variety: Variety) -> Path:
    """A folder as the package saves it, with weights large enough for scores on both sides of every threshold."""
    torch.manual_seed(variety.seed)
    tokenizer = wrapped(TOKENIZERS[variety.encoder["model_type"]]())
    encoder = CONFIGS[variety.encoder["model_type"]](**{**COMMON, **variety.encoder, "vocab_size": len(tokenizer)})
    own = {"model_name": "org/backbone", "max_width": 4, "max_len": MAX_WORDS, **variety.config}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = GLiNER2(ExtractorConfig(**own), encoder_config=encoder, tokenizer=tokenizer)
        for name, parameter in model.named_parameters():
            if not name.startswith("encoder."):
                parameter.data.mul_(1.6)
        model.count_pred[2].bias.data[0] = -100.0 if variety.instances else 100.0
        if not isinstance(variety.instances, bool):
            model.count_pred[2].bias.data[variety.instances] = 200.0
        model.save_pretrained(str(folder))
    return folder


class Oracle:
    """What the package finds in one text."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._model = GLiNER2.from_pretrained(str(folder))

    def entities(self, text: str, labels: Sequence[str], threshold: float) -> list[Found]:
        """By label in the caller's order, the best of a label first."""
        schema = self._model.create_schema().entities(list(labels))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer = self._model.extract(
                text, schema, threshold, format_results=False, include_confidence=True, include_spans=True
            )
        return [
            (each["text"], label, each["confidence"], each["start"], each["end"])
            for found in answer["entities"]
            for label, some in found.items()
            for each in some
        ]

    def classes(self, text: str, labels: Sequence[str], task: str, *, multi_label: bool) -> dict[str, float]:
        """The score of every label."""
        own = "sigmoid" if multi_label else "softmax"
        schema = self._model.create_schema().classification(
            task, list(labels), multi_label=True, cls_threshold=0.0, class_act=own
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer = self._model.extract(text, schema, format_results=False)
        return dict(answer[task])

    def data(self, text: str, schema: Schema, threshold: float) -> dict[str, Any]:
        """By the name of each record, relation or question; scores and places included, nothing left out."""
        asked = self._model.create_schema()
        for record in schema.records:
            structure = asked.structure(record.name)
            for each in record.fields:
                dtype, choices = "list" if each.many else "str", list(each.choices) or None
                structure.field(each.name, dtype=dtype, choices=choices, description=each.description or None)
        for relation in schema.relations:
            config = {"description": relation.description} if relation.description else {}
            asked.relations({relation.name: config})
        for question in schema.questions:
            own = "sigmoid" if question.many else "softmax"
            prompt = {"prompt": question.description} if question.description else {}
            asked.classification(
                question.name, list(question.labels), multi_label=True, cls_threshold=0.0, class_act=own, **prompt
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer: dict[str, Any] = self._model.extract(
                text, asked, threshold, format_results=False, include_confidence=True, include_spans=True
            )
        # The package names the pairs of a relation by all that the model reads of its name.
        longer = {f"{each.name}: {each.description}": each.name for each in schema.relations if each.description}
        return {longer.get(name, name): found for name, found in answer.items()}


__all__ = ["BERT", "Found", "Oracle", "Variety", "write_gliner2"]
