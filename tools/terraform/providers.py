"""The providers of our Terraform modules, found or made on this machine: `prepared(folder)` names a filesystem mirror.

A provider that lies in one of the usual local mirrors is used as it is. For any other we serve its real schema, read
from its published bindings (bindings.py), from a small program of our own (tools/lab/go/schemaprovider): that is all
that `terraform validate` and a mocked `terraform test` ask of it. What that proves: docs/decisions/0011-terraform.md.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lab import binaries
from terraform.bindings import Bindings

HOST: Final = "registry.terraform.io"
HOSTS: Final = (HOST, "registry.opentofu.org")  # the second is what OpenTofu makes of a source without a host
USUAL_MIRRORS: Final = (
    "~/.terraform.d/plugins",
    "~/.local/share/terraform/plugins",
    "/usr/local/share/terraform/plugins",
    "/usr/share/terraform/plugins",
    "/opt/*",
)
TYPE: Final = re.compile(r'^(resource|data) "(([a-z0-9]+)_\w+)"', re.MULTILINE)
PROGRAM: Final = "terraform-provider-schema"
MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64", "AMD64": "amd64"}


@dataclass(frozen=True, slots=True)
class Published:
    """Bindings of a provider: the package on PyPI, its version, and the provider's version they were made of."""

    package: str
    version: str
    provider: str


PUBLISHED: Final = {
    "aws": Published("cdktf-cdktf-provider-aws", "21.22.1", "6.25.0"),
    "google": Published("cdktf-cdktf-provider-google", "16.12.1", "6.50.0"),
    "helm": Published("cdktf-cdktf-provider-helm", "12.1.2", "3.1.1"),
}


class ProviderError(RuntimeError):
    """A provider is not there and cannot be made; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Needed:
    """What the modules use of one provider."""

    name: str
    resources: frozenset[str]
    data: frozenset[str]


def needed(modules: Path) -> list[Needed]:
    """The providers whose types the files below this folder name."""
    found: dict[str, dict[str, set[str]]] = {}
    for file in sorted(modules.rglob("*.tf")):
        for kind, name, provider in TYPE.findall(file.read_text()):
            found.setdefault(provider, {"resource": set(), "data": set()})[kind].add(name)
    found.pop("terraform", None)  # terraform_data is built in
    return [
        Needed(name, frozenset(kinds["resource"]), frozenset(kinds["data"])) for name, kinds in sorted(found.items())
    ]


def prepared(modules: Path, *, local: bool = True) -> Path:
    """A filesystem mirror with every provider that the modules need; what was made before is used again.

    Not `local`: what lies on this machine is not looked at, so all of them are schemas.

    Raises:
        ProviderError: there is no mirror, and no bindings to be had.
        BuildError: our program cannot be built.
    """
    packages = {}
    for one in needed(modules):
        found = next(_local(one.name), None) if local else None
        version = found.parent.name if found else PUBLISHED[one.name].provider
        packages[f"{one.name}/{version}"] = found or _schema_only(one)
    stamp = hashlib.sha256(repr(sorted(packages.items())).encode()).hexdigest()[:12]
    mirror = binaries.cache_folder() / "terraform" / f"mirror-{stamp}"
    for name, package in packages.items():
        for host in HOSTS:
            _link(package, mirror / host / "hashicorp" / name / _machine())
    return mirror


def _machine() -> str:
    return f"{sys.platform}_{MACHINES[platform.machine()]}"


def _local(name: str) -> Iterator[Path]:
    """The packages of a provider in this machine's mirrors, newest first."""
    home = Path.home()
    roots = [
        root
        for usual in USUAL_MIRRORS
        for root in (home.glob(usual[2:]) if usual.startswith("~/") else Path("/").glob(usual[1:]))
    ]
    packages = [
        package for root in roots for package in (root / HOST / "hashicorp" / name).glob(f"[0-9]*/{_machine()}")
    ]
    yield from sorted(packages, key=lambda package: _order(package.parent.name), reverse=True)


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _link(target: Path, link: Path) -> None:
    """Make the link, or make it point here; another process may do the same at the same time."""
    if link.is_symlink() and link.readlink() == target:
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    fresh = link.with_name(f"{link.name}.{os.getpid()}")
    fresh.symlink_to(target)
    fresh.replace(link)


def _schema_only(one: Needed) -> Path:
    """The package of a provider that has only the schema of these types."""
    if one.name not in PUBLISHED:
        raise ProviderError(
            f"there is no provider {one.name} in {', '.join(USUAL_MIRRORS)} (as {HOST}/hashicorp/{one.name}/VERSION/"
            f"{_machine()}/), and tools/terraform/providers.py names no bindings of it; add one or the other"
        )
    published = PUBLISHED[one.name]
    binaries.build([PROGRAM])
    program = binaries.built(PROGRAM)
    decides = (published, program.name, sorted(one.resources), sorted(one.data), _bytes_of_our_reader())
    stamp = hashlib.sha256(repr(decides).encode()).hexdigest()[:12]
    package = binaries.cache_folder() / "terraform" / f"{one.name}-{published.provider}-{stamp}"
    if package.exists():
        return package
    package.parent.mkdir(parents=True, exist_ok=True)
    schema = Bindings(_wheel(published)).schema(f"{HOST}/hashicorp/{one.name}", one.resources, one.data)
    with tempfile.TemporaryDirectory(dir=package.parent) as folder:
        whole = Path(folder) / "package"
        whole.mkdir()
        (whole / "schema.json").write_text(json.dumps(schema))
        shutil.copy2(program, whole / f"terraform-provider-{one.name}_v{published.provider}")
        if not package.exists():
            whole.rename(package)
    return package


def _bytes_of_our_reader() -> str:
    return hashlib.sha256(Path(__file__).with_name("bindings.py").read_bytes()).hexdigest()


def _wheel(published: Published) -> Path:
    """The bindings' wheel, fetched once."""
    folder = binaries.cache_folder() / "terraform" / "bindings"
    pattern = f"{published.package.replace('-', '_')}-{published.version}-*.whl"
    if not any(folder.glob(pattern)):
        print(f"fetching {published.package} {published.version} ...", flush=True)
        fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
        done = subprocess.run([*fetch, f"{published.package}=={published.version}"], check=False)
        if done.returncode != 0:
            raise ProviderError(
                f"pip cannot fetch {published.package}=={published.version}; give it a package index, or put the "
                f"provider into one of {', '.join(USUAL_MIRRORS)}"
            )
    return next(folder.glob(pattern))
