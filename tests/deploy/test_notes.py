"""What helm tells whoever installs or upgrades the chart."""

import json
from typing import Any

import pytest

from chart_render import NAMESPACE, Chart

OPEN = {"mode": "static", "tokenSecretName": "tokens", "exemptOperational": True}
A100 = {"a100-40gb": {"enabled": True}}
CASES: list[tuple[dict[str, Any], str, bool]] = [
    ({}, "every pool gets up to 2 workers, asked or not", True),
    ({"autoscaling": {"fallbackReplicas": 0}}, "no pool wakes up", True),
    ({"serviceMonitor": {"enabled": True}}, "scrapes the routers", False),
    ({}, "imageRegistry is empty", True),
    ({"imageRegistry": "registry.example.com"}, "imageRegistry is empty", False),
    ({"ingress": {"enabled": True}, "router": {"auth": OPEN}}, "anybody may read /health", True),
    (
        {"ingress": {"enabled": True}, "router": {"auth": {**OPEN, "exemptOperational": "metrics"}}},
        "/health, with",
        False,
    ),
    ({"ingress": {"enabled": True}}, "nobody is asked who they are", True),
    ({"workers": {"pools": A100}}, "pools l4 and a100-40gb choose the same nodes", True),
    ({"workers": {"pools": {**A100, "l4": {"nodeSelector": {"gpu": "l4"}}}}}, "choose the same nodes", False),
    ({"workers": {"common": {"gpuProductLabel": "product"}, "pools": A100}}, "choose the same nodes", False),
    ({"workers": {"pools": {**A100, "l4": {"gpuType": "a100-40gb"}}}}, "choose the same nodes", False),
    ({"workers": {"pools": {"cpu": {"enabled": True}}}}, "choose the same nodes", False),
]


@pytest.mark.parametrize(("values", "said", "is_said"), CASES)
def test_the_notes_warn_of_what_would_surprise_and_of_nothing_else(
    chart: Chart, values: dict[str, Any], said: str, is_said: bool
) -> None:
    file = chart.scratch / "notes.json"
    file.write_text(json.dumps(values))
    printed = chart.helm("install", "sie", str(chart.folder), "-n", NAMESPACE, "-f", str(file), "--dry-run=client")
    notes = printed.partition("\nNOTES:\n")[2]
    assert "runs as sie in namespace sie" in notes
    assert (said in notes) is is_said
    assert "  \n" not in notes
