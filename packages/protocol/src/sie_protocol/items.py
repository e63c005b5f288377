"""What a user sends and gets: items, parameters and results.

These are `TypedDict`s, because users write and read them as plain dicts (`result["dense"].shape`); msgspec decodes and
checks them as they are. Request envelopes are msgspec structs. Array-valued fields are numpy arrays on the user's side
and ndarray maps (see `sie_protocol.arrays`) on the wire, so this module calls them `Any` and needs no numpy.
"""

from typing import Any, Final, NotRequired, TypedDict

import msgspec

MAX_ITEMS: Final = 2048  # of all requests that one model of a worker has accepted and not answered, by default
MAX_CANDIDATES: Final = 1000  # items of one score request
MAX_LABELS: Final = 1000  # of one extract request


class Image(TypedDict):
    """One encoded image: its bytes and, if known, its format (`jpeg`, `png`, ...)."""

    data: bytes
    format: NotRequired[str | None]


class Item(TypedDict, total=False):
    """One thing to embed, score or extract from. Unknown keys are ignored by the worker.

    Models that find relations read `metadata["entities"]`: a list of dicts with `start` and `end`, and `text` and
    `label` if known, as an `ExtractResult` holds them.
    """

    id: str | None
    text: str | None
    images: list[Image] | None
    metadata: dict[str, Any] | None


class SparseVector(TypedDict):
    """Parallel arrays: int32 token ids, ascending, and their float weights; both of shape [non-zeros]."""

    indices: Any
    values: Any


class Quantization(TypedDict):
    """The way back from an int8 or uint8 vector: `values * scale + offset` (0 if absent), to within half a `scale`.

    Numbers for `dense`; float32 arrays of shape [tokens, 1] for `multivector`.
    """

    scale: Any
    offset: NotRequired[Any]


class Timing(TypedDict, total=False):
    """Milliseconds spent in each phase of one request on the worker."""

    total_ms: float
    queue_ms: float
    tokenization_ms: float
    inference_ms: float
    postprocessing_ms: float


class Usage(TypedDict, total=False):
    """What a request cost: tokens the model read, special tokens included, and inputs cut at the model's limit."""

    input_tokens: int
    truncated_items: int


class EncodeResult(TypedDict, total=False):
    """One encoded item as the SDK returns it.

    `dense`: array of shape [dims]. `sparse`: see SparseVector. `multivector`: array of shape [tokens, dims].
    Of dtype binary or ubinary the last axis is bytes of eight components each, the first in the highest bit.
    `quantization`: for each output that came as int8 or uint8, the way back. `timing` and `usage` are those of the
    whole request that the item came in.
    """

    id: str
    dense: Any
    sparse: SparseVector
    multivector: Any
    quantization: dict[str, Quantization]
    timing: Timing
    usage: Usage


class ScoreEntry(TypedDict):
    """One scored item. `item_id` is the item's own id, or `item-N` by its place in the request; rank 0 is the best."""

    item_id: str
    score: float
    rank: int


class ScoreResult(TypedDict, total=False):
    """Every item of a score call, the best first; items with equal scores keep the order of the request."""

    model: str
    query_id: str | None
    scores: list[ScoreEntry]
    usage: Usage


class Entity(TypedDict):
    """A piece of a text, `text[start:end]` in characters, or of an image, at `bbox` [x, y, width, height] in pixels.

    What does not apply is None.
    """

    text: str
    label: str
    score: float
    start: int | None
    end: int | None
    bbox: list[float] | None


class Relation(TypedDict):
    """How two entities, named by their texts, belong together."""

    head: str
    tail: str
    relation: str
    score: float


class Classification(TypedDict):
    """One label of a whole item."""

    label: str
    score: float


class DetectedObject(TypedDict):
    """A thing in an image, at `bbox` [x, y, width, height] in pixels of the image as its file stores it."""

    label: str
    score: float
    bbox: list[float]


class ItemError(TypedDict):
    """Why one item of a request has no result; `code` is one of `sie_protocol.errors`."""

    code: str
    message: str


class ExtractResult(TypedDict):
    """What was found in one item; what a model does not look for is an empty list.

    `id` is the item's own, or `item-N` by its place in the request. `entities` stand by their start, `classifications`,
    `relations` and `objects` from the best to the worst. `data` has the form of the request's `output_schema`. An item
    with an `error` has nothing else.
    """

    id: str
    entities: list[Entity]
    relations: list[Relation]
    classifications: list[Classification]
    objects: list[DetectedObject]
    data: dict[str, Any]
    error: NotRequired[ItemError]


class EncodeParams(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Parameters of an encode call; None means: the profile's or the model's default."""

    output_types: list[str] | None = None
    instruction: str | None = None
    output_dtype: str | None = None
    options: dict[str, Any] | None = None


class EncodeRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `POST /v1/encode/{model}`."""

    items: list[Item]
    params: EncodeParams | None = None


class ScoreRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `POST /v1/score/{model}`: at most `MAX_CANDIDATES` items, each scored against the query."""

    query: Item
    items: list[Item]
    instruction: str | None = None
    options: dict[str, Any] | None = None


class ExtractParams(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Parameters of an extract call: at most `MAX_LABELS` labels, whose order is kept, or a JSON schema of data."""

    labels: list[str] | None = None
    output_schema: dict[str, Any] | None = None
    instruction: str | None = None
    options: dict[str, Any] | None = None


class ExtractRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `POST /v1/extract/{model}`."""

    items: list[Item]
    params: ExtractParams | None = None


class ModelInfo(TypedDict, total=False):
    """One model of `GET /v1/models`: the union of what published routers and workers tell.

    `dims` maps an output type to its dimension. `state` is available, loading, loaded, unloading or failed.
    `memory_bytes` is what its weights take, 0 unless they are loaded. A profile names the weights that it runs on, and
    tells of the LoRA on top of them, if it has one, `hf_id`, `state` and `memory_bytes`.
    `bundles`, `worker_count` and `workers` are known to routers only.
    """

    name: str
    inputs: list[str]
    outputs: list[str]
    dims: dict[str, int]
    loaded: bool
    state: str
    last_error: dict[str, Any] | None
    max_sequence_length: int | None
    profiles: dict[str, dict[str, Any]]
    memory_bytes: int
    bundles: list[str]
    worker_count: int
    workers: list[str]


def id_of(item: Item, place: int) -> str:
    """What an answer calls an item: its own id, or `item-N` by its place in the request."""
    own = item.get("id")
    return f"item-{place}" if own is None else own
