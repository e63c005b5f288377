"""The harness itself: what the other tests of this folder take for granted about the API they get."""

from pathlib import Path

import pytest

from lab import control_plane
from lab.api import Refused
from lab.control_plane import Kubernetes


def configmaps(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps"


def configmap(name: str, **data: str) -> dict[str, object]:
    return {"metadata": {"name": name}, "data": data}


def test_a_watch_sees_what_is_written(kubernetes: Kubernetes, namespace: str) -> None:
    api, path = kubernetes.admin, configmaps(namespace)
    before = api.get(path)
    with api.watch(path, before["metadata"]["resourceVersion"]) as events:
        api.create(path, configmap("one", colour="red"))
        api.patch(f"{path}/one", {"data": {"colour": "blue"}})
        api.delete(f"{path}/one")
        seen = [next(events) for _ in range(3)]
    assert [event["type"] for event in seen] == ["ADDED", "MODIFIED", "DELETED"]
    assert [event["object"]["data"]["colour"] for event in seen] == ["red", "blue", "blue"]


def test_a_service_account_may_do_what_its_role_says_and_nothing_else(kubernetes: Kubernetes, namespace: str) -> None:
    account, path = kubernetes.service_account(namespace, "reader"), configmaps(namespace)
    with pytest.raises(Refused) as refused:
        account.api.get(path)
    assert refused.value.code == 403

    kubernetes.bind(account, [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}])
    kubernetes.admin.create(path, configmap("one"))
    assert [item["metadata"]["name"] for item in account.api.get(path)["items"]] == ["one"]
    with pytest.raises(Refused) as refused:
        account.api.create(path, configmap("two"))
    assert refused.value.code == 403


def test_a_stranger_is_refused(kubernetes: Kubernetes, namespace: str) -> None:
    with pytest.raises(Refused) as refused:
        kubernetes.client(token="not a token").get(configmaps(namespace))  # noqa: S106 - the point of the test
    assert refused.value.code == 401


@pytest.mark.parametrize("crash", [False, True])
def test_a_restarted_api_keeps_its_address_its_data_and_its_tokens(
    kubernetes: Kubernetes, namespace: str, *, crash: bool
) -> None:
    account, path = kubernetes.service_account(namespace, "reader"), configmaps(namespace)
    kubernetes.bind(account, [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}])
    kubernetes.admin.create(path, configmap("one", colour="red"))
    kubernetes.stop_api(crash=crash)
    kubernetes.start_api()
    assert account.api.get(f"{path}/one")["data"] == {"colour": "red"}


def test_a_watch_may_not_begin_before_a_restart_nor_a_list_before_a_compaction(
    kubernetes: Kubernetes, namespace: str
) -> None:
    api, path = kubernetes.admin, configmaps(namespace)
    old = api.create(path, configmap("one"))["metadata"]["resourceVersion"]
    api.create(path, configmap("two"))
    kubernetes.stop_api()  # with it goes its memory of recent events
    kubernetes.start_api()
    with pytest.raises(Refused) as refused, api.watch(path, old) as events:
        next(events)
    assert refused.value.code == 410

    then = {"resourceVersion": old, "resourceVersionMatch": "Exact"}
    assert [item["metadata"]["name"] for item in api.get(path, **then)["items"]] == ["one"]
    assert int(old) < kubernetes.etcd.compact()
    with pytest.raises(Refused) as refused:
        api.get(path, **then)
    assert refused.value.code == 410


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    with control_plane.kubernetes(tmp_path) as plane:
        folder = plane.kubeconfig.parent
        assert str(folder) in running_commands()
    assert not folder.exists()
    assert str(folder) not in running_commands()
    assert {file.name for file in tmp_path.iterdir()} == {"etcd.log", "kube-apiserver.log"}


def running_commands() -> str:
    """The command lines of all processes."""
    files = [entry / "cmdline" for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return "\n".join(file.read_bytes().replace(b"\0", b" ").decode() for file in files if file.exists())
