"""The commands of docs/deployment: which there are, where each can be run, and running them as a reader would."""

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from lab.binaries import built

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / "docs/deployment"
ELSEWHERE: Final = {"terraform"}  # pages whose commands are for the suites of deploy/terraform
CLOUD_MARK: Final = "# needs a cloud\n"
NEEDS_PODS: Final = re.compile(r"\b(port-forward|rollout|logs|drain|helm test|helm uninstall|SIEClient)\b")
FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
TIMEOUT_S: Final = 300.0
# What readers put in for the variables of the pages.
VARIABLES: Final[Mapping[str, str]] = {
    "REGISTRY": "images.example.com/sie",
    "WI_SA": "sie@my-project.iam.gserviceaccount.com",
    "ROLE_ARN": "arn:aws:iam::1:role/sie",
    "HF_TOKEN": "hf_x",
    "CLIENT_ID": "sie",
    "CLIENT_SECRET": "secret",
    "TOKEN_A": "a-token-of-a-tenant",
    "TOKEN_B": "another-token",
}
# `kubectl get --watch` never ends; two seconds of it are enough to see that it works.
KUBECTL: Final = """#!/bin/sh
case " $* " in
  *" -w "*) timeout 2 {kubectl} "$@"; [ $? = 124 ] ;;
  *) exec {kubectl} "$@" ;;
esac
"""


class Place(Enum):
    """What a block of commands needs."""

    CLOUD = "a cloud"
    PODS = "a cluster that runs pods"
    API = "an API server"


@dataclass(frozen=True, slots=True)
class Block:
    """Commands between two fences of a page."""

    page: str
    language: str
    text: str

    @property
    def place(self) -> Place:
        """Where it can be run."""
        if self.text.startswith(CLOUD_MARK):
            return Place.CLOUD
        return Place.PODS if NEEDS_PODS.search(self.text) else Place.API


def pages() -> dict[str, list[Block]]:
    """The blocks of each page of ours, in order."""
    texts = {file.stem: file.read_text() for file in sorted(FOLDER.glob("*.md")) if file.stem not in ELSEWHERE}
    return {page: [Block(page, language, own) for language, own in FENCE.findall(text)] for page, text in texts.items()}


def shell(page: str, place: Place) -> list[Block]:
    """The shell commands of a page that need no more and no less than this."""
    return [block for block in pages()[page] if block.language == "sh" and block.place is place]


@dataclass(frozen=True, slots=True)
class Desk:
    """Where a reader sits: a checkout with our chart in it, `kubectl` and `helm` on the path, and their settings."""

    folder: Path
    environment: Mapping[str, str]

    @classmethod
    def at(cls, folder: Path, kubeconfig: Path, *paths: str) -> "Desk":
        """In this folder, which holds the chart if a command names it; programs of `paths` are found as well."""
        tools = folder / "bin"
        tools.mkdir()
        (tools / "helm").symlink_to(built("helm"))
        (tools / "kubectl").write_text(KUBECTL.format(kubectl=built("kubectl")))
        (tools / "kubectl").chmod(0o755)
        own = {"KUBECONFIG": str(kubeconfig), "HELM_CACHE_HOME": str(folder / "cache"), **VARIABLES}
        path = f"{':'.join((str(tools), *paths))}:{os.environ['PATH']}"  # noqa: TID251 - that of whoever runs the tests
        return cls(folder, {**os.environ, **own, "PATH": path})  # noqa: TID251 - the same

    def run(self, text: str) -> str:
        """What these commands print.

        Raises:
            AssertionError: one fails; the message has all that they said.
        """
        script = f"trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{text}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            env=dict(self.environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout
