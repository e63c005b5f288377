"""The providers' schemas refuse what the real providers' schemas refuse."""

from pathlib import Path

import pytest

from terraform.engine import Terraform

pytestmark = pytest.mark.timeout(300)
HEAD = """
terraform {
  required_providers {
    google = { source = "hashicorp/google" }
    helm   = { source = "hashicorp/helm" }
  }
}
"""
POOL = 'resource "google_container_node_pool" "p" {{\n  cluster = "c"\n  {}\n}}\n'
REPOSITORY = 'resource "google_artifact_registry_repository" "r" {{\n  {}\n}}\n'
RELEASE = 'resource "helm_release" "r" {{\n  name = "r"\n  chart = "c"\n  {}\n}}\n'
REFUSED = {
    "an unknown attribute": (POOL.format("machine_type = 1"), "Unsupported argument"),
    "a computed attribute": (POOL.format('operation = "o"'), "the provider decides about it"),
    "an attribute as a block": (POOL.format("node_locations {}"), "Unsupported block type"),
    "a block twice": (POOL.format("management {}\n  management {}"), "Too many management blocks"),
    "a block without what it needs": (POOL.format("placement_policy {}"), "Missing required argument"),
    "a wrong type": (POOL.format('initial_node_count = "many"'), "Incorrect attribute value type"),
    "nothing that is required": (REPOSITORY.format(""), "Missing required argument"),
    "a value that is none of those listed": (
        REPOSITORY.format('repository_id = "r"\n  format = "DOCKER"\n  mode = "LOCAL"'),
        '"LOCAL" is none of STANDARD_REPOSITORY, VIRTUAL_REPOSITORY, REMOTE_REPOSITORY',
    ),
    "a nested attribute as a block": (RELEASE.format("set {}"), "Unsupported block type"),
    "a nested attribute without what it needs": (RELEASE.format('set = [{ value = "v" }]'), '"name" is required'),
    "an unknown resource": ('resource "google_container_pool" "p" {}', "Invalid resource type"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_schema_refuses(name: str, terraform: Terraform, tmp_path: Path) -> None:
    text, expected = REFUSED[name]
    (tmp_path / "main.tf").write_text(HEAD + text)
    terraform.init(tmp_path)
    done = terraform.run(tmp_path, "validate", "-no-color")
    assert done.returncode != 0
    assert expected in " ".join(done.stderr.split())


def test_the_schema_takes_lists_sets_maps_and_nested_attributes(terraform: Terraform, tmp_path: Path) -> None:
    settings = 'set = [{ name = "n", value = "v" }]\n  values = ["a: 1"]\n  postrender = { binary_path = "b" }'
    (tmp_path / "main.tf").write_text(HEAD + RELEASE.format(settings) + POOL.format('node_locations = ["a", "b"]'))
    terraform.init(tmp_path)
    done = terraform.run(tmp_path, "validate", "-no-color")
    assert done.returncode == 0, done.stderr
