"""Writes small seeded checkpoints as colpali-engine publishes them, bases and LoRAs, and answers for them: the oracle.

That is transformers' model of the base with a linear layer on top, and its processors with the words of colpali-engine.
"""

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
from torch import nn

from sie_protocol.arrays import Array
from tiny_families import ORACLE, byte_tokenizer, shake

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the oracle's own
    from transformers import (
        AutoConfig,
        AutoModel,
        ColQwen2Processor,
        Idefics3Config,
        Idefics3Processor,
        PreTrainedTokenizerFast,
        Qwen2_5_VLConfig,
    )
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

DIMS = 16
PATCH = 4
TILE, MERGED = 16, 2  # pixels of a tile of ColSmol's, and patches that become one token
LONGEST = 60  # pixels of its images, which are then stretched to 64
LEAST, MOST = 16 * 16, 64 * 64  # pixels of ColQwen2.5's
WIDTH = 32
TEXT = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.2,
}
# How layers are called in memory, and how in published files.
NAMES = {
    "qwen2_5_vl": {"language_model.": "model.", "visual.": "visual."},
    "idefics3": {"": "model."},
}
PROJECTIONS = {"qwen2_5_vl": "custom_text_proj", "idefics3": "linear"}
PAGE = "<|im_start|>User: Describe the image.<image><end_of_utterance>"
QUERIES = {"qwen2_5_vl": "<|endoftext|>" * 10, "idefics3": "<end_of_utterance>" * 10 + "\n"}
# As its authors publish it, but for the numbers.
LORA: dict[str, Any] = {
    "alpha_pattern": {},
    "auto_mapping": None,
    "bias": "none",
    "eva_config": None,
    "exclude_modules": None,
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": "gaussian",
    "layer_replication": None,
    "layers_pattern": None,
    "layers_to_transform": None,
    "loftq_config": {},
    "lora_alpha": 6,
    "lora_bias": False,
    "lora_dropout": 0.1,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "modules_to_save": None,
    "peft_type": "LORA",
    "r": 4,
    "rank_pattern": {},
    "revision": None,
    "target_modules": "(.*(model).*(down_proj|gate_proj|up_proj|[kqvo]_proj).*$|.*(custom_text_proj).*$)",
    "task_type": "FEATURE_EXTRACTION",
    "use_dora": False,
    "use_rslora": False,
}


def write_colqwen25(folder: Path, *, most: int = MOST) -> Path:
    """A base as `ColQwen2_5` of colpali-engine has it: four blocks of its tower, of which the second looks at all."""
    torch.manual_seed(5)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
    tokens = PreTrainedTokenizerFast(
        tokenizer_object=byte_tokenizer("$A", *special, "<|video_pad|>"), pad_token=special[0], eos_token=special[2]
    )
    images = Qwen2VLImageProcessorPil(size={"shortest_edge": LEAST, "longest_edge": most}, patch_size=PATCH)
    vision = {
        "depth": 4,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_heads": 4,
        "patch_size": PATCH,
        "window_size": 3 * 2 * PATCH,
        "fullatt_block_indexes": [1],
        "out_hidden_size": WIDTH,
        "initializer_range": 0.2,
    }
    rope = {"rope_type": "default", "rope_theta": 5_000.0, "mrope_section": [1, 2, 1]}
    ids = {f"{name}_token_id": tokens.convert_tokens_to_ids(f"<|{name}_pad|>") for name in ("image", "video")}
    text = {"vocab_size": len(tokens), "rope_parameters": rope, "rms_norm_eps": 1e-6, **TEXT}
    return _save(folder, Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids), images, tokens)


