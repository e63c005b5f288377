"""From a JSON schema of the caller's, `output_schema`, to what a model can look for in a text.

Of JSON Schema this reads what models that copy pieces of a text can do: objects of texts, lists of them, choices. What
else a schema may say, a number or a pattern, no model would keep to: it is refused by name, nothing is dropped. What
Pydantic's `model_json_schema` writes for such classes is read as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.items import MAX_LABELS
from sie_server.core.extract_options import MAX_LABEL_CHARS
from sie_server.core.options import cut, invalid, shown

MAX_PROPERTIES: Final = 100  # in the whole schema; each is looked for in every record of the text
MAX_HOPS: Final = 8  # from a reference to what it means
ROOT: Final = "output_schema"
ROOT_NAME: Final = "record"  # of a schema without a title
RELATION: Final = ("head", "tail")
# What an answer keeps to anyway, or says something to people only.
NOTES: Final = frozenset(
    {
        *("$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "default", "examples"),
        *("deprecated", "readOnly", "writeOnly", "required", "additionalProperties", "type"),
    }
)
OWN: Final[Mapping[str, frozenset[str]]] = {
    "object": frozenset({"properties"}),
    "array": frozenset({"items"}),
    "string": frozenset({"enum"}),
}


@dataclass(frozen=True, slots=True)
class Field:
    """A property of a record: a piece of the text, or one of the `choices`; with `many` any number of them."""

    name: str
    many: bool = False
    choices: tuple[str, ...] = ()
    description: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """Something of which the text tells these fields, once or with `many` several times.

    `key` is its place in the answer, None: its fields stand there themselves. `name` is what a model is told.
    """

    key: str | None
    name: str
    fields: tuple[Field, ...]
    many: bool = False


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pieces of the text, always a head and a tail, that have to do with each other what the name says."""

    name: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """What the whole text is: one of the labels, or any number of them."""

    name: str
    labels: tuple[str, ...]
    many: bool = False
    description: str = ""


@dataclass(frozen=True, slots=True)
class Schema:
    """All that is asked of a text; `keys` are the properties of the answer, in the order of the schema."""

    keys: tuple[str, ...]
    records: tuple[Record, ...] = ()
    relations: tuple[Pairs, ...] = ()
    questions: tuple[Question, ...] = ()


NOTHING: Final = Schema(())


@dataclass(frozen=True, slots=True)
class _Node:
    """A part of a schema after references, without null, which every property may be."""

    path: str
    kind: str
    says: Mapping[str, Any]

    @property
    def description(self) -> str:
        text = self.says.get("description", "")
        if not isinstance(text, str):
            raise invalid(f"{self.path}.description is {shown(text)}; expected a text")
        if len(text) > MAX_LABEL_CHARS:
            raise _too_long(f"{self.path}.description has {len(text)} characters", MAX_LABEL_CHARS)
        return text


def read_schema(schema: Mapping[str, Any]) -> Schema:
    """Read and check.

    Raises:
        Problem: INVALID_INPUT naming the part that is wrong or cannot be kept to, INPUT_TOO_LONG naming a limit.
    """
    return _Reading(schema).read()


