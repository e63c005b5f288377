"""A LoRA from the SDK through the router to a worker, from a cluster at zero; nobody gets the bare model by mistake."""

import json
from pathlib import Path

import numpy as np

from local_cluster import eventually, local_cluster
from sie_sdk import SIEAsyncClient, SIEClient
from sie_sdk.types import Item
from tiny_bert import WIDTH, Shape, write_checkpoint
from tiny_loras import lora_oracle, write_lora

CLUSTER = """
router: {retryAfterSeconds: 1}
workers: {pools: {l4: {minReplicas: 0, maxReplicas: 1}}}
autoscaling: {enabled: true, pollingInterval: 1, cooldownPeriod: 600, scaleDownStabilization: 600}
"""
TEXTS = ["the cat sat on a mat", "two dogs running far away"]
ITEMS = [Item(text=text) for text in TEXTS]


def write_catalog(folder: Path) -> dict[str, str]:
    """A model with two LoRAs; the environment of the processes that shall serve it."""
    base = write_checkpoint(folder / "base", Shape())
    loras = {name: write_lora(base, folder / name, ["query", "value"], seed) for seed, name in enumerate(("a", "b"))}
    on_top = {name: {"extends": "default", "lora": {"weights_path": str(lora)}} for name, lora in loras.items()}
    model = {
        "sie_id": "org/m",
        "weights_path": str(base),
        "tasks": {"encode": {"dense": {"dim": WIDTH}}},
        "profiles": {"default": {"adapter": "dense"}, **on_top},
    }
    for path, content in {"models/m": model, "bundles/default": {"name": "default", "adapters": ["dense"]}}.items():
        file = folder / f"{path}.yaml"
        file.parent.mkdir()
        file.write_text(json.dumps(content))
    return {"SIE_MODELS_DIR": str(folder / "models"), "SIE_BUNDLES_DIR": str(folder / "bundles")}


async def test_a_cluster_at_zero_runs_requests_with_the_lora_they_name(tmp_path: Path) -> None:
    env = write_catalog(tmp_path)
    bare, under_a, under_b = (
        lora_oracle(tmp_path / "base", lora, TEXTS, "mean", 64) for lora in (None, tmp_path / "a", tmp_path / "b")
    )
    with local_cluster(tmp_path, CLUSTER, env) as cluster:
        async with SIEAsyncClient(cluster.url, gpu="l4") as client:
            for name, options, expected in (
                ("org/m:a", None, under_a),
                ("org/m", {"lora": "b"}, under_b),
                ("org/m", None, bare),
            ):
                found = [each["dense"] for each in await client.encode(name, ITEMS, options=options)]
                np.testing.assert_allclose(found, expected, atol=1e-5)
        with SIEClient(cluster.url, gpu="l4") as blocking:
            np.testing.assert_allclose(blocking.encode("org/m:b", ITEMS[0])["dense"], under_b[0], atol=1e-5)
        loaded = {"org/m", "org/m:a", "org/m:b"}
        eventually(lambda: set(cluster.workers("l4")[0]["loaded_models"]) == loaded)
    assert np.abs(under_a - bare).max() > 0.05
