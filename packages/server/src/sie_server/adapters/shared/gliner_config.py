"""What a `gliner_config.json` says about a model, and what of it is computed here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sie_server.adapters.base import LoadError
from sie_server.adapters.shared.checkpoint import expect, read_numbers
from sie_server.core.lifecycle import ErrorClass

SPANS, TOKENS = "markerV0", "token_level"
_KINDS: Final = (None, "gliner", "gliner_uni_encoder_span", "gliner_uni_encoder_token")


@dataclass(frozen=True, slots=True)
class GlinerConfig:
    """`encoder` is the encoder's own `config.json`; `width` the components of a word after its encoder.

    At most `max_words` words were read together in training; a piece has at most `max_width` words if `mode` is SPANS.
    A label stands behind `label_token` and is told by that token's vector, or by the next one's.
    """

    encoder: Mapping[str, Any]
    mode: str
    width: int
    max_words: int
    max_width: int
    label_token: str
    end_token: str
    reads_label_token: bool


def read_gliner_config(config: Mapping[str, Any]) -> GlinerConfig:
    """Read and check.

    Raises:
        LoadError: DEPENDENCY for a variety that is not computed here, UNKNOWN when something is missing.
    """
    expect(config, "model_type", *_KINDS)
    expect(config, "span_mode", SPANS, TOKENS, default=SPANS)
    expect(config, "subtoken_pooling", "first", default="first")
    expect(config, "words_splitter_type", "whitespace", default="whitespace")
    expect(config, "post_fusion_schema", "", None)
    for absent in ("fuse_layers", "represent_spans", "precomputed_prompts_mode"):
        expect(config, absent, False, None)
    for absent in ("labels_encoder", "labels_decoder", "span_encoder_config"):
        expect(config, absent, None)
    encoder = config.get("encoder_config")
    if not isinstance(encoder, Mapping):
        raise LoadError(
            ErrorClass.DEPENDENCY,
            "gliner_config.json has no encoder_config, as files of old versions: save the model once with the package "
            "gliner, save_pretrained(folder, safe_serialization=True), and set weights_path in the catalogue",
        )

    def read() -> GlinerConfig:
        return GlinerConfig(
            encoder=encoder,
            mode=str(config.get("span_mode", SPANS)),
            width=int(config["hidden_size"]),
            max_words=int(config["max_len"]),
            max_width=int(config["max_width"]),
            label_token=str(config.get("ent_token", "<<ENT>>")),
            end_token=str(config.get("sep_token", "<<SEP>>")),
            reads_label_token=bool(config.get("embed_ent_token", True)),
        )

    return read_numbers("GLiNER", read)
