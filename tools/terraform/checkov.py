"""Checkov in an environment of its own, under the user's cache folder: it pins what our tests need newer."""

import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

VERSION: Final = "3.3.30"  # a newer one may know rules that nobody has answered yet


def installed() -> Path:
    """The Python that has Checkov; installs it when it is not there.

    Raises:
        CalledProcessError: the installation failed.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sie-checkov" / VERSION
    python = folder / "bin" / "python"
    if not (folder / "made").exists():
        print(f"installing Checkov {VERSION} into {folder}; the first time takes two minutes ...", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", f"checkov=={VERSION}"], check=True)
        (folder / "made").touch()
    return python


def scan(folder: Path) -> str:
    """What Checkov says of the Terraform files below this folder, as JSON.

    Raises:
        RuntimeError: it did not run to its end.
    """
    options = ["--framework", "terraform", "--output", "json", "--skip-download", "--soft-fail"]
    command = [str(installed()), "-m", "checkov.main", "--directory", str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"Checkov ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    print(scan(Path(sys.argv[1])))
