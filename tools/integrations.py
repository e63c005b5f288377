"""Run tests/integrations in an environment of its own: the frameworks pin clients that our tests need newer."""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = "tests/integrations"
PACKAGES = (
    "langchain-openai>=1.0",
    "langchain-cohere>=0.5",
    "llama-index-embeddings-openai-like>=0.2",
    "llama-index-postprocessor-cohere-rerank>=0.7",
    "haystack-ai>=2.20",
    "cohere-haystack>=7",
    "pytest>=8.3",
)


def main() -> None:
    """Make the environment if its packages changed, then run the tests in it."""
    stamp = hashlib.sha256("\n".join(PACKAGES).encode()).hexdigest()[:12]
    folder = Path.home() / ".cache" / "sie-integrations" / stamp
    python = folder / "bin" / "python"
    if not (folder / "made").exists():
        print("Installing LangChain, LlamaIndex and Haystack; the first time takes a minute ...", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        (folder / "made").touch()
    server = Path(sys.executable).with_name("sie-server")
    command = [
        str(python),
        "-m",
        "pytest",
        "-q",
        "-c",
        os.devnull,
        f"--rootdir={TESTS}",
        f"--confcutdir={TESTS}",  # the repository's own conftest.py wants packages that are not here
        TESTS,
    ]
    environment = {**os.environ, "SIE_TEST_SERVER": str(server)}
    sys.exit(subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode)


if __name__ == "__main__":
    main()
