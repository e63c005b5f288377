"""What a `glirel_config.json` says about a model, and what of it is computed here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sie_server.adapters.shared.checkpoint import expect, read_numbers

TOKEN, LABEL, BOTH = "ent_token", "label", "both"
ENDS, MEAN = "markerv1", "markerv2"
BEFORE_LABEL: Final = "[REL]"
AFTER_LABELS: Final = "[SEP]"


@dataclass(frozen=True, slots=True)
class GlirelConfig:
    """`width` are the components of a word after its encoder; at most `max_words` were read together in training.

    A relation stands behind `BEFORE_LABEL` and is told by that token's vector (`TOKEN`), by the next one's (`LABEL`),
    or by the mean of both. An entity is told by its first and last word (`ENDS`), or by the mean of its words.
    """

    width: int
    max_words: int
    label: str
    entity: str


def read_glirel_config(config: Mapping[str, Any]) -> GlirelConfig:
    """Read and check.

    Raises:
        LoadError: DEPENDENCY for a variety that is not computed here, UNKNOWN when something is missing.
    """
    expect(config, "scorer", "dot", default="dot")
    expect(config, "rel_mode", "marker", default="marker")
    expect(config, "span_marker_mode", ENDS, MEAN, default=ENDS)
    expect(config, "label_embed_strategy", TOKEN, LABEL, BOTH)
    expect(config, "subtoken_pooling", "first", default="first")
    expect(config, "max_entity_pair_distance", None)
    for absent in ("refine_prompt", "refine_relation", "add_entity_markers"):
        expect(config, absent, False, None)

    def read() -> GlirelConfig:
        return GlirelConfig(
            width=int(config["hidden_size"]),
            max_words=int(config["max_len"]),
            label=str(config["label_embed_strategy"]),
            entity=str(config.get("span_marker_mode", ENDS)),
        )

    return read_numbers("GLiREL", read)
