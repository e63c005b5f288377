"""Captions, texts, objects and answers about an image: Florence-2, computed by transformers.

The model reads the image and a sentence that stands for a task, and writes its answer: words, and places in the image.
The weights are read as Microsoft publishes them, which transformers has no code for, and as it writes them itself.

Options of the family: `tasks`: names of tasks that a model was fine-tuned for, which reads them as they are.
Options of a request: `task` (`<OCR_WITH_REGION>`), `max_new_tokens` (1024), `num_beams` (1), and of objects
`nms_threshold` (none) and `max_objects` (1000).
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from tokenizers import Tokenizer

from sie_protocol.arrays import Array
from sie_server.adapters.base import (
    Capabilities,
    Input,
    LabelledPicture,
    LoadError,
    Outputs,
    Prepared,
    Steps,
    UnsupportedInputError,
    all_steps,
    labelled_pictures,
)
from sie_server.adapters.shared.adapter import ModelAdapter
from sie_server.adapters.shared.checkpoint import expect
from sie_server.adapters.shared.florence_layout import (
    is_published,
    published_config,
    published_tensors,
    with_places,
    writing_settings,
)
from sie_server.adapters.shared.florence_output import TASKS, UNREAD, Answer, Reading, Scale, Task, own_task
from sie_server.adapters.shared.generation import Generated, Length, length_of, read_generation_config
from sie_server.adapters.shared.images import Preprocessing, read_image, read_preprocessing
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
from sie_server.core.lifecycle import ErrorClass

TASK: Final = "<OCR_WITH_REGION>"
TOKENS: Final = 1024


@dataclass(frozen=True, slots=True)
class Page:
    """One prepared image, the sentence that it is read with, as token ids, and what is made of the answer."""

    pixels: Array
    scale: Scale
    ids: tuple[int, ...]
    task: str
    length: Length
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory. `longest`: tokens that it reads beside the `places` of an image; `specials` are no words."""

    tokenizer: Tokenizer
    specials: frozenset[int]
    preprocessing: Preprocessing
    tasks: Mapping[str, Task]
    places: int
    longest: int
    positions: int
    seq2seq: Seq2Seq
    dtype: torch.dtype


class Florence2Adapter(ModelAdapter[Loaded]):
    """DaViT's image tower in front of BART."""

    @property
    def capabilities(self) -> Capabilities:
        """Whatever the task finds; all images have the same number of places, so hardly anything is padded."""
        return Capabilities(outputs=frozenset({"data", "entities", "objects"}))

    def load(self, device: str) -> None:
        """Find, read and check the model.

        Raises:
            LoadError: what is missing or wrong.
        """
        folder, own, tensors = read_model(self._spec.source)
        expect(own, "model_type", "florence2")
        settings = writing_settings(folder, own)
        transformers = transformers_package("florence2")
        if is_published(own):
            own, tensors = published_config(own), published_tensors(tensors)
        config = read_transformers_config("Florence-2", lambda: transformers.Florence2Config.from_dict(dict(own)))
        preprocessing, dtype = read_preprocessing(folder), precision(self._spec.precision, device)
        vocabulary = int(config.text_config.vocab_size)
        tokenizer = with_places(open_tokenizer(folder), vocabulary)
        generation = read_generation_config(settings, vocabulary)
        if generation.start is None:
            raise LoadError(ErrorClass.UNKNOWN, "the model's generation settings have no decoder_start_token_id")
        with loading_onto(device):
            model = with_weights(transformers.Florence2ForConditionalGeneration, config, tensors, dtype).to(device)
        places, positions = _places(config, preprocessing), int(config.text_config.max_position_embeddings)
        self._loaded.fill(
            Loaded(
                tokenizer=tokenizer,
                specials=frozenset(tokenizer.get_added_tokens_decoder()),
                preprocessing=preprocessing,
                tasks={**{name: own_task(name) for name in self._spec.options.get("tasks", [])}, **TASKS},
                places=places,
                longest=positions - places,
                positions=positions,
                seq2seq=Seq2Seq(transformers, model, generation),
                dtype=dtype,
            ),
            device,
        )

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:  # noqa: ARG002 - read alike
        """`payload` is a Page.

        Raises:
            UnsupportedInputError: an image that cannot be read, a task that there is not, or one that needs an input
                and has none, or the other way round; or too much to read or write.
        """
        loaded = self._loaded.parts()
        return [_prepared(each, loaded) for each in labelled_pictures(inputs)]

    def run(self, batch: Sequence[Prepared], threads: int) -> Outputs:
        """`data` of each image by its task, in the form of transformers' processor; texts and objects beside it."""
        return all_steps(self.steps(batch, threads), threads)

    @torch.inference_mode()
    def steps(self, batch: Sequence[Prepared], threads: int) -> Steps:
        """The same token by token."""
        loaded = self._loaded.with_threads(threads)
        pages: list[Page] = [each.payload for each in batch]
        written = yield from paced(self._written(loaded, pages), self._loaded)
        answers = [_answer(*each, loaded) for each in zip(pages, written, strict=True)]
        return {
            "data": [each.data for each in answers],
            "entities": [each.entities for each in answers],
            "objects": [each.objects for each in answers],
        }

    def _written(self, loaded: Loaded, pages: Sequence[Page]) -> Generator[None, None, list[Generated]]:
        start = loaded.seq2seq.config.start
        assert start is not None, "checked when it was loaded"  # noqa: S101 - a bug, not a refusal
        return loaded.seq2seq.write(
            [(start,)] * len(pages),
            [each.length for each in pages],
            lambda places: self._encode(loaded, [pages[at] for at in places]),
        )

    def _encode(self, loaded: Loaded, pages: Sequence[Page]) -> EncoderStates:
        """What the encoder makes of images, and behind them their sentences, padded to the longest."""
        model = loaded.seq2seq.model
        pixels = to_device(np.stack([each.pixels for each in pages]), self._loaded.device)
        images = model.get_image_features(
            pixel_values=shifted(pixels, loaded.preprocessing.scaling).to(loaded.dtype)
        ).pooler_output
        longest = max(len(each.ids) for each in pages)
        pad = loaded.seq2seq.config.pad
        ids = np.array([[*each.ids, *[pad] * (longest - len(each.ids))] for each in pages], np.int64)
        lengths = np.array([len(each.ids) for each in pages])
        seen = np.arange(images.shape[1] + longest) < images.shape[1] + lengths[:, None]
        words = model.get_input_embeddings()(to_device(ids, self._loaded.device))
        mask = to_device(seen.astype(np.int64), self._loaded.device)
        encoder = model.model.language_model.encoder
        states = encoder(inputs_embeds=torch.cat([images, words], dim=1), attention_mask=mask).last_hidden_state
        return EncoderStates(states, mask)


