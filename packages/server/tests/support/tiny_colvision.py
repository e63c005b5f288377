"""Writes small seeded ColPali and ColQwen2 checkpoints, and answers for them with transformers: the oracle."""

import io
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from sie_protocol.arrays import Array
from tiny_families import byte_tokenizer, shake

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the oracle's own
    from transformers import (
        ColPaliConfig,
        ColPaliForRetrieval,
        ColPaliProcessor,
        ColQwen2Config,
        ColQwen2ForRetrieval,
        ColQwen2Processor,
        PaliGemmaConfig,
        PreTrainedTokenizerFast,
        Qwen2VLConfig,
    )
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

DIMS = 16
SIDE, PATCH = 32, 8  # of ColPali's images
LEAST, MOST = 16 * 16, 64 * 64  # pixels of ColQwen2's
QWEN_PATCH = 4
TEXT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "initializer_range": 0.2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 1, "max_position_embeddings": 1024}
# How tensors are called in files of today, and how in those of another release.
OTHER_NAMES = {
    "colpali": {
        "vlm.language_model.model.": "vlm.model.language_model.",
        "vlm.vision_tower.": "vlm.model.vision_tower.vision_model.",
        "vlm.multi_modal_projector.": "vlm.model.multi_modal_projector.",
    },
    "colqwen2": {"vlm.language_model.": "vlm.model.", "vlm.visual.": "vlm.visual."},
}


def write_colpali(folder: Path) -> Path:
    """A folder as `ColPaliForRetrieval` and its processor have it."""
    torch.manual_seed(3)
    named = {f"{name}_token": f"<{name}>" for name in ("pad", "eos", "bos", "unk")}
    tokens = PreTrainedTokenizerFast(tokenizer_object=byte_tokenizer("$A", *named.values()), **named)
    size = {"height": SIDE, "width": SIDE}
    images = SiglipImageProcessorPil(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    images.image_seq_length = (SIDE // PATCH) ** 2
    processor = ColPaliProcessor(images, tokens)
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": PATCH,
        "vision_use_head": False,
    }
    text = {"model_type": "gemma", "vocab_size": len(tokens), "head_dim": 16, "pad_token_id": 0, **TEXT, **HEADS}
    vlm = PaliGemmaConfig(
        vision_config=vision,
        text_config=text,
        projection_dim=TEXT["hidden_size"],
        hidden_size=TEXT["hidden_size"],
        image_token_index=processor.image_token_id,
    )
    return _save(folder, ColPaliForRetrieval(ColPaliConfig(vlm_config=vlm, embedding_dim=DIMS)), processor)


def write_colqwen2(folder: Path, *, most: int = MOST) -> Path:
    """A folder as `ColQwen2ForRetrieval` and its processor have it."""
    torch.manual_seed(4)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
    tokens = PreTrainedTokenizerFast(
        tokenizer_object=byte_tokenizer("$A", *special, "<|video_pad|>"),
        pad_token=special[0],
        eos_token=special[2],
    )
    images = Qwen2VLImageProcessorPil(size={"shortest_edge": LEAST, "longest_edge": most}, patch_size=QWEN_PATCH)
    processor = ColQwen2Processor(images, tokens)
    rope = {"rope_type": "default", "rope_theta": 5_000.0, "mrope_section": [1, 2, 1]}
    vision = {
        "depth": 2,
        "embed_dim": 32,
        "num_heads": 4,
        "mlp_ratio": 2,
        "patch_size": QWEN_PATCH,
        "hidden_size": TEXT["hidden_size"],
        "initializer_range": 0.2,
    }
    ids = {f"{name}_token_id": tokens.convert_tokens_to_ids(f"<|{name}_pad|>") for name in ("image", "video")}
    ends = {f"vision_{end}_token_id": tokens.convert_tokens_to_ids(f"<|vision_{end}|>") for end in ("start", "end")}
    text = {"vocab_size": len(tokens), "rope_parameters": rope, **TEXT, **HEADS, "num_key_value_heads": 2}
    vlm = Qwen2VLConfig(text_config=text, vision_config=vision, **ids, **ends)
    return _save(folder, ColQwen2ForRetrieval(ColQwen2Config(vlm_config=vlm, embedding_dim=DIMS)), processor)


def as_of_old(folder: Path) -> Path:
    """Rewrite a folder as transformers 4 wrote it: other names of tensors, other keys, other files."""
    config = json.loads((folder / "config.json").read_text())
    names, whole = OTHER_NAMES[config["model_type"]], config["vlm_config"]
    tensors = load_file(folder / "model.safetensors")

    def old(name: str) -> str:
        now = next((each for each in names if name.startswith(each)), "")
        return names.get(now, "") + name.removeprefix(now)

    save_file({old(name): tensor for name, tensor in tensors.items()}, folder / "old")
    (folder / "old").replace(folder / "model.safetensors")  # which is still mapped
    rope = whole["text_config"].pop("rope_parameters")
    whole["text_config"]["rope_theta"] = rope["rope_theta"]
    if "mrope_section" in rope:
        whole["text_config"]["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
        whole.update(whole.pop("text_config") | {"model_type": "qwen2_vl"})
    (folder / "config.json").write_text(json.dumps(config))
    processor = json.loads((folder / "processor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(processor.pop("image_processor")))
    (folder / "processor_config.json").write_text(json.dumps(processor))
    return folder


class Oracle:
    """transformers' model and processor of a folder."""

    def __init__(self, folder: Path) -> None:
        is_pali = json.loads((folder / "config.json").read_text())["model_type"] == "colpali"
        model: Any = ColPaliForRetrieval if is_pali else ColQwen2ForRetrieval
        self._model = model.from_pretrained(folder, attn_implementation="eager").eval()
        tokens = PreTrainedTokenizerFast.from_pretrained(folder)
        said = json.loads((folder / "processor_config.json").read_text())["image_processor"]
        if is_pali:
            self._processor: Any = ColPaliProcessor(SiglipImageProcessorPil(**said), tokens)
        else:
            self._processor = ColQwen2Processor(Qwen2VLImageProcessorPil(**said), tokens)

    def texts(self, texts: Sequence[str]) -> list[Array]:
        """The vectors of each text alone, as a query."""
        return [self._vectors(self._processor.process_queries(text=[each])) for each in texts]

    def images(self, images: Sequence[bytes]) -> list[Array]:
        """The vectors of each image alone."""
        opened = [Image.open(io.BytesIO(each)).convert("RGB") for each in images]
        return [self._vectors(self._processor.process_images(images=[each])) for each in opened]

    def score(self, queries: Sequence[Array], pages: Sequence[Array]) -> Array:
        """[queries, pages]."""
        parts = [[torch.from_numpy(each) for each in some] for some in (queries, pages)]
        return np.asarray(self._processor.score_retrieval(*parts).numpy())

    def _vectors(self, inputs: Any) -> Array:
        if "image_grid_thw" in inputs:
            # The release the model was published with counted positions along three axes, and so did its training;
            # later ones lose these on the way to the language model, which then counts one by one.
            image = inputs["input_ids"] == self._processor.image_token_id
            positions, _ = self._model.vlm.get_rope_index(
                inputs["input_ids"], image.int(), inputs["image_grid_thw"], attention_mask=inputs["attention_mask"]
            )
            inputs["position_ids"] = positions
        inputs.pop("labels", None)
        with torch.inference_mode():
            return np.asarray(self._model(**inputs).embeddings[0].numpy())


def _save(folder: Path, model: Any, processor: Any) -> Path:
    shake(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    tokenizer: Tokenizer = processor.tokenizer.backend_tokenizer
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
