"""The tables of variables and outputs: `terraform_docs.py` writes them from the modules' files, `--check` compares.

Each module's README.md has its own; docs/deployment/terraform.md has the variables of all modules side by side.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from generated_table import Place

ROOT: Final = Path(__file__).resolve().parent.parent
MODULES: Final = {"gcp": "Google", "aws": "Amazon"}
START: Final = "<!-- {} written by tools/terraform_docs.py -->\n"
END: Final = "<!-- end of {} -->\n"
BLOCK: Final = re.compile(r'^(variable|output) "(\w+)" \{\n(.*?)^\}', re.MULTILINE | re.DOTALL)
SETTING: Final = re.compile(r"^  (\w+) += ", re.MULTILINE)
HEREDOC: Final = re.compile(r"<<-(\w+)\n(.*?)^ *\1$", re.MULTILINE | re.DOTALL)
WIDEST: Final = 60  # a longer default is for the file; the table names only its kind
FILES: Final = ("variables", "variables_network", "variables_pools", "variables_sie", "variables_access")


@dataclass(frozen=True, slots=True)
class Entry:
    """A variable or an output, as its file has it."""

    name: str
    description: str
    type: str = ""
    default: str | None = None

    @property
    def shown_default(self) -> str:
        """The default as a cell."""
        if self.default is None:
            return "(required)"
        text = re.sub(r"\s+", " ", self.default)
        return f"`{text}`" if len(text) <= WIDEST else "see the file"


def module(name: str) -> Path:
    """The folder of a module."""
    return ROOT / "deploy" / "terraform" / name


def entries(folder: Path, kind: str) -> Iterator[Entry]:
    """The variables or outputs of a module, in the order of its files.

    Raises:
        ValueError: one has no description.
    """
    order = [folder / f"{name}.tf" for name in FILES]
    rest = sorted(set(folder.glob("*.tf")) - set(order))
    for file in [file for file in order if file.exists()] + rest:
        for found, name, body in BLOCK.findall(file.read_text()):
            if found != kind:
                continue
            description = _sentence(_setting(body, "description") or "")
            if not description:
                raise ValueError(f"{name} in {file} lacks a description")
            yield Entry(name, description, _setting(body, "type") or "", _setting(body, "default"))


def _setting(body: str, name: str) -> str | None:
    """The text of a setting, up to where the next begins."""
    places = [(found[1], found.end()) for found in SETTING.finditer(body)]
    for key, begin in places:
        if key == name:
            rest = body[begin:]
            after = re.search(r"\n(?:  \w+ += |  validation \{|\n)", rest)
            return (rest[: after.start()] if after else rest).strip()
    return None


def _sentence(text: str) -> str:
    """A description as one line of a table."""
    heredoc = HEREDOC.search(text)
    plain = heredoc[2] if heredoc else text.strip('"').replace('\\"', '"')
    return re.sub(r"\s+", " ", plain).strip().replace("|", "\\|")


def _kind(text: str) -> str:
    """A type without the fields of its objects."""
    short = re.sub(r"object\(\{.*\}\)", "object", text, flags=re.DOTALL)
    return re.sub(r"\s+", " ", short)


def reference(folder: Path) -> str:
    """The tables of one module."""
    inputs = [
        f"| `{each.name}` | {_kind(each.type)} | {each.shown_default} | {each.description} |"
        for each in entries(folder, "variable")
    ]
    outputs = [f"| `{each.name}` | {each.description} |" for each in entries(folder, "output")]
    head = ["", "| variable | type | default | |", "|---|---|---|---|"]
    return "\n".join([*head, *inputs, "", "| output | |", "|---|---|", *outputs]) + "\n\n"


def side_by_side(folders: dict[str, Path]) -> str:
    """The variables of all modules: the same name is the same concept."""
    known = {title: {each.name: each for each in entries(folder, "variable")} for title, folder in folders.items()}
    names = list(dict.fromkeys(name for variables in known.values() for name in variables))
    rows = [
        f"| `{name}` | " + " | ".join(own[name].shown_default if name in own else "-" for own in known.values()) + " |"
        for name in names
    ]
    head = ["", f"| variable | {' | '.join(known)} |", f"|---|{'---|' * len(known)}"]
    return "\n".join([*head, *rows]) + "\n\n"


def main(arguments: Sequence[str]) -> int:
    """Write or compare; 1 when one differs."""
    folders = {title: module(name) for name, title in MODULES.items() if (module(name) / "variables.tf").exists()}
    wrong = 0
    for folder in folders.values():
        place = Place(folder / "README.md", START.format("reference:"), END.format("reference"))
        wrong |= place.write_or_check(reference(folder), arguments, f"{place.page} is old; run tools/terraform_docs.py")
    both = Place(ROOT / "docs/deployment/terraform.md", START.format("variables:"), END.format("variables"))
    return wrong | both.write_or_check(
        side_by_side(folders), arguments, f"{both.page} is old; run tools/terraform_docs.py"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
