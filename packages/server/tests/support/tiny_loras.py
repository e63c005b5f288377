"""Writes small seeded LoRAs for small checkpoints with PEFT, and answers for them with it: the oracle."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from sie_protocol.arrays import Array
from warnings_of_others import ignoring

with ignoring():
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoConfig, AutoModel


def write_lora(base: Path, folder: Path, targets: list[str] | str = "all-linear", seed: int = 0, **config: Any) -> Path:
    """Random matrices, both of them, for linear layers of a checkpoint."""
    torch.manual_seed(seed)
    model = AutoModel.from_pretrained(base, config=_config(base))
    random = LoraConfig(**{"r": 4, "lora_alpha": 6, "target_modules": targets, "init_lora_weights": False, **config})
    with ignoring():  # PEFT asks transformers for what that calls deprecated
        made = get_peft_model(model, random)
    for name, parameter in made.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0.0, 0.0 if "pooler" in name else 0.3)  # which no training of vectors reaches
    with ignoring():
        made.save_pretrained(folder)
    return folder


def lora_oracle(base: Path, lora: Path | None, texts: Sequence[str], pooling: str, max_length: int = 512) -> Array:
    """What PEFT gives for each text alone, at unit length; without a LoRA what transformers gives."""
    model = AutoModel.from_pretrained(base, config=_config(base), attn_implementation="eager")
    if lora is not None:
        with ignoring():
            model = PeftModel.from_pretrained(model, lora)
    model = model.eval()
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokenizer.enable_truncation(max_length)
    rows = []
    for text in texts:
        with torch.inference_mode():
            hidden = model(input_ids=torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0]
        vector = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}[pooling]
        rows.append((vector / vector.norm()).numpy())
    return np.stack(rows)


def merged(base: Path, lora: Path, folder: Path) -> Path:
    """A checkpoint whose own weights have the LoRA in them, by the formula; its heads stay as they are."""
    shutil.copytree(base, folder)
    tensors, matrices = load_file(folder / "model.safetensors"), load_file(lora / "adapter_model.safetensors")
    config = json.loads((lora / "adapter_config.json").read_text())
    for name, down in matrices.items():
        if name.endswith(".lora_A.weight"):
            layer = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            up = matrices[name.replace(".lora_A.", ".lora_B.")]
            (own,) = (each for each in tensors if each.endswith(f"{layer}.weight"))
            tensors[own] += config["lora_alpha"] / config["r"] * up @ down
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _config(base: Path) -> Any:
    """What transformers reads, where a checkpoint is written as others publish it."""
    own = base / "oracle.json"
    return AutoConfig.from_pretrained(own if own.is_file() else base)
