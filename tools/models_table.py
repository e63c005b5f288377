"""The table of models in docs/models.md: `models_table.py` writes it from the catalogue, `--check` compares."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from sie_protocol.catalog import DEFAULT_PROFILE, ModelConfig, decode_model

ROOT: Final = Path(__file__).resolve().parent.parent
CATALOGUE: Final = ROOT / "packages/server/src/sie_server/catalog/models"
PAGE: Final = ROOT / "docs/models.md"
START, END = "<!-- models: written by tools/models_table.py -->\n", "<!-- end of models -->\n"


def table(models: Iterable[ModelConfig]) -> str:
    """One row a model, by adapter and id."""
    rows = sorted(models, key=lambda model: (model.profiles[DEFAULT_PROFILE].adapter, model.sie_id.lower()))
    lines = ["| model | adapter | outputs and their components | longest input |", "|---|---|---|---|"]
    for model in rows:
        outputs = ", ".join(f"{name} {model.dims[name]}" if name in model.dims else name for name in model.outputs)
        adapter = model.profiles[DEFAULT_PROFILE].adapter
        lines.append(f"| `{model.sie_id}` | {adapter} | {outputs} | {model.max_sequence_length or 'its own'} |")
    return "\n".join(lines) + "\n"


def page(text: str, models: Iterable[ModelConfig]) -> str:
    """The page with its table renewed.

    Raises:
        ValueError: the page has no place for it.
    """
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f"the page lacks {START.strip()} or {END.strip()}")
    return before + start + table(models) + end + after


def main(arguments: Sequence[str]) -> int:
    """Write or compare; 1 when they differ."""
    own = PAGE.read_text()
    wanted = page(own, [decode_model(file.read_bytes()) for file in CATALOGUE.glob("*.yaml")])
    if "--check" not in arguments:
        PAGE.write_text(wanted)
    elif own != wanted:
        print("docs/models.md is not the catalogue's; run tools/models_table.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
