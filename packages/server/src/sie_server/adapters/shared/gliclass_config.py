"""What the `config.json` of a GLiClass model says, and what of it is computed here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sie_server.adapters.base import LoadError
from sie_server.adapters.shared.checkpoint import expect, read_numbers
from sie_server.core.lifecycle import ErrorClass

SIMPLE, WEIGHTED, MLP = "simple", "weighted-dot", "mlp"
FIRST, MEAN, AVERAGE = "first", "avg", "average"


@dataclass(frozen=True, slots=True)
class GliclassConfig:
    """`encoder` is the encoder's own `config.json`; `width` the components of a text's and a label's vector.

    A label stands behind `label_id`; labels stand in front of the text or behind it, and end with `text_id`. A label's
    vector is that of its `label_id`, of the token behind it, or with `averages` the mean of its tokens, of which
    `reads_label_token` says whether `label_id` is one. A text's vector is that of its first token, or with `text_mean`
    the mean of all: of the whole sequence, or with `reads_text_only` from `text_id` on.
    """

    encoder: Mapping[str, Any]
    width: int
    activation: str
    scorer: str
    label_id: int
    text_id: int
    labels_first: bool
    averages: bool
    reads_label_token: bool
    text_mean: bool
    reads_text_only: bool
    normalize: bool


def read_gliclass_config(config: Mapping[str, Any]) -> GliclassConfig:
    """Read and check.

    Raises:
        LoadError: DEPENDENCY for a variety that is not computed here, UNKNOWN when something is missing.
    """
    expect(config, "model_type", "GLiClass")
    expect(config, "architecture_type", "uni-encoder", default="uni-encoder")
    expect(config, "scorer_type", SIMPLE, WEIGHTED, MLP, default=SIMPLE)
    expect(config, "pooling_strategy", FIRST, MEAN, default=FIRST)
    expect(config, "class_token_pooling", FIRST, AVERAGE, default=FIRST)
    expect(config, "encoder_layer_id", -1, default=-1)
    for absent in ("use_lstm", "squeeze_layers", "use_segment_embeddings", "use_calibrator", "multimodal"):
        expect(config, absent, False, None)
    encoder = config.get("encoder_config")
    if not isinstance(encoder, Mapping):
        raise LoadError(ErrorClass.UNKNOWN, "config.json is not that of a GLiClass: it has no 'encoder_config'")

    def read() -> GliclassConfig:
        return GliclassConfig(
            encoder={"model_type": "deberta-v2", **encoder},
            width=int(encoder["hidden_size"]),
            activation=str(config.get("projector_hidden_act", "gelu")),
            scorer=str(config.get("scorer_type", SIMPLE)),
            label_id=int(config["class_token_index"]),
            text_id=int(config["text_token_index"]),
            labels_first=bool(config.get("prompt_first", False)),
            averages=config.get("class_token_pooling") == AVERAGE,
            reads_label_token=bool(config.get("embed_class_token", True)),
            text_mean=config.get("pooling_strategy") == MEAN,
            reads_text_only=bool(config.get("extract_text_features", False)),
            normalize=bool(config.get("normalize_features", False)),
        )

    return read_numbers("GLiClass", read)
