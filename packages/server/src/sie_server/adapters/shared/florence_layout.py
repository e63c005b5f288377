"""Florence-2 as Microsoft publishes it, in the names that transformers gives to its configuration and tensors.

The published folder is meant for code that comes with it, which never runs here. Which name is which is told by the
script that transformers' own copies of these models were made with.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import AddedToken, Tokenizer

from sie_server.adapters.base import LoadError
from sie_server.adapters.shared.checkpoint import expect, read_numbers
from sie_server.adapters.shared.florence_output import BINS
from sie_server.adapters.shared.weights import read_json
from sie_server.core.lifecycle import ErrorClass

# The published code adds these to BART's tokenizer, in this order, when it starts.
MARKS: Final = (
    *("<od>", "</od>", "<ocr>", "</ocr>"),
    *(f"<loc_{at}>" for at in range(BINS)),
    *("<cap>", "</cap>", "<ncap>", "</ncap>", "<dcap>", "</dcap>", "<grounding>", "</grounding>", "<seg>", "</seg>"),
    *("<sep>", "<region_cap>", "</region_cap>", "<region_to_desciption>", "</region_to_desciption>"),
    *("<proposal>", "</proposal>", "<poly>", "</poly>", "<and>"),
)
VISION: Final = (
    *("depths", "patch_size", "patch_stride", "patch_padding", "patch_prenorm", "num_heads", "num_groups"),
    *("window_size", "projection_dim", "mlp_ratio", "qkv_bias"),
)
TEXT: Final = (
    *("vocab_size", "d_model", "encoder_layers", "decoder_layers", "encoder_attention_heads"),
    *("decoder_attention_heads", "encoder_ffn_dim", "decoder_ffn_dim", "activation_function"),
    *("max_position_embeddings", "scale_embedding"),
    *("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"),
)
WORDS: Final = "model.language_model.shared.weight"
_PROJECTION: Final = "model.multi_modal_projector.image_projection.weight"
_BIAS: Final = "language_model.final_logits_bias"
_PARTS: Final = (
    (re.compile(r"^(image_proj_norm|image_projection$)"), r"model.multi_modal_projector.\1"),
    (re.compile(r"^image_pos_embed\."), "model.multi_modal_projector.image_position_embed."),
    (re.compile(r"^visual_temporal_embed\."), "model.multi_modal_projector.visual_temporal_embed."),
    (re.compile(r"^language_model\.lm_head\."), "lm_head."),
    (re.compile(r"^language_model\.model\."), "model.language_model."),
    (re.compile(r"image_projection$"), "image_projection.weight"),
    (re.compile(r"^vision_tower\."), "model.vision_tower."),
    (re.compile(r"(vision_tower\.convs\.\d+)\.proj\."), r"\1.conv."),
    (re.compile(r"\.(conv[12])\.fn\.dw\."), r".\1."),
    (re.compile(r"\.(?:window|channel)_attn\.norm\."), ".norm1."),
    (re.compile(r"\.(window|channel)_attn\.fn\."), r".\1_attn."),
    (re.compile(r"\.ffn\.norm\."), ".norm2."),
    (re.compile(r"\.ffn\.fn\.net\."), ".ffn."),
)


def is_published(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is in Microsoft's layout, not in that of transformers."""
    vision = config.get("vision_config")
    return isinstance(vision, dict) and "dim_embed" in vision


def published_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same as transformers would write it.

    Raises:
        LoadError: DEPENDENCY for a variety that is not computed here, UNKNOWN when something is missing.
    """

    def read() -> dict[str, Any]:
        vision, text = config["vision_config"], config["text_config"]
        temporal, places = vision["visual_temporal_embedding"], vision["image_pos_embed"]
        expect(temporal, "type", "COSINE")
        expect(places, "type", "learned_abs_2d")
        sources = vision.get("image_feature_source")
        expect({"image_feature_source": sources}, "image_feature_source", ["spatial_avg_pool", "temporal_avg_pool"])
        for flag in ("normalize_before", "add_final_layer_norm", "add_bias_logits"):
            expect(text, flag, False, default=False)
        own = {
            "embed_dim": vision["dim_embed"],
            "max_temporal_embeddings": temporal["max_temporal_embeddings"],
            "max_position_embeddings": places["max_pos_embeddings"],
        }
        return {
            "model_type": "florence2",
            "vision_config": {**{key: vision[key] for key in VISION if key in vision}, **own},
            "text_config": {"model_type": "bart", **{key: text[key] for key in TEXT if key in text}},
            "image_token_id": int(text["vocab_size"]),  # none: images stand in front of the words, not among them
        }

    return read_numbers("Florence-2", read)


def published_tensors(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors as transformers calls them, with words in the one place that everything else shares.

    Raises:
        LoadError: DEPENDENCY for a bias of words, which published models have as zeros only.
    """
    bias = tensors.get(_BIAS)
    if bias is not None and bool(bias.any()):
        raise LoadError(ErrorClass.DEPENDENCY, f"the checkpoint's tensor '{_BIAS}' is not zero, which is not computed")
    named = {_name(name): tensor for name, tensor in tensors.items() if name != _BIAS}
    if _PROJECTION in named:
        named[_PROJECTION] = named[_PROJECTION].T.contiguous()
    language = "model.language_model"
    shared = (WORDS, f"{language}.encoder.embed_tokens.weight", f"{language}.decoder.embed_tokens.weight")
    words = next((named[each] for each in (*shared, "lm_head.weight") if each in named), None)
    if words is not None:  # files keep one of tensors that are the same, under any of its names
        named.update(dict.fromkeys((*shared, "lm_head.weight"), words))
    return named


def _name(name: str) -> str:
    for old, new in _PARTS:
        name = old.sub(new, name)
    return name


def with_places(tokenizer: Tokenizer, vocabulary: int) -> Tokenizer:
    """A tokenizer that has the words for places and other marks, as the published code adds them to BART's.

    Raises:
        LoadError: UNKNOWN when it then has words that the model has not, or places that are not in order.
    """
    tokenizer.add_special_tokens([AddedToken(mark, normalized=False) for mark in MARKS])
    size = tokenizer.get_vocab_size()
    first, last = tokenizer.token_to_id("<loc_0>"), tokenizer.token_to_id(f"<loc_{BINS - 1}>")
    if size > vocabulary or first is None or last is None or last - first != BINS - 1:
        message = f"the tokenizer has {size} tokens, places from {first} to {last}; the model has {vocabulary}"
        raise LoadError(ErrorClass.UNKNOWN, message)
    return tokenizer


def writing_settings(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """How the model writes: `generation_config.json`, or in older folders what `config.json` says of its words.

    Raises:
        LoadError: UNKNOWN when a file is no JSON object.
    """
    path = folder / "generation_config.json"
    text = config.get("text_config")
    return read_json(path) if path.is_file() else dict(text) if isinstance(text, dict) else {}
