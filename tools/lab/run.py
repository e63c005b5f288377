"""`make lab`: a real Kubernetes API for the hands, until Ctrl-C."""

import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from lab.binaries import BuildError
from lab.control_plane import kubernetes
from lab.daemon import DaemonError


def main() -> None:
    """Start it, say how to reach it, wait."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logs = Path(tempfile.mkdtemp(prefix="sie-lab-logs-"))
    print(f"logs: {logs}", flush=True)
    try:
        with suppress(KeyboardInterrupt), kubernetes(logs) as plane:
            print(f"export KUBECONFIG={plane.kubeconfig}", flush=True)
            signal.pause()
    except (BuildError, DaemonError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
