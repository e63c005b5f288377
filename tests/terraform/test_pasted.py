"""Configurations of the pages, pasted as they are but for the module's address: they are valid, and plan."""

import json
import re
from pathlib import Path

import pytest

import terraform_docs
from terraform.engine import Terraform
from terraform_plans import CLOUDS, NEEDED, PROVIDERS, Plan, planned

pytestmark = pytest.mark.timeout(900)
ROOT = Path(__file__).parents[2]
PAGES = ("docs/deployment/terraform.md", "deploy/terraform/gcp/README.md", "deploy/terraform/aws/README.md")
BLOCKS = [block for page in PAGES for block in re.findall(r"```hcl\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)]
MODULE = {"sie_gke": "gcp", "sie_eks": "aws"}
VERSIONS = """
terraform {{
  required_providers {{
    {provider} = {{ source = "hashicorp/{provider}" }}
    helm   = {{ source = "hashicorp/helm" }}
  }}
}}

output "helm_values" {{
  value = module.{name}.helm_values
}}

output "all" {{
  value = module.{name}
}}
"""


def name_of(block: str) -> str:
    """What the block calls its one module."""
    (name,) = re.findall(r'^module "(\w+)" \{$', block, re.MULTILINE)
    return str(name)


def pasted(block: str, modules: Path, folder: Path) -> str:
    """Write a configuration with the block, to which what a fragment leaves out is added; the cloud it is for."""
    name = name_of(block)
    cloud = MODULE[name]
    first, *lines = [line for line in block.splitlines() if not re.match(r"  (source|version) +=", line)]
    given = {key: value for key, value in NEEDED[cloud].items() if not re.search(rf"^  {key} +=", block, re.MULTILINE)}
    own = [
        f"  source = {json.dumps(str(modules / cloud))}",
        *(f"  {key} = {json.dumps(value)}" for key, value in given.items()),
    ]
    versions = VERSIONS.format(name=name, provider=PROVIDERS[cloud])
    (folder / "main.tf").write_text("\n".join([first, *own, *lines, versions]))
    (folder / "tests/mocks").mkdir(parents=True)
    region = re.findall(r'^  region += "(.*)"', "\n".join([*own, *lines]), re.MULTILINE)[0]
    for file in (modules / cloud / "tests/mocks").iterdir():  # what they answer is of one region
        (folder / "tests/mocks" / file.name).write_text(file.read_text().replace(NEEDED[cloud]["region"], region))
    return cloud


def plan_of(block: str, terraform: Terraform, modules: Path, folder: Path) -> Plan:
    cloud = pasted(block, modules, folder)
    (plan,) = planned(terraform, folder, {"pasted": {}}, PROVIDERS[cloud]).values()
    return plan


def test_there_are_blocks_of_both_clouds() -> None:
    assert {MODULE[name_of(block)] for block in BLOCKS} == set(CLOUDS)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_block_of_a_page_is_valid_plans_and_opens_no_api(
    block: str, terraform: Terraform, modules: Path, tmp_path: Path
) -> None:
    plan = plan_of(block, terraform, modules, tmp_path)
    done = terraform.run(tmp_path, "validate", "-no-color")
    assert done.returncode == 0, done.stdout + done.stderr
    if name_of(block) == "sie_gke":
        cluster = plan.resources["module.sie_gke.google_container_cluster.this"]
        assert cluster["private_cluster_config"][0]["enable_private_endpoint"]
    else:
        assert not plan.resources["module.sie_eks.aws_eks_cluster.this"]["vpc_config"][0]["endpoint_public_access"]


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
