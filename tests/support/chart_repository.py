"""A checkout of our chart whose dependencies are published on loopback, so that `helm dependency update` works."""

import shutil
import subprocess
import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from chart_render import DOWNLOADED, SOURCE, STAND_INS
from lab.binaries import built


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        """Say nothing."""


@contextmanager
def checkout(folder: Path, parts: Path | None = None) -> Generator[Path]:
    """A folder with `deploy/helm/sie-cluster`; its dependencies are those in `parts`, or empty."""
    chart = folder / "checkout/deploy/helm/sie-cluster"
    shutil.copytree(SOURCE, chart, ignore=DOWNLOADED)
    published = folder / "published"
    published.mkdir()
    for name, version in STAND_INS.items():
        _publish(folder / "parts", name, version, parts, published)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(published))) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        _helm("repo", "index", str(published), "--url", url)
        own = yaml.safe_load((chart / "Chart.yaml").read_text())
        for part in own["dependencies"]:
            part["repository"] = part["repository"] and url
        (chart / "Chart.yaml").write_text(yaml.safe_dump(own))
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield folder / "checkout"
        finally:
            server.shutdown()
            thread.join()


def _publish(scratch: Path, name: str, version: str, parts: Path | None, published: Path) -> None:
    source = scratch / name if parts is None or not (parts / name).is_dir() else parts / name
    if source.parent == scratch:
        source.mkdir(parents=True)
        (source / "Chart.yaml").write_text(yaml.safe_dump({"apiVersion": "v2", "name": name, "version": version}))
    _helm("package", str(source), "--destination", str(published))


def _helm(*arguments: str) -> None:
    subprocess.run([str(built("helm")), *arguments], check=True, capture_output=True)
