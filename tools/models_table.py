"""The table in docs/models/catalogue.md: `models_table.py` writes it from the catalogue, `--check` compares."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from generated_table import Place
from sie_protocol.catalog import DEFAULT_PROFILE, ModelConfig, decode_model

ROOT: Final = Path(__file__).resolve().parent.parent
CATALOGUE: Final = ROOT / "packages/server/src/sie_server/catalog/models"
PLACE: Final = Place(
    ROOT / "docs/models/catalogue.md", "<!-- models: written by tools/models_table.py -->\n", "<!-- end of models -->\n"
)


def table(models: Iterable[ModelConfig]) -> str:
    """One row a model, by adapter and id."""
    rows = sorted(models, key=lambda model: (model.profiles[DEFAULT_PROFILE].adapter, model.sie_id.lower()))
    lines = ["| model | adapter | outputs and their components | longest input |", "|---|---|---|---|"]
    for model in rows:
        outputs = ", ".join(f"{name} {model.dims[name]}" if name in model.dims else name for name in model.outputs)
        adapter = model.profiles[DEFAULT_PROFILE].adapter
        lines.append(f"| `{model.sie_id}` | {adapter} | {outputs} | {model.max_sequence_length or 'its own'} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Write or compare; 1 when they differ."""
    models = [decode_model(file.read_bytes()) for file in CATALOGUE.glob("*.yaml")]
    complaint = "docs/models/catalogue.md is not the catalogue's; run tools/models_table.py"
    return PLACE.write_or_check(table(models), arguments, complaint)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
