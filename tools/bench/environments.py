"""Other projects' servers, each in an environment of its own under the user's cache folder; installed once."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

# Where the common managers of interpreters keep them, below the user's home; `{}` is the version, as in 3.12.
PLACES: Final = (
    ".pyenv/versions/{}*/bin/python",
    ".local/share/uv/python/cpython-{}*/bin/python",
    ".local/share/mise/installs/python/{}*/bin/python",
    ".asdf/installs/python/{}*/bin/python",
)
CHECK: Final = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"


def interpreter(version: str, env: Mapping[str, str], home: Path) -> Path | None:
    """A Python of this version that can make an environment: of PATH, else of a manager of interpreters.

    Each is asked, because a manager's command on PATH may be there and refuse to run.
    """
    return next((found for found in _candidates(version, env, home) if _is(found, version)), None)


def _candidates(version: str, env: Mapping[str, str], home: Path) -> Iterator[Path]:
    on_path = shutil.which(f"python{version}", path=env.get("PATH", ""))
    if on_path is not None:
        yield Path(on_path)
    places = [(home, place) for place in PLACES]
    if "PYENV_ROOT" in env:
        places.insert(0, (Path(env["PYENV_ROOT"]), "versions/{}*/bin/python"))
    for root, place in places:
        yield from sorted(root.glob(place.format(version)), reverse=True)


def _is(python: Path, version: str) -> bool:
    try:
        asked = subprocess.run([python, "-c", CHECK], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return asked.stdout.strip() == version


def installed(name: str, version: str, requirements: Sequence[str]) -> Path:
    """The folder of the commands of these packages; installs them when they are not there, for this Python.

    Raises:
        SystemExit: this Python is missing.
        CalledProcessError: the installation failed.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "sie-bench", name.replace(" ", "-"))
    done = cache / "complete"
    if done.exists():
        return cache / "bin"
    found = interpreter(version, os.environ, Path.home())
    if found is None:
        raise SystemExit(
            f"{name} needs Python {version} with its venv module; none is on PATH or where pyenv, uv, mise and asdf "
            f"keep theirs. Install one (`uv python install {version}`, or on Debian and Ubuntu "
            f"`apt install python{version}-venv` where they have it), or leave this server out with --only"
        )
    print(f"installing {name} into {cache} with {found} (minutes, once) ...", flush=True)
    shutil.rmtree(cache, ignore_errors=True)
    subprocess.run([found, "-m", "venv", cache], check=True)
    subprocess.run([cache / "bin" / "pip", "install", "--quiet", *requirements], check=True)
    done.touch()
    return cache / "bin"
