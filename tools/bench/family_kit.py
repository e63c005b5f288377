"""What the models of `families.py` are made of: a tokenizer, texts, images, and batches as the libraries make them."""

import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image
from tokenizers import AddedToken, Tokenizer

from corpus import model_folder, texts_of
from sie_protocol.items import Item

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the library's own
    from transformers import PreTrainedTokenizerFast
    from transformers.utils.logging import disable_progress_bar

disable_progress_bar()

BATCH: Final = 32  # texts, as sentence-transformers has it
MAX_TOKENS: Final = 512
LABELS: Final = ("license", "person", "organization", "date", "place of work", "legal term")
SPECIAL: Final = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}

# Of one input: the numbers of a vector by their places, or a score of each thing that was found.
Answer = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Reference:
    """The library's side: `once` answers all inputs, which is measured; `told` puts an answer as the worker's are."""

    once: Callable[[], Sequence[Any]]
    told: Callable[[Any], Answer]


@dataclass(frozen=True, slots=True)
class Size:
    """How large a model is, how many texts it reads, and how many images of how many pixels a side."""

    width: int
    layers: int
    texts: int
    images: int
    side: int

    @property
    def heads(self) -> int:
        """Of 32 components each."""
        return max(1, self.width // 32)

    @property
    def shape(self) -> dict[str, int]:
        """As configurations of transformers name it."""
        return {
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": 4 * self.width,
        }


@dataclass(frozen=True, slots=True)
class Work:
    """One request: `task` is encode, score or extract, with its parameters, or with a query."""

    task: str
    items: Sequence[Item]
    params: Mapping[str, Any] = field(default_factory=dict)
    query: str = ""

    @property
    def texts(self) -> list[str]:
        """Of all items."""
        return [str(each["text"]) for each in self.items]

    @property
    def images(self) -> list[Image.Image]:
        """Of all items, decoded."""
        return [Image.open(io.BytesIO(each["images"][0]["data"])).convert("RGB") for each in self.items]  # type: ignore[index]


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of model: how a seeded checkpoint is written, its catalogue entry, what is asked, and the reference.

    `reference` reads the checkpoint with the family's own library and gives what answers the same.
    """

    name: str
    adapter: str
    write: Callable[[Path, Size], None]
    work: Callable[[Size], Work]
    reference: Callable[[Path, Work], Reference]
    entry: Callable[[Size], Mapping[str, Any]]
    options: Mapping[str, Any] = field(default_factory=dict)


def tokenizer(*marks: str, named: Mapping[str, str] | None = None) -> Tokenizer:
    """MiniLM's, with more special tokens, and others of its own called differently."""
    text = (model_folder() / "tokenizer.json").read_text()
    for old, new in (named or {}).items():
        text = text.replace(json.dumps(old), json.dumps(new))
    made = Tokenizer.from_str(text)
    made.no_padding()
    made.no_truncation()
    made.add_special_tokens([AddedToken(each, normalized=False, special=True) for each in marks])
    return made


def fast(own: Tokenizer, special: Mapping[str, str] = SPECIAL, *, types: bool = False) -> Any:
    """The same as transformers wants it; with `types` it tells which text of a pair a token is of."""
    names = ["input_ids", *(["token_type_ids"] if types else []), "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=own, model_max_length=MAX_TOKENS, model_input_names=names, **special
    )


def save(folder: Path, model: Any, own: Any) -> None:
    """A model and its tokenizer, as transformers keeps them."""
    model.save_pretrained(folder)
    own.save_pretrained(folder)


def items_of(texts: Sequence[str]) -> list[Item]:
    """One item a text."""
    return [Item(text=each) for each in texts]


def texts(size: Size, task: str = "encode", **params: Any) -> Work:
    """Passages 4 to 120 words long."""
    return Work(task, items_of(texts_of(size.texts)), params)


def pictures(size: Size, task: str = "encode", **params: Any) -> Work:
    """JPEG files of smooth noise, half to a whole of `side` wide and high."""
    rng = np.random.default_rng(0)
    items: list[Item] = []
    for _ in range(size.images):
        sides = rng.integers(size.side // 2, size.side + 1, 2)
        coarse = rng.integers(0, 256, (14, 14, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(coarse).resize((int(sides[0]), int(sides[1]))).save(file, "JPEG", quality=90)
        items.append(Item(images=[{"data": file.getvalue(), "format": "jpeg"}]))
    return Work(task, items, params)


def by_length(lengths: Sequence[int], size: int = BATCH) -> Iterator[list[int]]:
    """Places of inputs in batches, the longest first, as sentence-transformers orders them."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    for start in range(0, len(order), size):
        yield order[start : start + size]


def in_batches(
    given: Sequence[str], read: Callable[[list[str]], Sequence[Any]], size: int = BATCH, *, ordered: bool = True
) -> list[Any]:
    """What `read` makes of all texts, in their order."""
    found: dict[int, Any] = {}
    for places in by_length([len(each) if ordered else 0 for each in given], size):
        found.update(zip(places, read([given[at] for at in places]), strict=True))
    return [found[at] for at in range(len(given))]


def images_in_batches(
    given: Sequence[Image.Image], read: Callable[[list[Image.Image]], Sequence[Any]], size: int
) -> list[Any]:
    """The same of images, in the order they have."""
    return [each for at in range(0, len(given), size) for each in read(list(given[at : at + size]))]


def vector(kind: str, values: Any, indices: Any = None) -> Answer:
    """The numbers of one vector, or of several in one row, or those at some places."""
    row = np.asarray(values, dtype=np.float64).ravel().tolist()
    return {
        f"{kind} {at}": each
        for at, each in zip(range(len(row)) if indices is None else np.asarray(indices).tolist(), row, strict=True)
    }


def written(data: Mapping[str, Any]) -> Answer:
    """What a model wrote, without the spaces that decoders put between marks as they like."""
    return {"".join(json.dumps(data, sort_keys=True).split()): 1.0}


def quiet() -> Any:
    """Without the library's own warnings."""
    return warnings.catch_warnings(action="ignore")
