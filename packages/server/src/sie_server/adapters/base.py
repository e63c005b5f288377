"""What the engine asks of a model family, and nothing more.

An adapter knows its weights, its tokenizer and its arithmetic. It knows nothing of HTTP, queues, metrics or requests.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from sie_protocol.arrays import Array
from sie_server.core.lifecycle import ErrorClass
from sie_server.core.mentions import Mention
from sie_server.core.schema import Schema


class LoadError(Exception):
    """A model could not be loaded; the class decides when another attempt makes sense."""

    def __init__(self, error_class: ErrorClass, message: str) -> None:
        super().__init__(message)
        self.error_class = error_class


class UnsupportedInputError(Exception):
    """One input that this model cannot read; the message is meant for the caller."""


class UnreadableImageError(UnsupportedInputError):
    """Encoded bytes that are no image, a broken one, or one that is too large: the fault of this input alone.

    `at`: which input of several it is, once somebody knows.
    """

    at: int | None = None


@dataclass(frozen=True, slots=True)
class WeightsSource:
    """Where weights may be found; the first that is set and present wins.

    An adapter is always given a `path`: whoever loads it has fetched the files before. `allow_pickle`: may the model's
    `.bin` and `.pt` files be read, with torch's reader that builds tensors only. `graph` is the file of an ONNX graph,
    for models that are read from one instead of from tensors. `lora`: it is no model but a LoRA in PEFT's layout.
    """

    path: str | None = None
    package: str | None = None
    hf_id: str | None = None
    hf_revision: str | None = None
    allow_pickle: bool = False
    graph: str | None = None
    lora: bool = False

    @property
    def is_named(self) -> bool:
        """False for a model that has no weights."""
        return bool(self.path or self.package or self.hf_id)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """All an adapter is told about its model.

    `dims` maps an output to its number of components. `options` are those of the family (`pooling`, ...).
    `precision` is the dtype wanted on an accelerator; on a CPU everything is float32. `tasks` are those for which the
    weights must have LoRAs of their own, see `HasTasks`.
    """

    name: str
    source: WeightsSource
    dims: Mapping[str, int]
    options: Mapping[str, Any]
    max_sequence_length: int | None = None
    precision: str | None = None
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a family's batches look like. `pads`: batches of similar length are cheaper."""

    outputs: frozenset[str]
    pads: bool = False


class Pair(NamedTuple):
    """Two texts that a model reads together."""

    first: str
    second: str


class Picture(NamedTuple):
    """One encoded image: the bytes of a PNG, JPEG or WebP file."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text to extract from: which labels to look for, in the caller's order, and the family's options, resolved.

    `labels` is empty for models that have labels of their own, `mentions` for models that find entities themselves.
    With a `schema` its data are wanted, and there are no labels.
    """

    text: str
    labels: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    mentions: tuple[Mention, ...] = ()
    schema: Schema | None = None


@dataclass(frozen=True, slots=True)
class LabelledPicture:
    """An image to find things in; `labels` and `options` as those of `Labelled`.

    `instruction` is a question about it, or what else a model reads beside the image; empty without one.
    `asks_itself`: it is not that of the whole request, so what is wrong with it concerns no other image.
    """

    picture: Picture
    labels: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    instruction: str = ""
    asks_itself: bool = False


Input = str | Pair | Picture | Labelled | LabelledPicture
T = TypeVar("T", str, Pair, Labelled, LabelledPicture)


@dataclass(frozen=True, slots=True)
class SparseVector:
    """The components that are not zero: int32 indices, ascending, and float32 weights, both of shape [non-zeros]."""

    indices: Array
    values: Array


@dataclass(frozen=True, slots=True)
class Entity:
    """A piece of a text: `text[start:end]`, in characters, with its label and a score from 0 to 1."""

    text: str
    label: str
    score: float
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Classification:
    """One label of a whole text and its score from 0 to 1."""

    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Relation:
    """What two entities of a text, told by their texts, have to do with each other, and a score from 0 to 1."""

    head: str
    tail: str
    relation: str
    score: float


class Box(NamedTuple):
    """A rectangle of an image in pixels, from its upper left corner; it lies inside the image."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class DetectedObject:
    """A thing in an image: its label, a score from 0 to 1, and where it is."""

    label: str
    score: float
    bbox: Box


@dataclass(frozen=True, slots=True)
class Passage:
    """A text that was read in an image, with its label, a score from 0 to 1, and where it stands, if that is known."""

    text: str
    label: str
    score: float
    bbox: Box | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """A text in data, with a score from 0 to 1: `text[start:end]`, or one of the caller's choices, without a place."""

    text: str
    score: float
    start: int | None = None
    end: int | None = None


Value = Piece | str | float | None | Sequence["Value"] | Mapping[str, "Value"]


@dataclass(frozen=True, slots=True)
class Data:
    """Values in a form of the caller's or of the model's: of a schema every property, None or empty if not found.

    Models that can say where a text stands give pieces, others plain values.
    """

    values: Mapping[str, Value]

    def pieces(self) -> Iterator[Piece]:
        """All pieces in it."""
        return _pieces(self.values)


def _pieces(value: Value) -> Iterator[Piece]:
    match value:
        case Piece():
            yield value
        case str() | int() | float() | None:
            return
        case Mapping():
            for each in value.values():
                yield from _pieces(each)
        case _:
            for each in value:
                yield from _pieces(each)


