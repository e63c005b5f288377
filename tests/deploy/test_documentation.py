"""What docs/deployment names exists, and its commands are where tests find them."""

import re
from pathlib import Path
from typing import Final

import pytest
import yaml

import chart_readme
from chart_render import SOURCE
from pages import ELSEWHERE, FENCE, Place, pages
from sie_router.core.score import SPILL_SLACK

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = [file for file in sorted((ROOT / "docs/deployment").glob("*.md")) if file.stem not in ELSEWHERE]
TASKS: Final = {"access-and-auth", "aws", "gcp", "monitoring", "scale-from-zero", "troubleshooting", "upgrade"}
INLINE: Final = re.compile(r"`((?:kubectl|helm|curl|terraform|gcloud|aws) (?:[^`\s]+ )+[^`\s]+)`")
# What no test here can have: a cloud's own tools, an ingress controller's chart, the Grafana of a bundled stack.
CLOUD_ONLY: Final = re.compile(r"\b(gcloud|aws|terraform|ingress-nginx|sie-grafana)\b")
VALUE: Final = re.compile(r"`((?:[a-z][\w-]*\.)+[a-zA-Z][\w]*)(?:[=:][^`]*)?`")


def test_there_is_a_page_for_every_task() -> None:
    assert set(pages()) == TASKS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_is_between_fences_where_tests_find_it(page: Path) -> None:
    """tests/cluster and tests/node run what is between fences; what needs a cloud says so to readers as well."""
    text = page.read_text()
    assert {language for language, _ in FENCE.findall(text)} <= {"sh", "python", "yaml"}
    assert not INLINE.findall(FENCE.sub("", text)), "put the command between fences"


def test_only_what_needs_a_cloud_is_not_run() -> None:
    for block in (block for blocks in pages().values() for block in blocks if block.language == "sh"):
        assert (block.place is Place.CLOUD) == bool(CLOUD_ONLY.search(block.text)), block.text


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


def test_the_least_threshold_that_uses_all_workers_is_that_of_the_router() -> None:
    page = (ROOT / "docs/deployment/scale-from-zero.md").read_text()
    assert f"Below {SPILL_SLACK} the further workers stay idle: up to {SPILL_SLACK} items" in page
    assert f"{SPILL_SLACK} or more, or further workers stay idle" in (SOURCE / "values.yaml").read_text()
