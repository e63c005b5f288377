"""What a `gliner_config.json` says about a model, and what of it is computed here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sie_server.adapters.base import LoadError
from sie_server.adapters.shared.checkpoint import expect, read_numbers
from sie_server.core.lifecycle import ErrorClass

SPANS, TOKENS = "markerV0", "token_level"
_UNI_KINDS: Final = (None, "gliner", "gliner_uni_encoder_span", "gliner_uni_encoder_token")
_RELATION_KINDS: Final = (None, "gliner", "gliner_uni_encoder_span_relex")
ALL_PAIRS: Final = "none"
_BI_KINDS: Final = (None, "gliner", "gliner_bi_encoder_span", "gliner_bi_encoder_token")


@dataclass(frozen=True, slots=True)
class GlinerConfig:
    """`encoder` is the encoder's own `config.json`; `width` the components of a word after its encoder.

    At most `max_words` words were read together in training; a piece has at most `max_width` words if `mode` is SPANS.
    A label stands behind `label_token` and is told by that token's vector, or by the next one's. With
    `labels_encoder`, the `config.json` of a second encoder, labels do not stand before the text: that one reads them.
    With `relation_token`, the marker of relations, these stand behind the labels, and the model finds them as well.
    """

    encoder: Mapping[str, Any]
    labels_encoder: Mapping[str, Any] | None
    mode: str
    width: int
    max_words: int
    max_width: int
    label_token: str
    end_token: str
    reads_label_token: bool
    relation_token: str | None = None
    reads_relation_token: bool = True


def read_gliner_config(config: Mapping[str, Any]) -> GlinerConfig:
    """Read and check.

    Raises:
        LoadError: DEPENDENCY for a variety that is not computed here, UNKNOWN when something is missing.
    """
    is_bi = config.get("labels_encoder") is not None or config.get("model_type") in _BI_KINDS[2:]
    relates = not is_bi and (
        config.get("relations_layer") is not None or config.get("model_type") in _RELATION_KINDS[2:]
    )
    expect(config, "model_type", *(_BI_KINDS if is_bi else _RELATION_KINDS if relates else _UNI_KINDS))
    expect(config, "span_mode", *((SPANS,) if relates else (SPANS, TOKENS)), default=SPANS)
    expect(config, "subtoken_pooling", "first", default="first")
    expect(config, "words_splitter_type", "whitespace", default="whitespace")
    expect(config, "post_fusion_schema", "", None)
    for absent in ("fuse_layers", "represent_spans", "precomputed_prompts_mode"):
        expect(config, absent, False, None)
    for absent in ("labels_decoder", "span_encoder_config", "triples_layer"):
        expect(config, absent, None)
    expect(config, "relations_layer", ALL_PAIRS if relates else None)
    encoder = _encoder_of(config, "encoder_config")
    labels_encoder = _encoder_of(config, "labels_encoder_config") if is_bi else None

    def read() -> GlinerConfig:
        return GlinerConfig(
            encoder=encoder,
            labels_encoder=labels_encoder,
            mode=str(config.get("span_mode", SPANS)),
            width=int(config["hidden_size"]),
            max_words=int(config["max_len"]),
            max_width=int(config["max_width"]),
            label_token=str(config.get("ent_token", "<<ENT>>")),
            end_token=str(config.get("sep_token", "<<SEP>>")),
            reads_label_token=bool(config.get("embed_ent_token", True)),
            relation_token=str(config.get("rel_token", "<<REL>>")) if relates else None,
            reads_relation_token=bool(config.get("embed_rel_token", True)),
        )

    return read_numbers("GLiNER", read)


def saved_by_an_old_version(what: str) -> LoadError:
    """The refusal of a folder that lacks what newer versions of the package `gliner` save."""
    return LoadError(
        ErrorClass.DEPENDENCY,
        f"{what}, as files of old versions: save the model once with the package gliner, "
        "save_pretrained(folder, safe_serialization=True), and set weights_path in the catalogue",
    )


def _encoder_of(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    encoder = config.get(key)
    if not isinstance(encoder, Mapping):
        raise saved_by_an_old_version(f"gliner_config.json has no {key}")
    return encoder
