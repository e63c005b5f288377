"""`helm uninstall` leaves nothing behind that it could take along."""

from pathlib import Path
from typing import Final

import pytest

from deployed import ITEM, MODEL, POOL, Release
from lab.whole import Lab
from pages import Desk, Place, shell
from sie_sdk import SIEClient

COLUMNS: Final = "custom-columns=KIND:.kind,NAMESPACE:.metadata.namespace,NAME:.metadata.name"
# What every namespace has, and what KEDA's operator makes for itself.
OTHERS: Final = {
    "ConfigMap sie kube-root-ca.crt",
    "ServiceAccount sie default",
    "Secret sie kedaorg-certs",
    "Lease sie operator.keda.sh",
}


def everything(lab: Lab) -> set[str]:
    """Every object of the cluster but its news."""
    kinds = set(lab.kubectl("api-resources", "--verbs=list,delete", "-o", "name").split())
    wanted = ",".join(sorted(kind for kind in kinds if not kind.startswith("events")))
    said = lab.kubectl("get", wanted, "-A", "--ignore-not-found", "--no-headers", "-o", COLUMNS)
    return {" ".join(line.split()) for line in said.splitlines()}


@pytest.mark.timeout(900)
def test_nothing_is_left_of_a_release_that_was_used(lab: Lab, release: Release, tmp_path: Path) -> None:
    release.uninstall()
    release.wait_until(lambda: not any(each.startswith("Pod sie ") for each in everything(lab)))
    empty = everything(lab)
    assert {each for each in empty if each.split()[1] == "sie"} <= OTHERS
    release.upgrade()
    with SIEClient(release.url) as client:
        client.create_pool("tenant", {POOL: 1})
        client.encode(MODEL, ITEM, gpu=f"tenant/{POOL}", wait_for_capacity=True, provision_timeout_s=300)
    assert any("tenant" in each for each in everything(lab))
    (block,) = [each for each in shell("gcp", Place.PODS) if "helm uninstall" in each.text]
    Desk.at(tmp_path, lab.kubeconfig).run(block.text)
    release.wait_until(lambda: everything(lab) <= empty)
    release.upgrade()
