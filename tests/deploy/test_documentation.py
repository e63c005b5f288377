"""The commands of docs/deployment render, and what the pages name exists."""

import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest
import yaml

import chart_readme
from chart_render import SOURCE, Chart, overlay

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = sorted((ROOT / "docs/deployment").glob("*.md"))
CHART: Final = "deploy/helm/sie-cluster"
SHELL: Final = {
    "REGISTRY": "images.example.com",
    "WI_SA": "a@b",
    "ROLE_ARN": "arn:aws:iam::1:role/a",
    "HF_TOKEN": "hf_x",
}
QUICKSTARTS: Final = {"aws.md": "../../terraform/aws/examples/quickstart/helm-values.yaml"}  # seen from the chart
VALUE: Final = re.compile(r"`((?:[a-z][\w-]*\.)+[a-zA-Z][\w]*)(?:[=:][^`]*)?`")


def installs() -> list[tuple[str, list[str]]]:
    """Each `helm upgrade` of each page, as words."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL):
            within = block.replace("../../../../helm/sie-cluster", CHART)  # seen from the quickstart's folder
            own = QUICKSTARTS.get(page.name, "examples/helm-values.yaml")
            within = within.replace("-f helm-values.yaml", f"-f {CHART}/{own}")
            for line in within.replace("\\\n", " ").splitlines():
                text = re.sub(r"\$(\w+)", lambda name: SHELL.get(name[1], name[0]), line)
                if text.startswith("helm upgrade"):
                    found.append((page.name, shlex.split(text)))
    return found


@pytest.mark.parametrize(("page", "words"), installs())
def test_every_installation_of_a_page_renders(chart: Chart, page: str, words: list[str]) -> None:
    assert CHART in words, page
    options = [word for word in words[2:] if word not in {"--install", "--create-namespace", "-n", "sie", CHART}]
    files = [name.removeprefix(f"{CHART}/") for flag, name in pairwise(options) if flag == "-f"]
    rest = [word for word in options if word != "-f" and not word.startswith(CHART)]
    assert chart.render(None, *overlay(*files), *rest)


def test_pages_are_checked() -> None:
    assert {page for page, _ in installs()} == {
        "access-and-auth.md",
        "aws.md",
        "gcp.md",
        "monitoring.md",
        "terraform.md",
        "upgrade.md",
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_value_that_a_page_names_exists(page: Path) -> None:
    values = yaml.safe_load((SOURCE / "values.yaml").read_text())
    for path in VALUE.findall(page.read_text()):
        first, *others = path.split(".")
        if first not in values:
            continue
        here = values[first]
        for key in others:
            here = here["l4" if key == "NAME" else key]


def test_every_runbook_of_an_alert_is_a_heading() -> None:
    headings = re.findall(r"^## (.*)$", (ROOT / "docs/deployment/troubleshooting.md").read_text(), re.MULTILINE)
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    named = set(re.findall(r"\$page#([\w-]+)", (SOURCE / "files/alerts.yaml").read_text()))
    assert named <= anchors


def test_the_readme_is_that_of_the_values() -> None:
    assert chart_readme.main(["--check"]) == 0, "run `make format`"


def test_every_query_of_the_autoscaler_is_explained() -> None:
    page = (ROOT / "docs/deployment/scale-from-zero.md").read_text()
    names = set(yaml.safe_load((SOURCE / "files/queries.yaml").read_text())) - {"lease"}
    assert {name for name in names if f"| `{name}` |" in page} == names
