"""Programs that tests need, compiled from the Go module proxy: `binaries.py helm etcd` builds what is missing.

Versions are pinned by the go.mod and go.sum beside the module's name in `go/`. A binary is built once for each machine
and version, and kept outside the clone: in SIE_LAB_CACHE, or else in the user's cache folder. Needs only Python's
standard library, Go, and for the first build the network.
"""

import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MODULES: Final = Path(__file__).resolve().parent / "go"
GO_SERIES: Final = "go1.26."  # 1.27's JSON breaks /openapi/v2, so kubectl apply and CRD validation fail
GO_TOOLCHAIN: Final = "go1.26.8"  # what any other Go fetches for itself, as a module
BUILD: Final = ("build", "-v", "-buildvcs=false", "-trimpath", "-p", "2")  # -p 2: 2 GB of memory at most
REPORT_EVERY_S: Final = 30.0
KEPT_LINES: Final = 40  # of the compiler's output, shown when it fails


class BuildError(RuntimeError):
    """A binary is not there and cannot be built; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Tool:
    """One program: the package that holds its main function, the module that gives its version, our folder in `go/`.

    No module: it is ours, and needs no version to be told from another.
    """

    name: str
    package: str
    module: str
    folder: str

    @property
    def definition(self) -> Path:
        """The go.mod that pins it."""
        return MODULES / self.folder / "go.mod"

    @property
    def version(self) -> str:
        """The pinned version, for example v1.36.2."""
        if not self.module:
            return "v0.0"
        found = re.search(
            rf"^\s*(?:require )?{re.escape(self.module)} (v\S+)", self.definition.read_text(), re.MULTILINE
        )
        if found is None:
            raise BuildError(f"{self.definition} requires no version of {self.module}")
        return found[1]

    @property
    def linker_flags(self) -> str:
        """No debug tables, and the version that the program reports."""
        major, minor = self.version.removeprefix("v").split(".")[:2]
        stamp = {"gitVersion": self.version, "gitMajor": major, "gitMinor": minor}
        return " ".join(["-s -w", *(f"-X k8s.io/component-base/version.{key}={value}" for key, value in stamp.items())])

    @property
    def path(self) -> Path:
        """Where the binary lies once built: the name says everything that decides its bytes."""
        sources = sorted(self.definition.parent.iterdir())  # go.mod, go.sum, and for our own programs the code
        decides = b"\0".join(
            (*(file.read_bytes() for file in sources), " ".join(BUILD).encode(), self.linker_flags.encode())
        )
        machine = f"{sys.platform}-{platform.machine()}"
        return cache_folder() / f"{self.name}-{self.version}-{machine}-{hashlib.sha256(decides).hexdigest()[:12]}"


def _kubernetes(name: str) -> Tool:
    return Tool(name, f"k8s.io/kubernetes/cmd/{name}", "k8s.io/kubernetes", "kubernetes")


KUBERNETES: Final = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
KEDA: Final = "github.com/kedacore/keda/v2"
OAUTH2_PROXY: Final = "github.com/oauth2-proxy/oauth2-proxy/v7"
TOOLS: Final = {
    "etcd": Tool("etcd", "go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/server/v3", "kubernetes"),
    **{name: _kubernetes(name) for name in KUBERNETES},
    "kubectl": Tool("kubectl", "k8s.io/kubernetes/cmd/kubectl", "k8s.io/kubernetes", "kubectl"),
    "helm": Tool("helm", "helm.sh/helm/v4/cmd/helm", "helm.sh/helm/v4", "helm"),
    **{
        name: Tool(name, f"{KEDA}/cmd/{name.removeprefix('keda-')}", KEDA, "keda")
        for name in ("keda-operator", "keda-adapter")
    },
    "oauth2-proxy": Tool("oauth2-proxy", OAUTH2_PROXY, OAUTH2_PROXY, "oauth2proxy"),
    "pause": Tool("pause", ".", "", "pause"),
    "terraform-provider-schema": Tool("terraform-provider-schema", ".", "", "schemaprovider"),
    "tofu": Tool("tofu", "github.com/opentofu/opentofu/cmd/tofu", "github.com/opentofu/opentofu", "opentofu"),
}
CLUSTER: Final = ("etcd", *KUBERNETES, "helm", "pause")  # what is built when nobody names anything


def cache_folder() -> Path:
    """SIE_LAB_CACHE, or `sie-lab` in the user's cache folder."""
    own = os.environ.get("SIE_LAB_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sie-lab"


def built(name: str) -> Path:
    """The binary of this tool.

    Raises:
        BuildError: it has not been built on this machine.
    """
    path = TOOLS[name].path
    if not path.exists():
        raise BuildError(f"{name} is not built: there is no {path}; run `python3 tools/lab/binaries.py {name}`")
    return path


def build(names: Iterable[str]) -> None:
    """Build what is missing, one after the other; a second process that wants the same waits.

    Raises:
        BuildError: there is no Go, no network, or the compiler refuses.
    """
    for name in names:
        tool = TOOLS[name]
        if tool.path.exists():
            continue
        tool.path.parent.mkdir(parents=True, exist_ok=True)
        with alone(cache_folder() / f"{name}.lock"):
            if not tool.path.exists():
                _compile(tool, _go_environment())


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Hold a lock file; the kernel frees it however this process ends."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another process builds {lock.stem}; waiting for it ...", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _go_environment() -> dict[str, str]:
    """The environment to call Go in, with the right Go series chosen.

    Raises:
        BuildError: there is no Go.
    """
    search = os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/go/bin"))  # where go.dev's archive unpacks
    if shutil.which("go", path=search) is None:
        raise BuildError(
            f"this is built from source and there is no Go; install {GO_TOOLCHAIN} from https://go.dev/dl "
            "(any Go from 1.21 on will do, it fetches that one itself)"
        )
    environment = {**os.environ, "PATH": search, "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}
    said = subprocess.run(
        ["go", "env", "GOVERSION"],
        env={**environment, "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
        check=True,
    )
    own = said.stdout.startswith(GO_SERIES)
    return {**environment, "GOTOOLCHAIN": "local" if own else GO_TOOLCHAIN}


def _compile(tool: Tool, environment: dict[str, str]) -> None:
    """Compile into a file beside the target, then rename: the target is whole or absent."""
    began, partial = time.monotonic(), tool.path.with_name(f"{tool.path.name}.partial")
    print(f"building {tool.name} {tool.version}; from nothing that takes minutes ...", flush=True)
    command = ["go", *BUILD, "-ldflags", tool.linker_flags, "-o", str(partial), tool.package]
    said: deque[str] = deque(maxlen=KEPT_LINES)
    with subprocess.Popen(
        command, cwd=tool.definition.parent, env=environment, stderr=subprocess.PIPE, text=True
    ) as compiler:
        reported = began
        for packages, line in enumerate(compiler.stderr or (), 1):
            said.append(line)
            if (now := time.monotonic()) - reported > REPORT_EVERY_S:
                reported = now
                print(f"  {packages} packages after {now - began:.0f} s", flush=True)
    if compiler.returncode != 0:
        partial.unlink(missing_ok=True)
        raise BuildError(
            f"{' '.join(command)} failed in {tool.definition.parent}:\n{''.join(said)}"
            "If modules could not be fetched, give this machine a Go module proxy (GOPROXY), or copy the binary to "
            f"{tool.path}"
        )
    partial.replace(tool.path)
    size = tool.path.stat().st_size / 1e6
    print(f"built {tool.path} in {time.monotonic() - began:.0f} s, {size:.0f} MB", flush=True)


if __name__ == "__main__":
    if unknown := [name for name in sys.argv[1:] if name not in TOOLS]:
        sys.exit(f"{', '.join(unknown)}: no such tool; there are: {', '.join(TOOLS)}")
    try:
        build(sys.argv[1:] or CLUSTER)
    except BuildError as error:
        sys.exit(str(error))