Vector = Array | SparseVector  # of one input, as are all outputs
Findings = (
    tuple[Entity, ...]
    | tuple[Passage, ...]
    | tuple[Classification, ...]
    | tuple[Relation, ...]
    | tuple[DetectedObject, ...]
)
Output = Vector | Findings | Data
# Of a batch: by name, one entry for each input; None in the place of an input that does not want this output.
Outputs = Mapping[str, Array | Sequence[Output | None]]


@dataclass(frozen=True, slots=True)
class Prepared:
    """One input, ready for the device. `tokens` is what the model will read, special tokens included.

    `written` is how many it may write at most, for each of which it takes another step; 0 for models that write none.
    `wanted` are the outputs that the caller asked for, None: all; an adapter may leave the others out. `lora` is what
    the adapter's own `read_lora` gave, for inputs that run with one; inputs of one batch may have different ones.
    """

    tokens: int
    truncated: bool
    payload: Any
    wanted: frozenset[str] | None = None
    lora: Any = None
    written: int = 0

    @property
    def weight(self) -> int:
        """What it counts for in a queue and a batch, in tokens."""
        return self.tokens + self.written


class Adapter(Protocol):
    """One model. `load` comes first and alone; `prepare` and `run` may be called from several threads at once."""

    @property
    def capabilities(self) -> Capabilities:
        """Known after `load`."""

    def load(self, device: str) -> None:
        """Read weights and tokenizer and put them on `device` (`cpu`, `cuda`, `mps`).

        Raises:
            LoadError: what is missing or wrong.
        """

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:
        """Tokenise on the CPU. `is_query`: for models that read queries differently; templates are applied before.

        Raises:
            UnsupportedInputError: a pair for a model of single texts, or the other way round.
        """

    def run(self, batch: Sequence[Prepared], threads: int) -> Outputs:
        """Compute one batch with at most this many CPU threads.

        Returns each output on the CPU, one entry for each input in order: `dense` is a float32 array of shape
        [batch, dims], `score` one of shape [batch], `sparse` a list of SparseVector, `multivector` a list of float32
        arrays of shape [tokens, dims], `entities` a list of tuples of Entity by start, or of Passage as they are read,
        `classifications`, `relations` and `objects` lists of tuples of Classification, Relation and DetectedObject, the
        best first, and `data` a list of Data.
        """

    def unload(self) -> None:
        """Drop weights and buffers."""


Steps = Generator[None, int, Outputs]


@runtime_checkable
class RunsInSteps(Protocol):
    """An adapter whose batches take long: between two of their steps another model may have its turn."""

    def steps(self, batch: Sequence[Prepared], threads: int) -> Steps:
        """As `run`, step by step: what is sent in is how many threads the next may use, what it returns the outputs.

        One thread at a time drives it, not always the same. Closing it drops whatever the batch holds.
        """


def all_steps(steps: Steps, threads: int) -> Outputs:
    """What a batch comes to, without a pause."""
    try:
        next(steps)
        while True:
            steps.send(threads)
    except StopIteration as ended:
        outputs: Outputs = ended.value
        return outputs


@runtime_checkable
class ReadsTokens(Protocol):
    """An adapter whose tokenizer also goes the other way."""

    def texts_of(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """The text of each list of token ids, special tokens left out.

        Raises:
            UnsupportedInputError: an id that the tokenizer does not have.
        """


@runtime_checkable
class TakesLoras(Protocol):
    """An adapter that can compute with LoRAs on top of its weights: see `Prepared.lora`."""

    def read_lora(self, folder: str) -> Any:
        """A LoRA in PEFT's layout, on the device. May run beside `run`.

        Raises:
            LoadError: what is missing or wrong, or cannot be computed.
        """


@runtime_checkable
class HasTasks(Protocol):
    """An adapter that reads the LoRAs which its weights have inside, one for each of `ModelSpec.tasks`.

    `load` refuses weights that lack one. Inputs run with one as with any other: see `Prepared.lora`.
    """

    def lora_of_task(self, task: str) -> Any:
        """The LoRA of one of these tasks."""


@runtime_checkable
class CountsTokens(Protocol):
    """An adapter that can say how long an input is that it would cut."""

    def tokens_of(self, given: Input, *, is_query: bool = False) -> int:
        """Its tokens before it is cut, special tokens included.

        Raises:
            UnsupportedInputError: the model cannot read such an input.
        """


def single_texts(inputs: Sequence[Input]) -> list[str]:
    """The inputs of a model that reads one text at a time.

    Raises:
        UnsupportedInputError: one of them is a pair.
    """
    return _only(str, inputs, "the model reads single texts only")


def labelled_texts(inputs: Sequence[Input]) -> list[Labelled]:
    """The inputs of a model that extracts from texts.

    Raises:
        UnsupportedInputError: one of them is something else.
    """
    return _only(Labelled, inputs, "the model extracts from texts and does nothing else")


def labelled_pictures(inputs: Sequence[Input]) -> list[LabelledPicture]:
    """The inputs of a model that finds things in images.

    Raises:
        UnsupportedInputError: one of them is something else.
    """
    return _only(LabelledPicture, inputs, "the model finds things in images and does nothing else")


def text_pairs(inputs: Sequence[Input]) -> list[Pair]:
    """The inputs of a model that reads two texts together.

    Raises:
        UnsupportedInputError: one of them is a single text.
    """
    return _only(Pair, inputs, "the model reads pairs of texts only")


def _only(kind: type[T], inputs: Sequence[Input], refusal: str) -> list[T]:
    found = [each for each in inputs if isinstance(each, kind)]
    if len(found) < len(inputs):
        raise UnsupportedInputError(refusal)
    return found
