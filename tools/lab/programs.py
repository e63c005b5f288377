"""Programs of the distribution: where they are, or which package has them."""

import shutil
from typing import Final

PACKAGES: Final = {
    "containerd": "containerd",
    "runc": "runc",
    "nft": "nftables",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
    "apt-get": "apt",
    "prometheus": "prometheus",
    "nginx": "nginx",
}
NODE: Final = ("containerd", "runc", "nft", "iptables", "conntrack", "ip")
CLUSTER: Final = (*NODE, "prometheus")
IMAGES: Final = ("buildah", "mmdebstrap", "apt-get")


class MissingError(RuntimeError):
    """This machine lacks a program; the message says which package has it."""


def program(name: str) -> str:
    """The path of a program.

    Raises:
        MissingError: it is not installed.
    """
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")  # not in everybody's PATH
    if found is None:
        packages = " ".join(sorted({*PACKAGES.values(), "containernetworking-plugins"}))
        raise MissingError(f"{name} is not installed; on Debian, for all that the lab needs: apt install {packages}")
    return found
