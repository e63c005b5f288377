"""Every module and example: formatted, valid by its providers' schemas, planned by its own tests without a cloud."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from terraform.engine import MODULES, Terraform

pytestmark = pytest.mark.timeout(900)  # some providers take half a minute to say their schema
ALL = sorted(
    {str(file.parent.relative_to(MODULES)) for file in MODULES.rglob("*.tf") if ".terraform" not in file.parts}
)
TESTED = sorted({str(file.parents[1].relative_to(MODULES)) for file in MODULES.rglob("tests/*.tftest.hcl")})
VARIABLE = re.compile(r'^variable "(\w+)" \{\n(.*?)^\}', re.MULTILINE | re.DOTALL)
RUN = re.compile(r'^run "', re.MULTILINE)
REFUSED = re.compile(r"^  expect_failures\b", re.MULTILINE)


def written(module: Path, pattern: re.Pattern[str]) -> int:
    """How often the pattern stands in a module's tests."""
    return sum(len(pattern.findall(file.read_text())) for file in (module / "tests").glob("*.tftest.hcl"))


def results(output: str) -> Iterator[tuple[str, str]]:
    """Name and status of each finished run, from `terraform test -json`."""
    for line in output.splitlines():
        said = json.loads(line)
        if said["type"] == "test_run" and said["test_run"].get("progress", "complete") == "complete":
            yield f"{said['test_run']['path']} {said['test_run']['run']}", said["test_run"]["status"]


def complaints(output: str) -> str:
    """What Terraform said against the configuration or a run."""
    found = (json.loads(line) for line in output.splitlines())
    return "\n".join(
        f"{said.get('@testrun', '')}: {said['diagnostic']['summary']}: {said['diagnostic']['detail']}"
        for said in found
        if said["type"] == "diagnostic" and said["diagnostic"]["severity"] == "error"
    )


def test_the_files_are_formatted(terraform: Terraform) -> None:
    done = terraform.run(MODULES, "fmt", "-check", "-diff", "-recursive", "-no-color")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", ALL)
def test_a_module_is_valid(module: str, terraform: Terraform, modules: Path) -> None:
    terraform.init(modules / module)
    done = terraform.run(modules / module, "validate", "-no-color")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", TESTED)
def test_a_modules_own_tests_pass(module: str, terraform: Terraform, modules: Path) -> None:
    terraform.init(modules / module)
    done = terraform.run(modules / module, "test", "-json")
    finished = dict(results(done.stdout))
    failed = [name for name, status in finished.items() if status != "pass"]
    assert done.returncode == 0, f"{failed}\n{complaints(done.stdout)}"
    assert failed == []
    assert len(finished) == written(modules / module, RUN)


@pytest.mark.parametrize("module", ALL)
def test_a_module_has_tests_of_its_own(module: str) -> None:
    assert module in TESTED


@pytest.mark.parametrize("module", [name for name in ALL if "/" not in name])
def test_every_variable_that_refuses_is_seen_to_do_so(module: str) -> None:
    sources = "\n".join(file.read_text() for file in (MODULES / module).glob("*.tf"))
    strict = {name for name, body in VARIABLE.findall(sources) if "  validation {" in body}
    tests = "\n".join(file.read_text() for file in (MODULES / module / "tests").glob("*.tftest.hcl"))
    assert strict - set(re.findall(r"expect_failures = \[var\.(\w+)", tests)) == set()


def test_runs_and_refusals_are_many() -> None:
    runs = sum(written(MODULES / module, RUN) for module in TESTED)
    refused = sum(written(MODULES / module, REFUSED) for module in TESTED)
    assert (runs >= 60, refused >= 25) == (True, True), f"{runs} runs, of which {refused} expect failures"
