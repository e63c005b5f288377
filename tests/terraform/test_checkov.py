"""Checkov finds nothing that is not waived where it stands, with a reason."""

import json
from pathlib import Path
from typing import Any

import pytest

from terraform import checkov

pytestmark = pytest.mark.timeout(900)  # the first time it is installed


@pytest.fixture(scope="module")
def results(modules: Path) -> dict[str, list[dict[str, Any]]]:
    said = json.loads(checkov.scan(modules))
    assert said["summary"]["parsing_errors"] == 0
    found: dict[str, list[dict[str, Any]]] = said["results"]
    return found


def test_checkov_finds_nothing(results: dict[str, list[dict[str, Any]]]) -> None:
    found = [f"{each['check_id']} {each['resource']}: {each['check_name']}" for each in results["failed_checks"]]
    assert found == []
    assert len(results["passed_checks"]) > 40


def test_checkov_would_find_a_public_cluster(tmp_path: Path) -> None:
    (tmp_path / "main.tf").write_text('resource "google_container_cluster" "open" {\n  name = "open"\n}\n')
    found = json.loads(checkov.scan(tmp_path))["results"]["failed_checks"]
    assert "CKV_GCP_25" in {each["check_id"] for each in found}  # private cluster


def test_what_is_waived_has_a_reason(results: dict[str, list[dict[str, Any]]]) -> None:
    waived = {(each["check_id"], each["check_result"]["suppress_comment"]) for each in results["skipped_checks"]}
    assert waived
    assert [check for check, reason in waived if not reason or len(reason) < 20] == []
