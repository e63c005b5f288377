"""Our own images, from our own Dockerfiles, without a registry: `images.py` builds what is missing.

The base is a Debian with Python that mmdebstrap makes; packages are downloaded by this machine's pip, with whatever
index and certificates it is set to, and installed in the build without a network. Everything is kept beside the
binaries, named by a hash of what goes in, so only changed sources build again. As root, on Debian.
"""

import hashlib
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from lab.binaries import BuildError, alone, cache_folder
from lab.programs import IMAGES as NEEDED
from lab.programs import MissingError, program

ROOT: Final = Path(__file__).resolve().parents[2]
DOCKER: Final = ROOT / "deploy/docker"
BASE: Final = "localhost/sie-lab-base:1"
CODENAME: Final = "bookworm"
PYTHON: Final = "3.11"  # of this Debian
BASE_PACKAGES: Final = "python3,python3-venv,ca-certificates"
BASE_DOCKERFILE: Final = "FROM scratch\nADD base.tar /\nCOPY pip.conf /etc/pip.conf\n"
PIP_CONF: Final = "[global]\nno-index = true\nfind-links = /wheels\ndisable-pip-version-check = true\n"
UNUSED: Final = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")
BUILD_BACKEND: Final = "hatchling"
INSTALLED: Final = re.compile(r"\./(packages/\w+)(?:\[([\w,]*)\])?")  # of our packages, with extras, in a Dockerfile
KEPT: Final = 2  # of the archives of one image: this one, and that of the branch beside it


@dataclass(frozen=True, slots=True)
class Image:
    """One image: its Dockerfile, and the folders that it copies from."""

    name: str
    suffix: str
    dockerfile: str
    sources: tuple[str, ...]
    arguments: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        """NAME:TAG as the chart renders it."""
        return f"{self.name}:{chart_version()}{self.suffix}"

    def requirements(self) -> list[str]:
        """What pip has to bring for it, besides our own packages."""
        wanted = [BUILD_BACKEND]
        for folder, extras in INSTALLED.findall((DOCKER / self.dockerfile).read_text()):
            project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
            lists = [project["dependencies"]]
            lists += [project["optional-dependencies"][each] for each in extras.split(",") if each]
            wanted += [each for some in lists for each in some if not each.startswith("sie-")]
        return sorted(set(wanted))

    @property
    def archive(self) -> Path:
        """The docker archive, once built."""
        files = [DOCKER / self.dockerfile, ROOT / "constraints.txt", ROOT / ".dockerignore", Path(__file__)]
        for folder in self.sources:
            files += sorted(each for each in (ROOT / folder).rglob("*") if _is_source(each))
        digest = hashlib.sha256(self.reference.encode())
        for file in files:
            digest.update(f"\0{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
        return _folder() / f"{self.name}-{digest.hexdigest()[:12]}.tar"


ROUTER: Final = Image(
    "sie-router",
    "",
    "router.Dockerfile",
    ("packages/protocol", "packages/router", "packages/server/src/sie_server/catalog"),
)
WORKER: Final = Image(
    "sie-server",
    "-cpu-default",
    "worker.Dockerfile",
    ("packages/protocol", "packages/server"),
    ("--target", "cpu", "--build-arg", "TARGET=cpu", "--build-arg", "TORCH_CPU_FROM=--no-index"),
)
IMAGES: Final = (ROUTER, WORKER)


def chart_version() -> str:
    """The tag of the images that the chart asks for."""
    text = (ROOT / "deploy/helm/sie-cluster/Chart.yaml").read_text()
    (line,) = (each for each in text.splitlines() if each.startswith("appVersion:"))
    return line.split()[1]


def built_image(image: Image) -> Path:
    """The archive of this image.

    Raises:
        BuildError: it has not been built on this machine since its sources changed.
    """
    if not image.archive.exists():
        raise BuildError(f"{image.reference} is not built: there is no {image.archive}; run `make lab-images`")
    return image.archive


def build_images(images: Iterable[Image] = IMAGES) -> None:
    """Build what is missing; a second process that wants the same waits.

    Raises:
        BuildError: a step fails.
        MissingError: this machine lacks a program.
    """
    missing = [image for image in images if not image.archive.exists()]
    if not missing:
        return
    for name in NEEDED:
        program(name)
    _folder().mkdir(parents=True, exist_ok=True)
    with alone(_folder() / "images.lock"):
        for image in missing:
            if not image.archive.exists():
                _build(image)


def _build(image: Image) -> None:
    with _timed(f"the base {BASE}"):
        _make_base()
    wheels = _folder() / f"wheels-{image.name}"
    with _timed(f"the packages of {image.reference}"):
        _download(image, wheels)
    partial = image.archive.with_suffix(".partial")
    with _timed(image.reference):
        command = ["build", "--isolation", "chroot", "--pull-never", "--volume", f"{wheels}:/wheels:ro"]
        command += ["--build-arg", f"PYTHON_IMAGE={BASE}", *image.arguments, "-f", str(DOCKER / image.dockerfile)]
        _buildah(*command, "-t", image.reference, str(ROOT))
        partial.unlink(missing_ok=True)
        _buildah("push", image.reference, f"docker-archive:{partial}:{image.reference}")
        partial.replace(image.archive)
        _buildah("rmi", image.reference)  # what is built again is built whole: layers of torch would fill the disk
    print(f"built {image.archive}, {image.archive.stat().st_size / 1e6:.0f} MB", flush=True)
    others = sorted(_folder().glob(f"{image.name}-*.tar"), key=lambda each: each.stat().st_mtime, reverse=True)
    for old in others[KEPT:]:
        old.unlink()


def _make_base() -> None:
    """A root file system in one layer, from the package sources that this machine's apt uses."""
    decides = "\0".join((CODENAME, BASE_PACKAGES, BASE_DOCKERFILE, PIP_CONF, *UNUSED))
    stamp = _folder() / f"base-{hashlib.sha256(decides.encode()).hexdigest()[:12]}"
    if stamp.exists() and _has_image(BASE):
        return
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "pip.conf").write_text(PIP_CONF)
        (folder / "Dockerfile").write_text(BASE_DOCKERFILE)
        (folder / "sources.list").write_text(_package_sources())
        without = [f"--dpkgopt=path-exclude={each}" for each in UNUSED]
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={BASE_PACKAGES}", *without]
        command += ['--aptopt=Acquire::Languages "none"', CODENAME, f"{folder}/base.tar", f"{folder}/sources.list"]
        _run(command)
        _buildah("build", "--isolation", "chroot", "-t", BASE, str(folder))
    stamp.touch()


