"""Plans of a module with mocked providers, made by `terraform test`, as values."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from terraform.engine import MODULES, Terraform, adapt

HEAD: Final = 'mock_provider "{name}" {{\n  source          = "./tests/mocks"\n  override_during = plan\n}}\n'
PROVIDERS: Final = {"gcp": "google", "aws": "aws"}
CLOUDS: Final = tuple(cloud for cloud in PROVIDERS if (MODULES / cloud / "versions.tf").exists())
NEEDED: Final = {
    "gcp": {"project_id": "my-project", "region": "us-central1"},
    "aws": {"region": "eu-central-1"},
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a plan would make."""

    outputs: Mapping[str, Any]
    resources: Mapping[str, Mapping[str, Any]]

    @property
    def values(self) -> dict[str, Any]:
        """The values for the chart."""
        found: dict[str, Any] = yaml.safe_load(self.outputs["helm_values"])
        return found


def planned(
    terraform: Terraform, module: Path, runs: Mapping[str, Mapping[str, Any]], provider: str = ""
) -> dict[str, Plan]:
    """The plan of each named set of variables, of the copy of a module in this folder.

    Raises:
        RuntimeError: Terraform refuses one.
    """
    own = module / "tests" / "planned.tftest.hcl"
    own.write_text("\n".join([head(provider or PROVIDERS[module.name]), *(_run(*item) for item in runs.items())]))
    if terraform.is_opentofu:
        adapt(module)
    terraform.init(module)
    done = terraform.run(module, "test", "-json", "-verbose", f"-filter={own.relative_to(module)}")
    own.unlink()
    if done.returncode != 0:
        raise RuntimeError(done.stdout + done.stderr)
    said = [json.loads(line) for line in done.stdout.splitlines()]
    return {each["@testrun"]: _plan(each["test_plan"]) for each in said if each["type"] == "test_plan"}


def head(provider: str) -> str:
    """The mocked providers of a test file in a module's folder."""
    return HEAD.format(name=provider) + 'mock_provider "helm" {}\n'


def _run(name: str, variables: Mapping[str, Any]) -> str:
    """A run that only plans; JSON is HCL, for values."""
    lines = "\n".join(f"    {key} = {json.dumps(value)}" for key, value in variables.items())
    return f'run "{name}" {{\n  command = plan\n  variables {{\n{lines}\n  }}\n}}\n'


def _plan(plan: Mapping[str, Any]) -> Plan:
    outputs = {name: change["after"] for name, change in plan["output_changes"].items() if "after" in change}
    resources = {each["address"]: each["change"]["after"] for each in plan["resource_changes"]}
    return Plan(outputs, resources)
