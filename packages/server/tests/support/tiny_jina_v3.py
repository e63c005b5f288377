"""Writes small seeded checkpoints as jina-embeddings-v3 is published, with a LoRA of each task; PEFT is the oracle."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from sie_protocol.arrays import Array
from tiny_families import ORACLE, Family, write_family
from tiny_loras import lora_oracle, write_lora

TASKS = ("retrieval.query", "retrieval.passage", "separation", "classification", "text-matching")
RANK, ALPHA, THETA = 3, 2, 500.0
ROPE = {"rope_type": "default", "rope_theta": THETA}
NATIVE = Family("jina_embeddings_v3", {"num_hidden_layers": 2, "rope_parameters": ROPE}, seed=31)
CODE = "jinaai/xlm-roberta-flash-implementation"
# Every linear layer and every table: the published LoRAs change them all.
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2", "dense", "word_embeddings", "token_type_embeddings"]
LAYERS = (
    ("layers.", "encoder.layers."),
    ("self_attn.o_proj", "mixer.out_proj"),
    ("self_attn.q_proj", "mixer.Wqkv"),
)


def write_native(folder: Path) -> Path:
    """The model as transformers keeps it, without tasks."""
    return write_family(folder, NATIVE)


def write_tasks(native: Path, folder: Path) -> list[Path]:
    """A LoRA for each task in PEFT's layout; queries, keys and values of one layer share their A."""
    files = []
    for at, task in enumerate(TASKS):
        file = write_lora(native, folder / task, TARGETS, seed=40 + at, r=RANK, lora_alpha=ALPHA)
        tensors = load_file(file / "adapter_model.safetensors")
        for name in tensors:
            if "q_proj.lora_A" in name:
                for part in ("k_proj", "v_proj"):
                    tensors[name.replace("q_proj", part)] = tensors[name].clone()
        save_file(tensors, file / "adapter_model.safetensors")
        files.append(file)
    return files


def write_published(native: Path, tasks: Sequence[Path], folder: Path) -> Path:
    """The same model and LoRAs in one checkpoint, under the publisher's names."""
    write_native(folder)  # the tokenizer, and modules.json
    own = load_file(native / "model.safetensors")
    changes = [_stackable(load_file(file / "adapter_model.safetensors")) for file in tasks]
    for layer in changes[0]:
        own[f"{layer}.parametrizations.weight.original"] = own.pop(f"{layer}.weight")
        for half in "AB":
            stacked = torch.stack([each[layer][half] for each in changes])
            is_used = "pooler" not in layer  # as published it has matrices too, which no vector is made with
            own[f"{layer}.parametrizations.weight.0.lora_{half}"] = stacked if is_used else torch.randn_like(stacked)
    save_file({f"roberta.{name}": each.contiguous() for name, each in own.items()}, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    for key in ("model_type", "rope_parameters", "architectures"):
        del config[key]
    config |= {
        "auto_map": {"AutoConfig": f"{CODE}--configuration_xlm_roberta.XLMRobertaFlashConfig"},
        "position_embedding_type": "rotary",
        "rotary_emb_base": THETA,
        "lora_adaptations": list(TASKS),
        "lora_rank": RANK,
        "lora_alpha": ALPHA,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / ORACLE).unlink()
    return folder


def oracle(native: Path, task: Path | None, texts: Sequence[str]) -> Array:
    """What PEFT gives on top of the model of transformers."""
    return lora_oracle(native, task, texts, NATIVE.pooling)


def _stackable(tensors: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """Matrices A and B by the publisher's layer, in its order of axes."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        layer, half = re.fullmatch(r"base_model\.model\.(.+)\.lora_(embedding_[AB]|[AB]\.weight)", name).groups()  # type: ignore[union-attr]
        if re.search(r"\.[kv]_proj", layer):
            continue  # with q_proj
        if "q_proj" in layer and half.startswith("B"):
            parts = [tensors[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            tensor = torch.cat(parts)  # noqa: PLW2901 - one matrix of three
        for old, new in LAYERS:
            layer = re.sub(rf"(?<![\w.]){re.escape(old)}|(?<=\.){re.escape(old)}", new, layer)
        is_table = half.startswith("embedding_")
        found.setdefault(layer, {})[half.removeprefix("embedding_")[0]] = tensor.t() if is_table else tensor
    return found
