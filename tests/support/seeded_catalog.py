"""A catalogue in which two large models of the documentation are small: same architecture and dimensions, seeded."""

import json
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file

import sie_server
from tiny_families import Family, write_family

CATALOG = Path(sie_server.__file__).parent / "catalog"
BGE_M3, E5_MISTRAL = "BAAI/bge-m3", "intfloat/e5-mistral-7b-instruct"
BGE_DIMS, MISTRAL_DIMS = 1024, 4096


def write_catalog(folder: Path) -> dict[str, str]:
    """Write checkpoints and catalogue; returns the environment of the processes that shall serve it."""
    models, bundles = folder / "models", folder / "bundles"
    models.mkdir()
    bundles.mkdir()
    (bundles / "default.yaml").write_bytes((CATALOG / "bundles/default.yaml").read_bytes())
    for name, weights in ((BGE_M3, _bge_m3(folder)), (E5_MISTRAL, _e5_mistral(folder))):
        file = f"{name.replace('/', '__')}.yaml"
        model = yaml.safe_load((CATALOG / "models" / file).read_text())
        del model["hf_id"]
        if "sparse" in model["tasks"]["encode"]:  # one component a token, and these vocabularies are tiny
            model["tasks"]["encode"]["sparse"]["dim"] = json.loads((weights / "config.json").read_text())["vocab_size"]
        (models / file).write_text(yaml.safe_dump({**model, "weights_path": str(weights)}))
    return {"SIE_MODELS_DIR": str(models), "SIE_BUNDLES_DIR": str(bundles)}


def _bge_m3(folder: Path) -> Path:
    shape = {"hidden_size": BGE_DIMS, "num_attention_heads": 16, "num_hidden_layers": 1}
    weights = write_family(folder / "bge-m3", Family("xlm-roberta", shape, pooling="cls"))
    generator = torch.Generator().manual_seed(1)
    for name, rows in (("sparse_linear", 1), ("colbert_linear", BGE_DIMS)):
        head = {"weight": torch.randn(rows, BGE_DIMS, generator=generator) / 32, "bias": torch.zeros(rows)}
        save_file(head, weights / f"{name}.safetensors")
    return weights


def _e5_mistral(folder: Path) -> Path:
    # Few and narrow heads: the width is that of the published model, its 7 billion parameters are not.
    shape = {"hidden_size": MISTRAL_DIMS, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 16}
    return write_family(folder / "e5-mistral", Family("mistral", {**shape, "num_hidden_layers": 1}, pooling="last"))
