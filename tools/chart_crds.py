"""Kinds that others define, without their descriptions: `chart_crds.py FILE... FOLDER` writes copies into the folder.

KEDA's are part of the chart (charts/keda-crds); those of the Prometheus operator and of the Gateway API let tests ask a
real API server about our objects (tests/deploy/kinds). The files come from the projects' Go modules:
`go mod download -json MODULE@VERSION` says where. Descriptions are nine tenths of the text, and only `kubectl explain`
reads them.
"""

import sys
from pathlib import Path
from typing import Any

import yaml


def plain(schema: Any) -> Any:
    """The same without descriptions; a property that is called so stays, because it is a mapping."""
    if isinstance(schema, list):
        return [plain(each) for each in schema]
    if isinstance(schema, dict):
        return {key: plain(each) for key, each in schema.items() if key != "description" or isinstance(each, dict)}
    return schema


if __name__ == "__main__":
    *sources, target = map(Path, sys.argv[1:])
    for source in sources:
        text = yaml.safe_dump(plain(yaml.safe_load(source.read_text())), sort_keys=False, width=120)
        (target / source.name).write_text(f"# By tools/chart_crds.py; the original is under Apache-2.0.\n{text}")
