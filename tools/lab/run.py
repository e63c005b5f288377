"""`make lab`: a real Kubernetes API for the hands, until Ctrl-C; `make lab-node`: with a node that runs pods."""

import signal
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from lab.binaries import BuildError
from lab.control_plane import Kubernetes, kubernetes
from lab.daemon import DaemonError
from lab.node import MissingError, cluster


def main() -> None:
    """Start it, say how to reach it, wait."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logs = Path(tempfile.mkdtemp(prefix="sie-lab-logs-"))
    print(f"logs: {logs}", flush=True)
    try:
        with suppress(KeyboardInterrupt), _with_node(logs) if "--node" in sys.argv else kubernetes(logs) as plane:
            print(f"export KUBECONFIG={plane.kubeconfig}", flush=True)
            signal.pause()
    except (BuildError, DaemonError, MissingError) as error:
        sys.exit(str(error))


@contextmanager
def _with_node(logs: Path) -> Generator[Kubernetes]:
    with cluster(logs) as whole:
        print("in another shell, as root: nsenter -t $(pgrep -xo kubelet) -m -n -p bash", flush=True)
        yield whole.plane


if __name__ == "__main__":
    main()
