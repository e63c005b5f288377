"""The commands beside `serve`."""

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from served_worker import served, write_catalog
from sie_protocol.versions import VERSION
from sie_server.adapters.registry import ADAPTERS, needs
from sie_server.cli import app
from sie_server.requirements import brought_by

M = "org/hash"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"SIE_MODELS_DIR": "", "SIE_BUNDLES_DIR": "", "SIE_BUNDLE": ""})


async def test_the_document_on_disk_is_the_one_that_workers_serve(tmp_path: Path) -> None:
    file = tmp_path / "openapi.json"
    assert run("openapi", "--output", str(file), "--indent", "4").exit_code == 0
    text = file.read_text()
    assert text.startswith('{\n    "')
    async with served(write_catalog(tmp_path / "catalog", {M: {}})) as worker:
        assert json.loads(text) == (await worker.http.get("/openapi.json")).json()
    printed = run("openapi", "--indent", "0")
    assert json.loads(printed.output) == json.loads(text)
    assert printed.output.count("\n") == 1


def test_a_document_that_cannot_be_written_is_one_line_and_a_failure(tmp_path: Path) -> None:
    found = run("openapi", "-o", str(tmp_path / "none" / "x.json"))
    assert found.exit_code == 1
    assert "cannot be written: No such file or directory" in found.output


def declared(extra: str) -> list[str]:
    return brought_by(extra, metadata.requires("sie-server") or [])


def test_all_models_of_the_bundle_need_what_the_extras_bring() -> None:
    found = run("resolve-deps")
    assert found.exit_code == 0, found.output
    assert found.output.split("\n")[:-1] == [
        f"sie-server[onnx,torch]=={VERSION}",
        *declared("onnx"),
        *declared("torch"),
    ]
    assert run("resolve-deps", "--bundle", "DEFAULT", "--cpu").output == found.output
    assert declared("torch")[0].startswith("torch")


@pytest.mark.parametrize(
    ("models", "extras"),
    [
        ("sie/hash-64", ()),
        ("sentence-transformers/all-MiniLM-L6-v2,sie/hash-64", ("torch",)),
        ("baai/BGE-m3:sparse", ("torch",)),
        ("nationaldesignstudio/rampart", ("onnx",)),
    ],
)
def test_some_models_need_less(models: str, extras: tuple[str, ...]) -> None:
    found = json.loads(run("resolve-deps", "--models", models, "--json").output)
    marked = f"[{','.join(extras)}]" if extras else ""
    assert found["requirements"] == [
        f"sie-server{marked}=={VERSION}",
        *[line for extra in extras for line in declared(extra)],
    ]
    assert {name.lower().partition(":")[0] for name in models.split(",")} == {each.lower() for each in found["models"]}
    assert set(found["adapters"]) <= set(ADAPTERS)
    assert {extra for own in found["adapters"].values() for extra in own} == set(extras)


def test_models_of_another_folder_count(tmp_path: Path) -> None:
    settings = write_catalog(tmp_path, {M: {}, "org/dense": {"adapter": "dense"}})
    folders = ("--models-dir", str(settings.models_dir), "--bundles-dir", str(settings.bundles_dir))
    assert run("resolve-deps", *folders, "-m", M).output == f"sie-server=={VERSION}\n"
    assert json.loads(run("resolve-deps", *folders, "--json").output)["adapters"] == {"dense": ["torch"], "hash": []}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--bundle", "default", "--models", "sie/hash-64"), "exclude each other"),
        (("--bundle", "none"), "there is no bundle 'none'"),
        (("--models", "baai/bge-m4"), "no model 'baai/bge-m4'; did you mean BAAI/bge-m3"),
        (("--models-dir", "/nowhere"), "has no *.yaml files"),
    ],
)
def test_what_there_is_not_is_refused_in_one_line(arguments: tuple[str, ...], said: str) -> None:
    found = run("resolve-deps", *arguments)
    assert found.exit_code == 1
    assert said in found.output
    assert found.output.count("\n") == 1


def test_an_adapter_of_another_version_is_named(tmp_path: Path) -> None:
    own = write_catalog(tmp_path, {M: {"adapter": "newer"}}, {"newer": "x:Y"})
    found = run("resolve-deps", "--models-dir", str(own.models_dir), "--bundles-dir", str(own.bundles_dir))
    assert found.exit_code == 1
    assert "has adapter newer; this version has: " in found.output


# Prints, for one package that cannot be imported, the adapters that cannot be either.
WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == sys.argv[1]:
            raise ModuleNotFoundError(f"no {name}", name=name.partition(".")[0])
sys.meta_path.insert(0, Missing())

from sie_server.adapters.base import LoadError
from sie_server.adapters.registry import ADAPTERS, find

for name in ADAPTERS:
    try:
        find(name)
    except LoadError as error:
        print(name)
"""


@pytest.mark.parametrize(("package", "extra"), [("torch", "torch"), ("onnxruntime", "onnx")])
def test_the_adapters_that_need_an_extra_are_those_that_fail_without_it(package: str, extra: str) -> None:
    command = [sys.executable, "-c", WITHOUT, package]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    failed = set(found.stdout.split())
    assert {name for name in ADAPTERS if extra in needs(name)} == failed
