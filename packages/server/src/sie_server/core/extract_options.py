"""The options of the task extract, and what each may be. The models' own defaults are with their families."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from sie_protocol.items import MAX_LABELS
from sie_server.core.checks import SHARE, SWITCH, Check, one_of, template, text, texts, whole

MAX_LABEL_CHARS: Final = 1000  # of any name that a caller gives
MAX_NEW_TOKENS: Final = 4096  # each is a step of the model; a model that can write fewer says so itself
MAX_BEAMS: Final = 8  # every beam costs as much as an input of its own; publishers use up to 5
SLOT: Final = "{}"

EXTRACT_OPTIONS: Final[Mapping[str, Check]] = MappingProxyType(
    {
        "aggregation_strategy": one_of("first", "average", "max", "simple"),
        "box_threshold": SHARE,
        "evidence": SWITCH,
        "findings": one_of("entities", "classifications"),
        "flat_ner": SWITCH,
        "hypothesis_template": template(SLOT, MAX_LABEL_CHARS),
        "label_template": template(SLOT, MAX_LABEL_CHARS),
        "max_new_tokens": whole("tokens", 1, MAX_NEW_TOKENS),
        "max_objects": whole("objects", 1),
        "merge_adjacent_entities": SWITCH,
        "multi_label": SWITCH,
        "nms_threshold": SHARE,
        "num_beams": whole("beams", 1, MAX_BEAMS),
        "relation_labels": texts(MAX_LABELS, MAX_LABEL_CHARS),
        "relation_threshold": SHARE,
        "score_threshold": SHARE,
        "stride": whole("tokens", 0),
        "task": text(MAX_LABEL_CHARS),
        "text_threshold": SHARE,
        "threshold": SHARE,
        "top_k": whole("findings", 1),
    }
)
