"""Run the published SDKs against a cluster of this source: every call that their documentation shows.

They need Python 3.12: `python3.12`, or one of pyenv's; `compat.py PYTHON` names another. Wheels come from PyPI, once.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from local_cluster import LocalCluster, local_cluster

VERSIONS: Final = ("0.1.10", "0.10.1")
ROOT: Final = Path(__file__).parents[1]
CALLS: Final = ROOT / "tests/compat/calls.py"
VENVS: Final = ROOT / ".venv/compat"
CLUSTER: Final = """
router: {retryAfterSeconds: 1}
workers: {pools: {l4: {minReplicas: 0, maxReplicas: 2}}}
autoscaling: {pollingInterval: 1, syncPeriod: 1, cooldownPeriod: 600, scaleDownStabilization: 600}
"""


def python312() -> str:
    """An interpreter that works. pyenv's `python3.12` is there for every version that it has, and runs for one."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = ["python3.12", *map(str, sorted(pyenv.glob("versions/3.12*/bin/python")))]
    for candidate in candidates:
        try:
            subprocess.run([candidate, "-c", ""], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return candidate
    sys.exit("the published SDKs need Python 3.12; install it, or name it: make test-compat PYTHON312=/path/to/python")


def installed(python: str, version: str) -> Path:
    """The interpreter of an environment with one published SDK."""
    folder = VENVS / version
    interpreter = folder / "bin" / "python"
    if not (folder / "ready").exists():
        subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True)
        wanted = [f"sie-sdk=={version}", "websockets"]
        subprocess.run([str(interpreter), "-m", "pip", "install", "--quiet", *wanted], check=True)
        (folder / "ready").touch()
    return interpreter


def check(interpreter: Path, version: str, cluster: LocalCluster) -> bool:
    """Run the calls of one published SDK; they print what they find."""
    print(f"sie-sdk {version}", flush=True)
    return subprocess.run([str(interpreter), "-I", str(CALLS), cluster.url], check=False).returncode == 0


def main(python: str) -> int:
    """Check every version, each against a cluster of its own that starts at zero; returns the exit status."""
    done = []
    for version in VERSIONS:
        interpreter = installed(python, version)
        with tempfile.TemporaryDirectory() as folder, local_cluster(Path(folder), CLUSTER) as cluster:
            done.append(check(interpreter, version, cluster))
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if sys.argv[1:] else python312()))
