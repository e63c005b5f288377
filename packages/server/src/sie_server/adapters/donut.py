"""The fields of a document, its kind, or an answer about it, from an image alone: Donut, computed by transformers.

A model is fine-tuned for one task, whose mark it begins with, and writes what it finds as text with marks around it. A
model that has marks for a question and an answer is asked one.

Options of a request: `task` (what the model's configuration says it begins with), `max_new_tokens` (512), `num_beams`
(1).
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from tokenizers import Tokenizer

from sie_protocol.arrays import Array
from sie_server.adapters.base import (
    Capabilities,
    Classification,
    Data,
    Input,
    LabelledPicture,
    LoadError,
    Outputs,
    Passage,
    Prepared,
    Steps,
    UnsupportedInputError,
    all_steps,
    labelled_pictures,
)
from sie_server.adapters.shared.adapter import ModelAdapter
from sie_server.adapters.shared.checkpoint import expect, read_numbers
from sie_server.adapters.shared.donut_fields import fields_of, leaves
from sie_server.adapters.shared.generation import Generated, Length, length_of, probability, read_generation_config
from sie_server.adapters.shared.letterbox import Letterbox, read_letterbox
from sie_server.adapters.shared.loading import loading_onto, read_model
from sie_server.adapters.shared.patches import shifted
from sie_server.adapters.shared.tokenize import open_tokenizer
from sie_server.adapters.shared.torch_use import precision, to_device
from sie_server.adapters.shared.transformers_models import (
    EncoderStates,
    Seq2Seq,
    paced,
    read_transformers_config,
    transformers_package,
    with_weights,
)
from sie_server.adapters.shared.weights import read_json
from sie_server.core.lifecycle import ErrorClass

TOKENS: Final = 512
QUESTION, ANSWER = "question", "answer"
KIND: Final = "class"  # the field that says what kind of document it is
_FIRST_MARK: Final = re.compile(r"<.*?>")


@dataclass(frozen=True, slots=True)
class Page:
    """One prepared document, and what the model begins its text with, as token ids."""

    pixels: Array
    prompt: tuple[int, ...]
    length: Length


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory. `task` is the mark it begins with, `patches` are those of every document."""

    tokenizer: Tokenizer
    categories: frozenset[str]
    unread: tuple[str, ...]
    letterbox: Letterbox
    task: str
    asks: bool
    patches: int
    positions: int
    seq2seq: Seq2Seq
    dtype: torch.dtype


class DonutAdapter(ModelAdapter[Loaded]):
    """A Swin transformer, and a decoder that writes what it sees."""

    @property
    def capabilities(self) -> Capabilities:
        """Fields of documents; all images have one size, so nothing is padded."""
        return Capabilities(outputs=frozenset({"data", "entities", "classifications"}))

    def load(self, device: str) -> None:
        """Find, read and check the model.

        Raises:
            LoadError: what is missing or wrong.
        """
        folder, own, tensors = read_model(self._spec.source)
        expect(own, "model_type", "vision-encoder-decoder")
        halves = {half: own[half] if isinstance(own.get(half), dict) else {} for half in ("encoder", "decoder")}
        expect(halves["encoder"], "model_type", "donut-swin")
        expect(halves["decoder"], "model_type", "mbart")
        settings = {**halves["decoder"], **{key: each for key, each in own.items() if each is not None}}
        path = folder / "generation_config.json"
        transformers = transformers_package("donut")
        config = read_transformers_config("Donut", lambda: transformers.VisionEncoderDecoderConfig.from_dict(dict(own)))
        tokenizer, letterbox = open_tokenizer(folder), read_letterbox(folder)
        vocabulary = int(config.decoder.vocab_size)
        if tokenizer.get_vocab_size() > vocabulary:
            message = f"the tokenizer has {tokenizer.get_vocab_size()} tokens, the model {vocabulary}"
            raise LoadError(ErrorClass.UNKNOWN, message)
        generation = read_generation_config(read_json(path) if path.is_file() else settings, vocabulary)
        unknown = tokenizer.token_to_id("<unk>")
        start = generation.start if generation.start is not None else settings.get("decoder_start_token_id")
        dtype = precision(self._spec.precision, device)
        with loading_onto(device):
            model = with_weights(transformers.VisionEncoderDecoderModel, config, tensors, dtype).to(device)
        self._loaded.fill(
            Loaded(
                tokenizer=tokenizer,
                categories=frozenset(each.content for each in tokenizer.get_added_tokens_decoder().values()),
                unread=tuple(
                    text for each in (*generation.ends, generation.pad) if (text := tokenizer.id_to_token(each))
                ),
                letterbox=letterbox,
                task=(tokenizer.id_to_token(start) or "") if isinstance(start, int) else "",
                asks=all(tokenizer.token_to_id(f"<s_{each}>") is not None for each in (QUESTION, ANSWER)),
                patches=_patches(config, letterbox),
                positions=int(config.decoder.max_position_embeddings),
                seq2seq=Seq2Seq(transformers, model, replace(generation, never=() if unknown is None else (unknown,))),
                dtype=dtype,
            ),
            device,
        )

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:  # noqa: ARG002 - read alike
        """`payload` is a Page.

        Raises:
            UnsupportedInputError: an image that cannot be read, a task that the model has no mark for, a question for a
                model that is not asked any, or none for one that is; or too much to read or write.
        """
        loaded = self._loaded.parts()
        return [_prepared(each, loaded) for each in labelled_pictures(inputs)]

    def run(self, batch: Sequence[Prepared], threads: int) -> Outputs:
        """`data` are the fields of each document. Their values are texts as well, the kind a classification."""
        return all_steps(self.steps(batch, threads), threads)

    @torch.inference_mode()
    def steps(self, batch: Sequence[Prepared], threads: int) -> Steps:
        """The same token by token."""
        loaded = self._loaded.with_threads(threads)
        pages: list[Page] = [each.payload for each in batch]
        work = loaded.seq2seq.write(
            [each.prompt for each in pages],
            [each.length for each in pages],
            lambda places: self._encode(loaded, [pages[at] for at in places]),
        )
        written = yield from paced(work, self._loaded)
        return _outputs([_fields(*each, loaded) for each in zip(pages, written, strict=True)], written)

    def _encode(self, loaded: Loaded, pages: Sequence[Page]) -> EncoderStates:
        pixels = to_device(np.stack([each.pixels for each in pages]), self._loaded.device)
        encoder = loaded.seq2seq.model.get_encoder()
        return EncoderStates(
            encoder(pixel_values=shifted(pixels, loaded.letterbox.scaling).to(loaded.dtype)).last_hidden_state
        )