def write_colsmol(folder: Path) -> Path:
    """A base as `ColIdefics3` of colpali-engine has it."""
    torch.manual_seed(6)
    special = ["<|im_start|>", "<|im_end|>", "<image>", "<fake_token_around_image>", "<end_of_utterance>"]
    places = [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)][:-1]  # the last is no token
    tokens = PreTrainedTokenizerFast(
        tokenizer_object=byte_tokenizer("$A", *special, "<global-img>", *places),
        pad_token="<|im_end|>",  # noqa: S106 - the name of a token
        eos_token="<|im_end|>",  # noqa: S106 - the same
    )
    images = Idefics3ImageProcessorPil(
        size={"longest_edge": LONGEST},
        max_image_size={"longest_edge": TILE},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    vision = {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": TILE,
        "patch_size": PATCH,
        "initializer_range": 0.2,
    }
    text = {"model_type": "llama", "vocab_size": len(tokens), "rms_norm_eps": 1e-5, "pad_token_id": 1, **TEXT}
    config = Idefics3Config(
        vision_config=vision,
        text_config=text,
        scale_factor=MERGED,
        image_token_id=tokens.convert_tokens_to_ids("<image>"),
    )
    return _save(folder, config, images, tokens)


def write_trained(base: Path, folder: Path) -> Path:
    """A LoRA as it is trained on top: of the language model, and for ColQwen2.5 of the projection."""
    generator = torch.Generator().manual_seed(7)
    kind = json.loads((base / "config.json").read_text())["model_type"]
    matrices: dict[str, torch.Tensor] = {}
    for name, weight in load_file(base / "model.safetensors").items():
        layer = name.removesuffix(".weight")
        is_inside = ".layers." in name and name.endswith("_proj.weight") and "vision" not in name
        if is_inside or layer == "custom_text_proj":
            rows, columns = weight.shape
            for half, shape in {"A": (4, columns), "B": (rows, 4)}.items():
                matrices[f"base_model.model.{layer}.lora_{half}.weight"] = 0.2 * torch.randn(shape, generator=generator)
    folder.mkdir()
    save_file(matrices, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(LORA | {"base_model_name_or_path": f"org/{kind}-base"}))
    return folder


def as_of_now(folder: Path) -> Path:
    """Rewrite a folder as transformers 5 writes it: other names of tensors, and the whole configuration nested."""
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    tensors = {_in_memory(kind, name): tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "now")
    (folder / "now").replace(folder / "model.safetensors")  # which is still mapped
    (folder / "config.json").write_text((folder / ORACLE).read_text())
    return folder


class EngineOracle:
    """transformers' model of a base, the linear layer on top, and its processor."""

    def __init__(self, folder: Path) -> None:
        self._kind = json.loads((folder / "config.json").read_text())["model_type"]
        model: Any = AutoModel.from_config(
            AutoConfig.from_pretrained(folder / ORACLE), attn_implementation="eager"
        ).eval()
        tensors = {_in_memory(self._kind, name): each for name, each in load_file(folder / "model.safetensors").items()}
        name = PROJECTIONS[self._kind]
        weight, bias = (tensors.pop(f"{name}.{part}") for part in ("weight", "bias"))
        model.load_state_dict(tensors)
        self._model, self._weight, self._bias = model, weight, bias
        self._tokens = PreTrainedTokenizerFast.from_pretrained(folder)
        said = json.loads((folder / "preprocessor_config.json").read_text())
        if self._kind == "idefics3":
            each = (TILE // PATCH // MERGED) ** 2
            self._processor: Any = Idefics3Processor(Idefics3ImageProcessorPil(**said), self._tokens, each)
        else:
            self._processor = ColQwen2Processor(Qwen2VLImageProcessorPil(**said), self._tokens)

    def texts(self, texts: Sequence[str]) -> list[Array]:
        """The vectors of each text alone, as a query."""
        written = [f"Query: {each}{QUERIES[self._kind]}" for each in texts]
        return [self._vectors(self._tokens(each, return_tensors="pt")) for each in written]

    def images(self, images: Sequence[bytes]) -> list[Array]:
        """The vectors of each image alone."""
        return [self._vectors(self._read(Image.open(io.BytesIO(each)).convert("RGB"))) for each in images]

    def _read(self, image: Image.Image) -> Any:
        if self._kind == "idefics3":
            return self._processor(text=[PAGE], images=[[image]], return_tensors="pt")
        inputs = self._processor.process_images(images=[image])
        inputs["pixel_values"] = inputs["pixel_values"][0]
        is_image = (inputs["input_ids"] == self._processor.image_token_id).int()
        inputs["position_ids"], _ = self._model.get_rope_index(
            inputs["input_ids"], is_image, inputs["image_grid_thw"], attention_mask=inputs["attention_mask"]
        )
        return inputs

    def _vectors(self, inputs: Any) -> Array:
        inputs.pop("token_type_ids", None)
        with torch.inference_mode():
            hidden = self._model(**inputs).last_hidden_state[0]
            vectors = nn.functional.linear(hidden, self._weight, self._bias)
            return np.asarray((vectors / vectors.norm(dim=-1, keepdim=True)).numpy())


def _save(folder: Path, config: Any, images: Any, tokens: Any) -> Path:
    model = AutoModel.from_config(config)
    shake(model)
    kind, head = config.model_type, nn.Linear(WIDTH, DIMS)
    name = PROJECTIONS[kind]
    tensors = {_published(kind, each): tensor for each, tensor in model.state_dict().items()}
    tensors |= {f"{name}.{part}": tensor for part, tensor in head.state_dict().items()}
    images.save_pretrained(folder)
    tokens.save_pretrained(folder)
    tokens.backend_tokenizer.save(str(folder / "tokenizer.json"))
    save_file({each: tensor.contiguous() for each, tensor in tensors.items()}, folder / "model.safetensors")
    whole = config.to_dict()
    (folder / ORACLE).write_text(json.dumps(whole))
    (folder / "config.json").write_text(json.dumps(_config_of_old(whole)))
    return folder


def _config_of_old(whole: dict[str, Any]) -> dict[str, Any]:
    """As transformers 4 wrote it."""
    text = dict(whole["text_config"])
    rope = text.pop("rope_parameters")
    if whole["model_type"] == "idefics3":
        return whole | {"text_config": text | {"rope_theta": rope["rope_theta"], "rope_scaling": None}}
    scaling = {"type": "default", "rope_type": "default", "mrope_section": rope["mrope_section"]}
    beside = {key: value for key, value in whole.items() if key != "text_config"}
    return text | beside | {"rope_theta": rope["rope_theta"], "rope_scaling": scaling}


def _published(kind: str, name: str) -> str:
    now = next(each for each in NAMES[kind] if name.startswith(each))
    return NAMES[kind][now] + name.removeprefix(now)


def _in_memory(kind: str, name: str) -> str:
    for now, old in NAMES[kind].items():
        if name.startswith(old):
            return now + name.removeprefix(old)
    return name
