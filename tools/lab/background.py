"""A whole cluster in the background: `background.py up`, `down`, and `enter COMMAND...` for whatever shall see it.

As root. One for each clone; what is known about it lies in `.lab`.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from lab.binaries import built
from lab.images import ROOT

HERE: Final = Path(__file__).resolve().parent
FOLDER: Final = ROOT / ".lab"
KNOWN: Final = FOLDER / "up.json"  # pids and files of the one that runs
LOG: Final = FOLDER / "lab.log"
TOLD: Final = FOLDER / "told"  # where it says that it is ready
READY_WITHIN_S: Final = 300.0
GONE_WITHIN_S: Final = 60.0
LOOK_EVERY_S: Final = 0.1


def up() -> None:
    """Start one; returns when it is complete."""
    if KNOWN.exists():
        if _is_running(json.loads(KNOWN.read_text())["inside"]):
            sys.exit(f"a lab runs already; `make lab-down` ends it\n{_how_to_enter()}")
        KNOWN.unlink()
    FOLDER.mkdir(exist_ok=True)
    TOLD.unlink(missing_ok=True)
    began = time.monotonic()
    command = [sys.executable, str(HERE / "inside.py"), sys.executable, "-m", "lab.run", "--whole", str(TOLD)]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    with LOG.open("wb") as log:
        inside = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    while not TOLD.exists():
        if inside.poll() is not None or time.monotonic() - began > READY_WITHIN_S:
            inside.terminate()
            sys.exit(f"the lab does not come up:\n{LOG.read_text()[-4000:]}")
        time.sleep(LOOK_EVERY_S)
    first = _children(_children(inside.pid)[0])[0]  # inside.py, unshare, and the first process of the namespaces
    KNOWN.write_text(json.dumps({"inside": inside.pid, "first": first, "state": TOLD.read_text()}))
    print(f"ready after {time.monotonic() - began:.0f} s; logs: {LOG}\n{_how_to_enter()}")


def down() -> None:
    """End it, and all that it made."""
    if not KNOWN.exists():
        sys.exit("no lab runs")
    known = json.loads(KNOWN.read_text())
    for sent in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(known["first"], sent)
        deadline = time.monotonic() + GONE_WITHIN_S
        while _is_running(known["inside"]) and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY_S)
    KNOWN.unlink()


def enter(command: list[str]) -> None:
    """Become this command, inside: `tests/node` find the lab by themselves there."""
    if not KNOWN.exists():
        sys.exit("no lab runs; `make lab-up` starts one")
    known = json.loads(KNOWN.read_text())
    state = json.loads(Path(known["state"]).read_text())
    tools = FOLDER / "bin"
    tools.mkdir(exist_ok=True)
    for name in ("kubectl", "helm"):
        (tools / name).unlink(missing_ok=True)
        (tools / name).symlink_to(built(name))
    own = {"KUBECONFIG": state["kubeconfig"], "SIE_LAB": known["state"], "PATH": f"{tools}:{os.environ['PATH']}"}
    into = ["nsenter", "-t", str(known["first"]), "-m", "-n", "-p", f"--wd={Path.cwd()}", *command]
    os.execvpe(into[0], into, {**os.environ, **own})  # noqa: S606 - no shell is wanted


def _how_to_enter() -> str:
    return "enter it as root:\n  make lab-shell                            # kubectl and helm know the cluster there"


def _children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def _is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rsplit(")", 1)[1].split()[0] != "Z"


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["up"]:
            up()
        case ["down"]:
            down()
        case ["enter", *command] if command:
            enter(command)
        case _:
            sys.exit(__doc__)