def _patches(config: Any, letterbox: Letterbox) -> int:
    """Of a document when it has become small: every stage but the last halves both sides."""

    def read() -> int:
        side: int = int(config.encoder.patch_size) * 2 ** (len(config.encoder.depths) - 1)
        height, width = letterbox.size
        return math.ceil(height / side) * math.ceil(width / side)

    return read_numbers("Donut", read)


def _prepared(given: LabelledPicture, loaded: Loaded) -> Prepared:
    task = str(given.options.get("task", loaded.task))
    mark = loaded.tokenizer.token_to_id(task)
    if mark is None:
        raise UnsupportedInputError(f"options.task is '{task[:100]}', but the model was not trained for it")
    if loaded.asks and not given.instruction:
        raise UnsupportedInputError("it answers questions and was asked none; send one as params.instruction")
    if given.instruction and not loaded.asks:
        raise UnsupportedInputError("it reads nothing beside the image; leave the instruction out")
    asked = f"<s_{QUESTION}>{given.instruction}</s_{QUESTION}><s_{ANSWER}>" if loaded.asks else ""
    prompt = tuple(loaded.tokenizer.encode(task + asked, add_special_tokens=False).ids)
    length = length_of(given.options, len(prompt), loaded.positions, TOKENS)
    page = Page(loaded.letterbox.read(given.picture), prompt, length)
    tokens = loaded.patches + len(prompt)
    return Prepared(tokens, truncated=False, payload=page, written=length.tokens * length.beams)


def _fields(page: Page, written: Generated, loaded: Loaded) -> dict[str, Any]:
    text = loaded.tokenizer.decode([*page.prompt, *written.ids], skip_special_tokens=False)
    for mark in loaded.unread:
        text = text.replace(mark, "")
    return fields_of(_FIRST_MARK.sub("", text, count=1).strip(), loaded.categories)


def _outputs(found: Sequence[Mapping[str, Any]], written: Sequence[Generated]) -> Outputs:
    """An answer is as sure as all its tokens together: a kind by their product, a text by their geometric mean."""
    entities, classifications = [], []
    for fields, text in zip(found, written, strict=True):
        kind, whole = fields.get(KIND), probability(text.logprobs, whole=True)
        classifications.append((Classification(kind, whole),) if isinstance(kind, str) and kind else ())
        told = leaves({name: each for name, each in fields.items() if name not in (QUESTION, KIND)})
        entities.append(tuple(Passage(value, name, probability(text.logprobs)) for name, value in told))
    return {"data": [Data(each) for each in found], "entities": entities, "classifications": classifications}
