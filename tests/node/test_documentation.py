"""The commands of docs/deployment that need pods, run as they are printed."""

import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from deployed import Release
from lab import bucket
from lab.whole import Lab
from pages import Block, Desk, Place, pages, shell
from seeded_catalog import BGE_M3, CATALOG, write_catalog

LABEL: Final = "cloud.google.com/gke-accelerator"
# The pool and the model of the pages, on machines and with weights that are here.
AS_PRINTED: Final[dict[str, Any]] = {
    "catalog": {"modelsConfigMap": "models", "bundlesConfigMap": "bundles"},
    "workers": {
        "pools": {
            "cpu": {"enabled": False},
            "l4": {
                "enabled": True,
                "spot": False,
                "maxReplicas": 1,
                "gpu": {"count": 0},
                "resources": {
                    "requests": {"cpu": "50m", "memory": "300Mi"},
                    "limits": {"cpu": "1", "memory": "1500Mi"},
                },
            },
        }
    },
}
# tests/node/test_uninstall.py, test_disruption.py, and below: a program that needs the tunnel of the block before it.
ELSEWHERE: Final = ("helm uninstall", "kubectl drain", "SIEClient")
pytestmark = pytest.mark.timeout(600)


def blocks() -> list[Block]:
    found = [block for page in pages() for block in shell(page, Place.PODS)]
    return [block for block in found if not any(each in block.text for each in ELSEWHERE)]


@pytest.fixture(scope="module")
def desk(lab: Lab, release: Release, tmp_path_factory: pytest.TempPathFactory) -> Generator[Desk]:
    """Of a reader whose cluster has the pool l4 and knows BAAI/bge-m3."""
    folder = tmp_path_factory.mktemp("desk")
    publish_small_model(lab, folder)
    sources = {"models": folder / "model.yaml", "bundles": CATALOG / "bundles/default.yaml"}
    for name, file in sources.items():
        lab.kubectl("-n", release.namespace, "create", "configmap", name, f"--from-file={file}")
    lab.kubectl("label", "nodes", "--all", "--overwrite", f"{LABEL}=nvidia-l4")
    release.upgrade(AS_PRINTED)
    python = str(Path(sys.executable).parent)
    yield Desk.at(folder, lab.kubeconfig, python)
    release.upgrade()
    lab.kubectl("-n", release.namespace, "delete", "configmap", *sources)
    lab.kubectl("label", "nodes", "--all", f"{LABEL}-")


def publish_small_model(lab: Lab, folder: Path) -> None:
    """Weights of BGE-M3's shape, seeded and shallow, in the bucket, and `model.yaml` that fits them."""
    made = Path(write_catalog(folder)["SIE_MODELS_DIR"]) / f"{BGE_M3.replace('/', '__')}.yaml"
    model = yaml.safe_load(made.read_text())
    weights = Path(model.pop("weights_path"))
    del model["allow_pickle"]
    # Dense only: its other heads are published as torch files.
    model["tasks"] = {"encode": {"dense": model["tasks"]["encode"]["dense"]}}
    model["profiles"] = {"default": model["profiles"]["dense"]}
    (folder / "model.yaml").write_text(yaml.safe_dump({**model, "hf_id": BGE_M3}))
    bucket.fill(lab.bucket, BGE_M3, weights)


@pytest.mark.parametrize("block", blocks(), ids=lambda block: f"{block.page}: {block.text.splitlines()[0][:40]}")
def test_a_command_of_a_page_runs(desk: Desk, block: Block) -> None:
    desk.run(block.text)


def test_a_request_at_zero_is_answered_as_the_page_says(desk: Desk, release: Release) -> None:
    release.wait_until_empty("l4")
    (block,) = shell("scale-from-zero", Place.PODS)
    said = desk.run(block.text)
    assert "HTTP/1.1 202" in said
    assert any("pending_demand" in line and line.endswith(" 1.0") for line in said.splitlines())


def test_the_smoke_test_prints_the_shape_from_zero(desk: Desk, release: Release) -> None:
    release.wait_until_empty("l4")
    verify, smoke = (
        block for block in shell("gcp", Place.PODS) if "port-forward" in block.text or "SIEClient" in block.text
    )
    said = desk.run(verify.text + smoke.text)
    assert said.splitlines()[-1] == "(1024,)"