class _Reading:
    """One schema on its way; counts its properties and choices."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._root = schema
        self._properties_left = MAX_PROPERTIES
        self._choices_left = MAX_LABELS

    def read(self) -> Schema:
        root = self._node(ROOT, self._root)
        if root.kind != "object":
            raise invalid(f"{ROOT} is of type {root.kind}; expected an object with properties")
        properties = self._properties(root)
        own: list[Field] = []
        records: list[Record] = []
        relations: list[Pairs] = []
        questions: list[Question] = []
        for name, node in properties.items():
            inner = self._inner(node)
            if inner.kind == "object":
                records.append(self._record(name, inner, many=inner is not node))
                if _is_relation(records[-1]):
                    relations.append(Pairs(name, node.description or inner.description))
                    records.pop()
            elif "enum" in inner.says:
                labels = self._choices(inner)
                questions.append(Question(name, labels, inner is not node, node.description or inner.description))
            else:
                own.append(self._field(name, node))
        if own:
            records.insert(0, Record(None, _name_of(root), tuple(own)))
        return Schema(tuple(properties), tuple(records), tuple(relations), tuple(questions))

    def _record(self, name: str, node: _Node, *, many: bool) -> Record:
        fields = tuple(self._field(own, each) for own, each in self._properties(node).items())
        return Record(name, name, fields, many)

    def _field(self, name: str, node: _Node) -> Field:
        inner = self._inner(node)
        if inner.kind == "object":
            raise invalid(
                f"{inner.path} is an object inside an object of {ROOT}; objects hold texts and lists of texts"
            )
        choices = self._choices(inner) if "enum" in inner.says else ()
        lowered = {choice.lower() for choice in choices}
        if len(lowered) < len(choices):
            raise invalid(
                f"{inner.path}.enum has choices that differ in case only, which the model does not tell apart"
            )
        return Field(name, inner is not node, choices, node.description or inner.description)

    def _properties(self, node: _Node) -> Mapping[str, _Node]:
        properties = node.says.get("properties")
        if not isinstance(properties, Mapping) or not properties:
            raise invalid(f"{node.path}.properties is {shown(properties)}; expected an object with what to look for")
        self._properties_left -= len(properties)
        if self._properties_left < 0:
            raise _too_long(f"{ROOT} has too many properties", MAX_PROPERTIES)
        for name in properties:
            _check_text(f"a property of {node.path}", name)
        return {name: self._node(f"{node.path}.properties.{cut(name)}", each) for name, each in properties.items()}

    def _choices(self, node: _Node) -> tuple[str, ...]:
        given = node.says["enum"]
        choices = [each for each in given if each is not None] if isinstance(given, list) else []
        if not choices:
            raise invalid(f"{node.path}.enum is {shown(given)}; expected a list of texts")
        self._choices_left -= len(choices)
        if self._choices_left < 0:
            raise _too_long(f"{ROOT} has too many choices in its enums", MAX_LABELS)
        for choice in choices:
            _check_text(f"a choice of {node.path}.enum", choice)
        if len(set(choices)) < len(choices):
            raise invalid(f"{node.path}.enum has a choice twice")
        return tuple(choices)

    def _inner(self, node: _Node) -> _Node:
        """What a list is of; a list of lists is refused."""
        if node.kind != "array":
            return node
        inner = self._node(f"{node.path}.items", node.says.get("items"))
        if inner.kind == "array":
            raise invalid(f"{inner.path} is a list inside a list; lists hold objects or texts")
        return inner

    def _node(self, path: str, schema: object) -> _Node:
        says = self._resolved(path, schema)
        kind = _kind(path, says)
        extra = says.get("additionalProperties")
        if extra is not None and not isinstance(extra, bool):
            raise invalid(f"{path}.additionalProperties is a schema; a model looks only for properties that have names")
        strange = sorted(map(str, says.keys() - NOTES - OWN[kind]))
        if strange:
            raise invalid(f"{path} has {cut(', '.join(strange))}, which no model keeps to; leave it out and check data")
        return _Node(path, kind, says)

    def _resolved(self, path: str, schema: object) -> Mapping[str, Any]:
        """Without references, and without the choice between something and null."""
        for _ in range(MAX_HOPS):
            if not isinstance(schema, Mapping):
                raise invalid(f"{path} is {shown(schema)}; expected a schema")
            rest = dict(schema)
            if "$ref" in rest:
                schema = {**self._referred(path, rest.pop("$ref")), **rest}
                continue
            ways = next((key for key in ("anyOf", "oneOf", "allOf") if key in rest), None)
            if ways is None:
                return {"enum": [rest.pop("const")], **rest} if "const" in rest else rest
            schema = {**_only(f"{path}.{ways}", rest.pop(ways)), **rest}
        raise invalid(f"{path} is reached by more than {MAX_HOPS} references")

    def _referred(self, path: str, reference: object) -> Mapping[str, Any]:
        if isinstance(reference, str):
            for key in ("$defs", "definitions"):
                prefix, known = f"#/{key}/", self._root.get(key)
                if reference.startswith(prefix) and isinstance(known, Mapping):
                    found = known.get(reference.removeprefix(prefix).replace("~1", "/").replace("~0", "~"))
                    if isinstance(found, Mapping):
                        return found
        raise invalid(f"{path}.$ref is {shown(reference)}; expected '#/$defs/NAME' with a schema in $defs of {ROOT}")


def _only(path: str, ways: object) -> Mapping[str, Any]:
    """The one of several ways that is not null."""
    found = ways if isinstance(ways, list) else []
    found = [each for each in found if not (isinstance(each, Mapping) and each.get("type") == "null")]
    if len(found) != 1 or not isinstance(found[0], Mapping):
        raise invalid(f"{path} leaves a choice; expected one schema, and null beside it at most")
    return found[0]


def _kind(path: str, says: Mapping[str, Any]) -> str:
    kind = says.get("type")
    if isinstance(kind, list):
        named = [each for each in kind if each != "null"]
        kind = named[0] if len(named) == 1 else kind
    if kind is None:
        kind = next((each for each, own in OWN.items() if own & says.keys()), None)
    if not isinstance(kind, str) or kind not in OWN:
        hint = "; the model copies pieces of the text: ask for a string, and read it yourself" if kind else ""
        raise invalid(f"{path}.type is {shown(kind)}; expected one of: {', '.join(OWN)}{hint}")
    return kind


def _check_text(what: str, text: object) -> None:
    if not isinstance(text, str) or not text.strip():
        raise invalid(f"{what} is {shown(text)}; expected a text that is not empty")
    if len(text) > MAX_LABEL_CHARS:
        raise _too_long(f"{what} has {len(text)} characters", MAX_LABEL_CHARS)


def _name_of(root: _Node) -> str:
    title = root.says.get("title", ROOT_NAME)
    _check_text(f"{root.path}.title", title)
    return str(title)


def _is_relation(record: Record) -> bool:
    """A list of objects of a head and a tail, and nothing else."""
    return record.many and len(record.fields) == len(RELATION) and set(record.fields) == set(map(Field, RELATION))


def _too_long(what: str, limit: int) -> Problem:
    return Problem(ErrorCode.INPUT_TOO_LONG, f"{what}, the limit is {limit}")
