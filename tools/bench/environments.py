"""Other projects' servers, each in an environment of its own under the user's cache folder; installed once."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path


def installed(name: str, python: str, requirements: Sequence[str]) -> Path:
    """The folder of the commands of these packages; installs them when they are not there.

    Raises:
        SystemExit: this Python is missing.
        CalledProcessError: the installation failed.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "sie-bench", name.replace(" ", "-"))
    done = cache / "complete"
    if done.exists():
        return cache / "bin"
    found = shutil.which(python)
    if found is None:
        raise SystemExit(f"{name} needs {python}, which is not on PATH; leave it out with --only")
    print(f"installing {name} into {cache} (minutes, once) ...", flush=True)
    shutil.rmtree(cache, ignore_errors=True)
    subprocess.run([found, "-m", "venv", cache], check=True)
    subprocess.run([cache / "bin" / "pip", "install", "--quiet", *requirements], check=True)
    done.touch()
    return cache / "bin"
