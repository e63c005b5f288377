"""Configurations of the pages, pasted as they are but for the module's address: they are valid, and plan."""

import json
import re
from pathlib import Path

import pytest

import terraform_docs
from terraform.engine import Terraform
from terraform_plans import Plan, planned

pytestmark = pytest.mark.timeout(900)
ROOT = Path(__file__).parents[2]
PAGES = ("docs/deployment/terraform.md", "deploy/terraform/gcp/README.md")
BLOCKS = [block for page in PAGES for block in re.findall(r"```hcl\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)]
REQUIRED = {"project_id": "my-project", "region": "us-central1"}
VERSIONS = """
terraform {
  required_providers {
    google = { source = "hashicorp/google" }
    helm   = { source = "hashicorp/helm" }
  }
}

output "helm_values" {
  value = module.sie_gke.helm_values
}

output "all" {
  value = module.sie_gke
}
"""


def pasted(block: str, modules: Path, folder: Path) -> Path:
    """A configuration with the block; what a fragment leaves out is added."""
    lines = [line for line in block.splitlines() if not re.match(r"  (source|version) +=", line)]
    given = {name: value for name, value in REQUIRED.items() if not re.search(rf"^  {name} +=", block, re.MULTILINE)}
    own = [
        f"  source = {json.dumps(str(modules / 'gcp'))}",
        *(f"  {name} = {json.dumps(given[name])}" for name in given),
    ]
    assert lines[0] == 'module "sie_gke" {'
    (folder / "main.tf").write_text("\n".join([lines[0], *own, *lines[1:], VERSIONS]))
    (folder / "tests").mkdir()
    (folder / "tests/mocks").symlink_to(modules / "gcp/tests/mocks")
    return folder


def plan_of(block: str, terraform: Terraform, modules: Path, folder: Path) -> Plan:
    (plan,) = planned(terraform, pasted(block, modules, folder), {"pasted": {}}, "google").values()
    return plan


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_block_of_a_page_is_valid_and_plans(block: str, terraform: Terraform, modules: Path, tmp_path: Path) -> None:
    plan = plan_of(block, terraform, modules, tmp_path)
    done = terraform.run(tmp_path, "validate", "-no-color")
    assert done.returncode == 0, done.stdout + done.stderr
    cluster = plan.resources["module.sie_gke.google_container_cluster.this"]
    assert cluster["private_cluster_config"][0]["enable_private_endpoint"]


def test_the_production_block_makes_the_machines_it_names(terraform: Terraform, modules: Path, tmp_path: Path) -> None:
    (block,) = [block for block in BLOCKS if "a100-pool" in block]
    plan = plan_of(block, terraform, modules, tmp_path)
    nodes = {
        name: plan.resources[f'module.sie_gke.google_container_node_pool.gpu["{name}"]']["node_config"][0]
        for name in ("l4-pool", "a100-pool")
    }
    assert {name: (each["machine_type"], each["spot"]) for name, each in nodes.items()} == {
        "l4-pool": ("g2-standard-8", False),
        "a100-pool": ("a2-highgpu-1g", True),
    }
    for each in nodes.values():
        assert each["taint"] == [{"key": "nvidia.com/gpu", "value": "present", "effect": "NO_SCHEDULE"}]
    assert plan.outputs["all"]["workload_identity_member"] == "serviceAccount:my-project.svc.id.goog[sie/sie-server]"


def test_the_access_block_installs_the_controller_and_the_sign_in(
    terraform: Terraform, modules: Path, tmp_path: Path
) -> None:
    (block,) = [block for block in BLOCKS if "install_ingress_nginx" in block]
    plan = plan_of(block, terraform, modules, tmp_path)
    assert "module.sie_gke.helm_release.ingress_nginx[0]" in plan.resources
    assert plan.values["ingress"]["host"] == "sie.example.com"
    assert plan.values["auth"]["enabled"]


def test_the_tables_of_variables_are_those_of_the_files() -> None:
    assert terraform_docs.main(["--check"]) == 0