def _package_sources() -> str:
    command = ["apt-get", "indextargets", "--format", "deb $(SITE) $(CODENAME) $(COMPONENT)", "Identifier: Packages"]
    lines = {each for each in _run(command).splitlines() if f" {CODENAME}" in each}
    if not lines:
        raise BuildError(f"apt on this machine knows no Debian {CODENAME}, on which the images stand")
    return "\n".join(sorted(lines)) + "\n"


def _download(image: Image, wheels: Path) -> None:
    """All that the Dockerfile installs, as files; what is there from an earlier build is not fetched again."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "-d", str(wheels)]
    command += ["--only-binary=:all:", "--python-version", PYTHON, "--find-links", str(wheels)]
    _run([*command, "-c", str(ROOT / "constraints.txt"), *image.requirements()])


def _has_image(reference: str) -> bool:
    return bool(_buildah("images", "--quiet", "--filter", f"reference={reference}").strip())


def _buildah(*arguments: str) -> str:
    store = _folder() / "store"
    return _run(["buildah", "--root", str(store), "--runroot", str(store / "run"), *arguments])


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


def _folder() -> Path:
    return cache_folder() / "images"


def _is_source(path: Path) -> bool:
    """As .dockerignore says."""
    parts = path.relative_to(ROOT).parts
    return path.is_file() and not {"tests", "__pycache__"} & set(parts) and ".egg-info" not in "/".join(parts)


@contextmanager
def _timed(what: str) -> Iterator[None]:
    began = time.monotonic()
    print(f"building {what} ...", flush=True)
    yield
    print(f"  {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    try:
        build_images()
    except (BuildError, MissingError) as error:
        sys.exit(str(error))