def _places(config: Any, preprocessing: Preprocessing) -> int:
    """Of an image that the model reads: one for each square of its coarsest map, and their mean."""
    height, width = preprocessing.size
    vision = config.vision_config
    for side, stride, pad in zip(vision.patch_size, vision.patch_stride, vision.patch_padding, strict=True):
        height, width = ((each + 2 * pad - side) // stride + 1 for each in (height, width))
    if max(height, width) > vision.max_position_embeddings or min(height, width) < 1:
        message = f"the preprocessor makes images of {preprocessing.size} pixels, which the model has no positions for"
        raise LoadError(ErrorClass.UNKNOWN, message)
    return height * width + 1


def _prepared(given: LabelledPicture, loaded: Loaded) -> Prepared:
    name = str(given.options.get("task", TASK))
    task = loaded.tasks.get(name)
    if task is None:
        raise UnsupportedInputError(f"options.task is '{name[:100]}'; it knows: {', '.join(loaded.tasks)}")
    if task.takes_input and not given.instruction:
        raise UnsupportedInputError(f"task {name} needs something to be said; send it as params.instruction")
    if given.instruction and not task.takes_input:
        raise UnsupportedInputError(f"task {name} reads nothing beside the image; leave the instruction out")
    ids = tuple(loaded.tokenizer.encode(task.prompt.replace("{}", given.instruction)).ids)
    if len(ids) > loaded.longest:
        raise UnsupportedInputError(
            f"task and instruction have {len(ids)} tokens, the limit is {loaded.longest}; make it shorter"
        )
    length = length_of(given.options, 1, loaded.positions, TOKENS)
    fitted = loaded.preprocessing.fitted
    pixels, scale = read_image(given.picture, lambda image: (np.array(fitted(image)), Scale(*image.size)))
    page = Page(pixels, scale, ids, name, length, given.options)
    return Prepared(loaded.places + len(ids), truncated=False, payload=page, written=length.tokens * length.beams)


def _answer(page: Page, written: Generated, loaded: Loaded) -> Answer:
    task = loaded.tasks[page.task]
    return task.read(_reading(written, loaded), page.task, task.label, page.scale, page.options)


def _reading(written: Generated, loaded: Loaded) -> Reading:
    """Words in one piece up to the next place or other mark, and each of those alone."""
    runs: list[tuple[list[int], list[float]]] = []
    was_mark = True
    for token, logprob in zip(written.ids, written.logprobs, strict=True):
        is_mark = token in loaded.specials
        if is_mark or was_mark:
            runs.append(([], []))
        runs[-1][0].append(token)
        runs[-1][1].append(logprob)
        was_mark = is_mark
    pieces = [(loaded.tokenizer.decode(ids, skip_special_tokens=False), tuple(sure)) for ids, sure in runs]
    read = [each for each in pieces if each[0] not in UNREAD]
    return Reading(tuple(text for text, _ in read), tuple(sure for _, sure in read))
