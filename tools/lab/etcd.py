"""The store behind a Kubernetes API: one etcd on loopback ports."""

from pathlib import Path

import httpx

from lab.binaries import built
from lab.daemon import Daemon
from sie_cli.ports import HOST, Ports


class Etcd:
    """A running store. Its owner stops the daemon."""

    def __init__(self, data: Path, logs: Path, ports: Ports) -> None:
        self.url, peer = (f"http://{HOST}:{ports.take()}" for _ in range(2))
        command = [
            str(built("etcd")),
            f"--data-dir={data / 'etcd'}",
            f"--listen-client-urls={self.url}",
            f"--advertise-client-urls={self.url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",  # it need not survive a power cut
        ]
        self.daemon = Daemon("etcd", command, logs / "etcd.log")

    def is_ready(self) -> bool:
        """True once it serves."""
        return httpx.get(f"{self.url}/health", trust_env=False).is_success

    def compact(self) -> int:
        """Forget all history up to now; the revision that is left, which is also the newest resourceVersion."""
        with httpx.Client(base_url=self.url, trust_env=False) as http:
            status = http.post("/v3/maintenance/status", json={}).raise_for_status().json()
            revision = int(status["header"]["revision"])
            http.post("/v3/kv/compaction", json={"revision": revision, "physical": True}).raise_for_status()
        return revision
