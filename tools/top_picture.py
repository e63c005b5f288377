"""Draw docs/images/sie-top.svg: one real frame of `sie top`, from a local cluster with work, a pool and demand.

`.venv/bin/python tools/top_picture.py`. Needs `sie` installed, half a minute, and port 8080.
"""

import asyncio
import io
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from sie_cli.api import Api
from sie_cli.look.frame import frame
from sie_cli.look.snapshot import Snapshot, look
from sie_protocol.headers import MACHINE_PROFILE, operation_path
from sie_sdk import SIEAsyncClient

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "images" / "sie-top.svg"
URL = "http://127.0.0.1:8080"
MODEL = "sie/hash-64"
CLUSTER = """
workers: {pools: {cpu: {minReplicas: 2}, l4: {minReplicas: 1}, a100-80gb: {}}}
autoscaling: {enabled: false}
"""
WORKERS, WIDTH, WITHIN_S = 3, 110, 60.0


async def real_frame() -> Snapshot:
    """Reserve a worker, send work, ask for what is not there, and look."""
    async with Api(URL, None) as api, SIEAsyncClient(URL) as client:
        deadline = time.monotonic() + WITHIN_S
        while (await client.get_capacity())["worker_count"] < WORKERS:
            if time.monotonic() > deadline:
                sys.exit(f"{WORKERS} workers were not ready within {WITHIN_S:.0f} s")
            await asyncio.sleep(0.2)
        await client.create_pool("tenant-abc", {"l4": 1})
        body = {"items": [{"text": "hello"}]}
        for profile in ("cpu", "cpu", "cpu", "tenant-abc/l4", "a100-80gb"):
            await api.reply("POST", operation_path("encode", MODEL), body=body, headers={MACHINE_PROFILE: profile})
        await asyncio.sleep(1.5)  # the workers' next heartbeat tells what they have loaded
        return await look(api, time.time())


def main() -> None:
    """Run the cluster, draw, and end it."""
    sie = str(Path(sys.executable).with_name("sie"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cluster.yaml"
        file.write_text(CLUSTER)
        subprocess.run([sie, "up", "--detach", "--file", str(file)], check=True)
        try:
            snapshot = asyncio.run(real_frame())
        finally:
            subprocess.run([sie, "down"], check=True)
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(frame(snapshot))
    console.save_svg(str(PICTURE), title="sie top", unique_id="sie-top")


if __name__ == "__main__":
    main()
