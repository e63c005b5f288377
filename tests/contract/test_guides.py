"""The guides work as they stand: their blocks are taken out of the pages and run."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from served_worker import served
from sie_server.adapters.registry import ADAPTERS
from sie_server.settings import Settings
from tiny_bert import WIDTH, Shape, write_checkpoint

ROOT = Path(__file__).parents[2]


def blocks(page: str) -> dict[str, str]:
    """The code blocks of a page whose first line is a comment with a path, by that path."""
    found = re.findall(r"```\w+\n# ([\w./-]+)\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    return dict(found)


async def test_a_model_is_added_by_yaml_alone(tmp_path: Path) -> None:
    weights = write_checkpoint(tmp_path / "weights", Shape())
    for path, text in blocks("add-a-model.md").items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        own = text.replace("/models/support-e5", str(weights)).replace("dim: 384", f"dim: {WIDTH}")
        (tmp_path / path).write_text(own)
    settings = Settings(models_dir=tmp_path / "models", bundles_dir=tmp_path / "bundles", device="cpu", cores=1)
    async with served(settings) as worker:
        plain = (await worker.encode("acme/support-e5", "my printer is on fire")).json()
        ticket = (await worker.encode("acme/support-e5:ticket", "my printer is on fire")).json()
        same = (await worker.encode("acme/support-e5", "my printer is on fire", options={"profile": "ticket"})).json()
    vectors = [np.array(each["items"][0]["dense"]["values"]) for each in (plain, ticket, same)]
    assert vectors[0].shape == (WIDTH,)
    np.testing.assert_array_equal(vectors[1], vectors[2])
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    """The files of the guide, laid out as the page says, beside the real package."""
    for path, text in blocks("add-an-adapter.md").items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    adapters = tmp_path / "packages/server/src/sie_server/adapters"
    (adapters / "__init__.py").touch()
    (tmp_path / "conftest.py").write_text(f"import sie_server.adapters as a\na.__path__.append({str(adapters)!r})\n")
    return tmp_path


def test_an_adapter_is_added_by_copy_and_paste(overlay: Path) -> None:
    test = "packages/server/tests/adapters/test_static.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", test]
    done = subprocess.run(command, cwd=overlay, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_the_code_of_the_guide_keeps_the_rules_of_the_project(overlay: Path) -> None:
    files = ["packages/server/src/sie_server/adapters/static.py", "packages/server/tests/adapters/test_static.py"]
    for check in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        rules = ["--config", str(ROOT / "pyproject.toml"), "--config", 'lint.isort.known-first-party = ["sie_server"]']
        command = [sys.executable, "-m", "ruff", *check, *(rules if check[0] == "check" else rules[:2]), *files]
        done = subprocess.run(command, cwd=overlay, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_name_and_the_model_of_the_guide_fit_the_adapter(overlay: Path) -> None:
    line = (overlay / "packages/server/src/sie_server/adapters/registry.py").read_text()
    entry = json.loads("{" + line.strip().rstrip(",") + "}")
    assert not entry.keys() & ADAPTERS.keys()
    models = list((overlay / "packages/server/src/sie_server/catalog/models").iterdir())
    assert [model.name for model in models] == ["minishlab__potion-base-8M.yaml"]
    assert f"adapter: {next(iter(entry))}" in models[0].read_text()
