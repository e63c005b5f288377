"""The chart as helm renders it. The charts it depends on are not here: empty ones of the same names stand in."""

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from lab.binaries import built

SOURCE: Final = Path(__file__).resolve().parents[2] / "deploy/helm/sie-cluster"
NAMESPACE: Final = "sie"
STAND_INS: Final = {"keda": "2.21.0", "kube-prometheus-stack": "67.11.0", "dcgm-exporter": "3.6.1"}
DOWNLOADED: Final = shutil.ignore_patterns("*.tgz", "Chart.lock")  # by `helm dependency update`
Object = dict[str, Any]
Values = Mapping[str, Any]


class HelmError(RuntimeError):
    """Helm refused; the message is what it said."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A copy of the chart that helm accepts without a network, and a folder for values files."""

    folder: Path
    scratch: Path

    def helm(self, *arguments: str) -> str:
        """What helm prints.

        Raises:
            HelmError: it refuses.
        """
        command = [str(built("helm")), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.folder)
        if done.returncode != 0:
            raise HelmError(done.stderr)
        return done.stdout

    def render(self, values: Values | None = None, *arguments: str, release: str = "sie") -> list[Object]:
        """The objects of `helm template` with these values over the chart's own.

        Raises:
            HelmError: it refuses.
        """
        file = self.scratch / "values.json"
        file.write_text(json.dumps(dict(values or {})))
        common = ("template", release, str(self.folder), "-n", NAMESPACE, "-f", str(file))
        return [item for item in yaml.safe_load_all(self.helm(*common, *arguments)) if item]


def prepared(folder: Path, parts: Path | None = None) -> Chart:
    """A chart ready to render, below this folder; of the charts it depends on, those in `parts` are real."""
    copy, scratch = folder / "sie-cluster", folder / "values"
    shutil.copytree(SOURCE, copy, ignore=DOWNLOADED)
    scratch.mkdir()
    for name, version in STAND_INS.items():
        if parts is not None and (parts / name).is_dir():
            shutil.copytree(parts / name, copy / "charts" / name)
            continue
        (copy / "charts" / name).mkdir()
        stand_in = {"apiVersion": "v2", "name": name, "version": version}
        (copy / "charts" / name / "Chart.yaml").write_text(yaml.safe_dump(stand_in))
    return Chart(copy, scratch)


def only(objects: Sequence[Object], kind: str, name: str = "") -> Object:
    """The one object of this kind (and name)."""
    found = [each for each in objects if each["kind"] == kind and name in {"", each["metadata"]["name"]}]
    assert len(found) == 1, f"{len(found)} objects are {kind} {name}: {[each['metadata']['name'] for each in found]}"
    return found[0]


def pod_spec(item: Object) -> Object:
    """The spec of the pods that a workload makes, or of a pod."""
    spec: Object = item["spec"] if item["kind"] == "Pod" else item["spec"]["template"]["spec"]
    return spec


def container(item: Object) -> Object:
    """The one container of a workload's pods."""
    (found,) = pod_spec(item)["containers"]
    return dict(found)


def environment(item: Object) -> dict[str, Any]:
    """Variables of a workload's container: the value, or where it comes from."""
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container(item)["env"]}


def overlay(*names: str) -> tuple[str, ...]:
    """Arguments that put values files of the chart first."""
    return tuple(part for name in names for part in ("-f", str(SOURCE / name)))
