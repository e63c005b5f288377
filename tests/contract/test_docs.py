"""The documentation says what the code does, where a test can tell."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

import models_table
from sie_protocol import headers
from sie_protocol.errors import RULES, ErrorCode
from sie_router.api.metrics import RouterCollector
from sie_router.api.metrics_flow import FlowCollector
from sie_router.app import RouterApp
from sie_router.settings import Settings as Router
from sie_server import app as sie_worker
from sie_server.settings import Settings as Worker

HEADER = re.compile(r"[A-Z][A-Za-z]+(-[A-Za-z]+)+|Authorization|Prefer")
ROOT = Path(__file__).parents[2]
WIRE = (ROOT / "docs/wire-protocol.md").read_text()


@pytest.mark.parametrize("code", list(ErrorCode))
def test_the_table_of_refusals_is_the_table_of_the_code(code: ErrorCode) -> None:
    rule = RULES[code]
    retry = f"{rule.retry_after_s} s" if rule.retryable else "no"
    assert f"| `{code}` | {rule.status} | {retry} |" in WIRE


def test_the_table_of_models_is_that_of_the_catalogue() -> None:
    assert models_table.main(["--check"]) == 0, "run `make format`"


@pytest.mark.parametrize("name", [value for value in vars(headers).values() if HEADER.fullmatch(str(value))])
def test_every_header_is_documented(name: str) -> None:
    assert re.search(rf"`{name}[`:]", WIRE)


def documented(column: int) -> set[tuple[str, str]]:
    """Method and path of each row of the table of routes that says something in this column."""
    table = WIRE.partition("## Routes")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    return {
        (row[0].split()[0], path.partition("?")[0])
        for row in rows[2:]
        if row[column]
        for path in re.findall(r"`([^`]+)`", row[0])
    }


def described(document: dict[str, Any]) -> set[tuple[str, str]]:
    """Method and path of each operation of an OpenAPI document, and the routes that serve the document."""
    own = {("GET", path) for path in ("/docs", "/redoc", "/openapi.json")}
    return own | {(method.upper(), path) for path, each in document["paths"].items() for method in each}


async def test_the_table_of_routes_is_that_of_router_and_worker() -> None:
    router = RouterApp(Router(), print)._build()
    others = {("GET", "/"), ("WS", headers.CLUSTER_STATUS)}  # what OpenAPI does not speak of
    assert documented(1) == described(router.openapi()) | others
    async with (
        sie_worker.worker(Worker(device="cpu")) as worker,
        httpx.AsyncClient(transport=httpx.ASGITransport(worker.app), base_url="http://worker") as client,
    ):
        document = (await client.get("/openapi.json")).json()
    assert documented(2) == described(document) | {("WS", headers.WORKER_STATUS)}


@pytest.mark.parametrize("package", ["router", "server", "cli", "sdk"])
def test_the_variables_that_a_package_reads_are_documented_and_no_others(package: str) -> None:
    (settings,) = (ROOT / "packages" / package / "src").rglob("settings.py")
    read = set(re.findall(r'"((?:SIE|HF|OTEL)_[A-Z0-9_]+)"', settings.read_text()))
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("packages/*/README.md")]
    text = "\n".join(page.read_text() for page in pages)
    assert read
    assert {name for name in read if not re.search(rf"[`$]{name}\b", text)} == set()
    if package == "router":
        assert set(re.findall(r"\bSIE_ROUTER_[A-Z0-9_]+[A-Z0-9]\b", text)) <= read


def test_the_defaults_of_the_router_are_those_of_its_readme() -> None:
    rows = re.findall(
        r"^\| `(SIE_ROUTER_\w+)` \| (\d+) \|", (ROOT / "packages/router/README.md").read_text(), re.MULTILINE
    )
    assert len(rows) > 12
    wrong = {name: told for name, told in rows if getattr(Router(), name[len("SIE_ROUTER_") :].lower()) != float(told)}
    assert wrong == {}


def test_every_metric_of_the_router_is_on_the_monitoring_page() -> None:
    router = RouterApp(Router(), print)
    collector = RouterCollector(
        router.counters, router.store.snapshot, router.inflight, router.health.ejections, lambda: 0.0, lambda: 0.0
    )
    families = [*collector.collect(), *FlowCollector(router.waiting, router.retries).collect()]
    page = (ROOT / "docs/deployment/monitoring.md").read_text()
    names = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    assert {name for name in names if f"`{name}`" not in page} == set()


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("packages/*/*.md")])
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []


def test_every_make_target_that_a_page_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    pages = [page.read_text() for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))]
    named = {name for page in pages for name in re.findall(r"`make ([a-z-]+)", page)}
    assert named <= targets
