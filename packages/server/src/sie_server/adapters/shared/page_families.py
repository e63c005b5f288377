"""The families of models that read page images: the words, the vision encoder and the language model of each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import torch

from sie_server.adapters.shared.checkpoint import Checkpoint, read_numbers
from sie_server.adapters.shared.page_prompts import PromptTemplates
from sie_server.adapters.shared.qwen_vision import QWEN2, QWEN2_5, QwenVisionEncoder, Release
from sie_server.adapters.shared.vision_encoders import SiglipEncoder, TiledSiglipEncoder, VisionEncoder

# (the configuration, the tensors, the folder, the device, the dtype, how many tokens an image may have)
Open = Callable[[Mapping[str, Any], Checkpoint, Path, str, torch.dtype, int], VisionEncoder]


@dataclass(frozen=True, slots=True)
class Family:
    """A family: the model inside, its prompts and vision encoder, and what its language model's config leaves out.

    `projection` is the name of the linear layer that makes the vectors. `has_axes`: positions count time, rows and
    columns.
    """

    inside: str
    templates: PromptTemplates
    open: Open
    text: Mapping[str, Any]
    projection: str
    has_axes: bool = False


def _siglip(
    config: Mapping[str, Any],
    checkpoint: Checkpoint,
    folder: Path,
    device: str,
    dtype: torch.dtype,
    most: int,  # noqa: ARG001 - all images are alike
) -> VisionEncoder:
    return SiglipEncoder(config.get("vision_config") or {}, checkpoint, folder, device, dtype)


def _tiled(
    config: Mapping[str, Any],
    checkpoint: Checkpoint,
    folder: Path,
    device: str,
    dtype: torch.dtype,
    most: int,  # noqa: ARG001 - tiles have one size, and how many there are follows from the image's shape
) -> VisionEncoder:
    merged = read_numbers("vision model", lambda: int(config.get("scale_factor", 2)))
    return TiledSiglipEncoder(config.get("vision_config") or {}, merged, checkpoint, folder, device, dtype)


def _qwen(
    release: Release,
    config: Mapping[str, Any],
    checkpoint: Checkpoint,
    folder: Path,
    device: str,
    dtype: torch.dtype,
    most: int,
) -> VisionEncoder:
    return QwenVisionEncoder(release, config.get("vision_config") or {}, checkpoint, folder, device, dtype, most)


_QWEN_TEMPLATES: Final = PromptTemplates(
    image="<|image_pad|>",
    page="{prompt}",
    query="{prompt}",
    end="{filling}\n",
    page_prompt=(
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image.<|im_end|><|endoftext|>"
    ),
    query_prompt="Query: ",
    pad="<|endoftext|>",
)

# By the `model_type` of config.json.
FAMILIES: Final[Mapping[str, Family]] = MappingProxyType(
    {
        "colpali": Family(
            "paligemma",
            PromptTemplates(
                image="<image>",
                page="<image>{bos}{prompt}\n",
                query="{bos}{prompt}",
                end="{filling}\n",
                page_prompt="Describe the image.",
                query_prompt="Question: ",
                bos="<bos>",
                pad="<pad>",
            ),
            _siglip,
            # PaliGemma reads its prompt both ways, and a prompt is all there is.
            {"model_type": "gemma", "head_dim": 256, "max_position_embeddings": 8192, "is_causal": False},
            "embedding_proj_layer",
        ),
        "colqwen2": Family(
            "qwen2_vl",
            _QWEN_TEMPLATES,
            partial(_qwen, QWEN2),
            {"model_type": "qwen2_vl_text", "max_position_embeddings": 32768, "rms_norm_eps": 1e-5},
            "embedding_proj_layer",
            has_axes=True,
        ),
        # As colpali-engine trained and publishes it: here no line ends a query.
        "qwen2_5_vl": Family(
            "qwen2_5_vl",
            replace(_QWEN_TEMPLATES, end="{filling}", filler="<|endoftext|>"),
            partial(_qwen, QWEN2_5),
            {"model_type": "qwen2_5_vl_text", "max_position_embeddings": 32768, "rms_norm_eps": 1e-5},
            "custom_text_proj",
            has_axes=True,
        ),
        # The same; from release 0.3.11 on colpali-engine says it otherwise, but the models were trained before.
        "idefics3": Family(
            "idefics3",
            PromptTemplates(
                image="<image>",
                page="{prompt}",
                query="{prompt}",
                end="{filling}\n",
                page_prompt="<|im_start|>User: Describe the image.<image><end_of_utterance>",
                query_prompt="Query: ",
                filler="<end_of_utterance>",
                around="<fake_token_around_image>",
            ),
            _tiled,
            {"model_type": "llama", "max_position_embeddings": 2048},
            "linear",
        ),
    }
)
