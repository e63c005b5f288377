import json
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from sie_cli.settings import load
from sie_protocol.versions import VERSION

SIE = str(Path(sys.executable).with_name("sie"))


def sie(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SIE, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_version_tells_every_distribution() -> None:
    done = sie("version")
    assert done.returncode == 0
    assert done.stdout.splitlines()[:5] == [
        f"{name} {VERSION}" for name in ("sie", "sie-sdk", "sie-router", "sie-server", "sie-protocol")
    ]


def test_help_lists_the_commands() -> None:
    text = sie("--help").stdout
    assert sie("-h").stdout == text
    assert "--model" in sie("encode", "-h").stdout
    assert all(
        command in text
        for command in (
            "up",
            "down",
            "demo",
            "version",
            "encode",
            "score",
            "extract",
            "models",
            "pools",
            "status",
            "top",
            "doctor",
        )
    )


def test_the_command_itself_imports_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "httpx", "fastapi", "sie_sdk", "sie_router", "sie_server", "asyncio")
    code = f"import sys, sie_cli.main; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_only_a_cluster_here_needs_the_router_the_worker_and_torch() -> None:
    code = """
import importlib, pkgutil, sys
for name in ("torch", "fastapi", "sie_router", "sie_server"):
    sys.modules[name] = None  # importing it fails
import sie_cli
for module in pkgutil.walk_packages(sie_cli.__path__, "sie_cli."):
    importlib.import_module(module.name)
"""
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)
    needed = [each for each in metadata.requires("sie") or () if "extra ==" not in each]
    assert not any(name in each for each in needed for name in ("torch", "sie-router", "sie-server"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rooter: {}", "did you mean 'router'"),
        ("workers: {}", "enables no pool"),
        (None, "cluster.yaml': there is no such file; without --file"),
    ],
)
def test_up_refuses_a_wrong_file_with_one_line(tmp_path: Path, text: str | None, says: str) -> None:
    path = tmp_path / "cluster.yaml"
    if text is not None:
        path.write_text(text)
    done = sie("up", "-f", str(path))
    assert (done.returncode, done.stdout) == (1, "")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_up_on_a_port_in_use_names_it_and_another_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = sie("up", "--port", str(port))
    assert done.returncode == 1
    assert f"port {port} is in use by another program" in done.stderr
    assert f"sie up --port {port + 1}" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_there_for_the_common_shells(shell: str) -> None:
    done = subprocess.run(
        [SIE],
        env={**load().inherited, "_SIE_COMPLETE": f"source_{shell}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, "sie" in done.stdout) == (0, True)


def test_no_color_is_respected() -> None:
    done = subprocess.run(
        [SIE, "--help"],
        env={**load().inherited, "NO_COLOR": "1", "FORCE_COLOR": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "\x1b[3" not in done.stdout


def test_version_is_told_as_json_and_in_one_line() -> None:
    assert sie("--version").stdout == sie("-V").stdout == f"sie {VERSION}\n"
    assert json.loads(sie("version", "--json").stdout)["sie"] == VERSION
