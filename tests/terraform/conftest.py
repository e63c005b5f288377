"""Terraform with its providers, and a copy of the modules in which it may leave its files."""

import shutil
from pathlib import Path

import pytest

from terraform import engine
from terraform.engine import Terraform


@pytest.fixture(scope="session")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    return engine.prepared(tmp_path_factory.mktemp("terraform"))


@pytest.fixture(scope="session")
def modules(terraform: Terraform, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of deploy/, so that paths between its folders hold; its folder `terraform`."""
    deploy = tmp_path_factory.mktemp("copy") / "deploy"
    ignored = shutil.ignore_patterns(".terraform*", "terraform.tfstate*", "charts")
    shutil.copytree(engine.MODULES.parent, deploy, ignore=ignored)
    if terraform.is_opentofu:
        engine.adapt(deploy / "terraform")
    return deploy / "terraform"
