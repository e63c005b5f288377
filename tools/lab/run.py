"""`make lab`: a real Kubernetes API for the hands, until Ctrl-C; `--whole FILE`: all of `whole`, for `background`."""

import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from lab.binaries import BuildError
from lab.control_plane import kubernetes
from lab.daemon import DaemonError
from lab.programs import MissingError


def main() -> None:
    """Start it, say how to reach it, wait."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logs = Path(tempfile.mkdtemp(prefix="sie-lab-logs-"))
    print(f"logs: {logs}", flush=True)
    try:
        with suppress(KeyboardInterrupt):
            if sys.argv[1:2] == ["--whole"]:
                _run_whole(logs, Path(sys.argv[2]))
            else:
                _run_api(logs)
    except (BuildError, DaemonError, MissingError) as error:
        sys.exit(str(error))


def _run_api(logs: Path) -> None:
    with kubernetes(logs) as plane:
        print(f"export KUBECONFIG={plane.kubeconfig}", flush=True)
        signal.pause()


def _run_whole(logs: Path, told: Path) -> None:
    from lab.whole import whole  # noqa: PLC0415 - torch's neighbours: nothing that a mere API should wait for

    with whole(logs) as state:
        partial = told.with_suffix(".partial")
        partial.write_text(str(state))
        partial.replace(told)
        signal.pause()


if __name__ == "__main__":
    main()
