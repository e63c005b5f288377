"""Run a command on a machine of its own: `inside.py COMMAND ARGUMENT...`, as root, on Linux.

Private network, mounts and processes: a kubelet, a container runtime and a service proxy change routes, kernel
settings, /var and /run of the machine they run on, and leave containers behind when they are killed. Here they do all
that to something that ends with the command. What outlives it are control groups; they are removed. Each machine has
control groups of its own, in SIE_LAB_GROUP: a kubelet ends what it finds in its groups and does not know.
"""

import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

ADDRESS: Final = "10.210.0.2"
NAMESPACES: Final = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
CONTROL_GROUPS: Final = Path("/sys/fs/cgroup")
SHARED_GROUPS: Final = ("kubepods", "k8s.io")  # what kubelet and containerd make by themselves
CONTROLLERS: Final = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids")  # of version 2, as a kubelet wants them
CPUSET: Final = ("cpuset.cpus", "cpuset.mems")  # empty in a new group of version 1, and then nothing may run in it
# A kubelet insists on these, and writes them where they differ: for the whole machine, whatever the namespace.
KERNEL: Final = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
NETWORK: Final = (
    "ip link set lo up",
    "ip link add eth0 type veth peer name eth0-peer",
    f"ip address add {ADDRESS}/24 dev eth0",
    "ip link set eth0-peer up",
    "ip link set eth0 up",
    "ip route add default via 10.210.0.1 dev eth0",
)
FORWARDING: Final = Path("/proc/sys/net/ipv4/ip_forward")


def run(command: list[str]) -> int:
    """Run the command in new namespaces; its exit status."""
    if os.geteuid() != 0:
        sys.exit("a node needs root for its namespaces; run this with sudo")
    with tempfile.TemporaryDirectory(prefix="sie-lab-node-") as scratch:
        again = [sys.executable, __file__, "--prepared", scratch, *command]
        disk = Path(scratch) / "disk"  # a container runtime leaves mounts in it, which go with the namespaces
        disk.mkdir()
        command = [*NAMESPACES, "--propagation", "private", *again]
        group = Path(scratch).name
        make_group(CONTROL_GROUPS, group)
        environment = {**os.environ, "TMPDIR": str(disk), "SIE_LAB_GROUP": group}
        try:
            return subprocess.run(command, env=environment, check=False).returncode
        finally:
            _remove_groups(group)


def prepare(scratch: Path) -> None:
    """Make these namespaces look like a machine."""
    for line in NETWORK:
        subprocess.run(line.split(), check=True)
    FORWARDING.write_text("1")
    memory = scratch / "memory"
    memory.mkdir()
    _mount("-t", "tmpfs", "tmpfs", str(memory))
    for name in ("var", "run"):  # what is written there stays in memory
        upper, work = memory / name / "upper", memory / name / "work"
        upper.mkdir(parents=True)
        work.mkdir()
        _mount("-t", "overlay", "overlay", "-o", f"lowerdir=/{name},upperdir={upper},workdir={work}", f"/{name}")
    for name, value in KERNEL.items():
        shown = memory / name.replace("/", "-")
        shown.write_text(f"{value}\n")
        _mount("--bind", str(shown), f"/proc/sys/{name}")
    _mount("--make-rshared", "/")


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def make_group(root: Path, name: str) -> None:
    """A group in every hierarchy of version 1, or in the one of version 2, which may bound what a kubelet bounds."""
    if (root / "cgroup.controllers").exists():
        known = (root / "cgroup.controllers").read_text().split()
        try:
            (root / "cgroup.subtree_control").write_text(" ".join(f"+{each}" for each in CONTROLLERS if each in known))
        except OSError as error:
            sys.exit(f"{error}: {root} is not the machine's own group and has processes; move them into one below it")
        (root / name).mkdir()
        return
    for hierarchy in root.iterdir():
        if not (hierarchy / "cgroup.procs").exists():
            continue
        (hierarchy / name).mkdir()
        for setting in CPUSET:
            if (hierarchy / setting).exists():
                (hierarchy / name / setting).write_text((hierarchy / setting).read_text())


def _remove_groups(own: str) -> None:
    for name in (own, *SHARED_GROUPS):
        for top in (*CONTROL_GROUPS.glob(name), *CONTROL_GROUPS.glob(f"*/{name}")):
            for group in (*sorted((each for each in top.rglob("*") if each.is_dir()), reverse=True), top):
                with suppress(OSError):  # somebody else's, and in use
                    group.rmdir()


if __name__ == "__main__":
    if sys.argv[1] == "--prepared":
        prepare(Path(sys.argv[2]))
        os.execvp(sys.argv[3], sys.argv[3:])  # noqa: S606 - no shell is wanted
    sys.exit(run(sys.argv[1:]))
