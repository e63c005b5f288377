"""Models that transformers computes: its code comes with that package, never from a hub."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from sie_server.adapters.base import LoadError
from sie_server.adapters.registry import missing_package
from sie_server.adapters.shared.generation import Generated, GenerationConfig, Length, write
from sie_server.adapters.shared.loading import LoadedParts
from sie_server.core.lifecycle import ErrorClass

T = TypeVar("T")


def transformers_package(adapter: str) -> Any:
    """The package, for an adapter of this name.

    Raises:
        LoadError: DEPENDENCY without it.
    """
    try:
        # Seconds of a worker's start, which only these models pay for.
        import transformers  # noqa: PLC0415
    except ImportError as error:
        raise missing_package(adapter, error) from error
    transformers.logging.disable_progress_bar()  # a worker writes log lines, and nothing else
    return transformers


def read_transformers_config(family: str, read: Callable[[], Any]) -> Any:
    """What `read` makes of a model's own `config.json` with the classes of the package.

    Raises:
        LoadError: UNKNOWN when it is none of this family.
    """
    try:
        return read()
    except Exception as error:  # the library checks with classes of its own
        raise LoadError(ErrorClass.UNKNOWN, f"config.json is not that of a {family}: {error}") from error


def with_weights(
    kind: Any, config: Any, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype = torch.float32
) -> Any:
    """A model of the package with these weights, all of them.

    Raises:
        LoadError: UNKNOWN for weights of another model.
    """
    model, told = kind.from_pretrained(
        None, config=config, state_dict=dict(tensors), dtype=dtype, output_loading_info=True
    )
    wrong = [*sorted(told["missing_keys"]), *sorted(str(each) for each in told["mismatched_keys"])]
    if wrong:
        message = f"the checkpoint's tensor '{wrong[0]}' is missing or has another shape, and {len(wrong) - 1} more"
        raise LoadError(ErrorClass.UNKNOWN, message)
    return model.eval()


@dataclass(frozen=True, slots=True)
class EncoderStates:
    """What an encoder made of some inputs: [inputs, places, width], and which of the places count, None: all."""

    states: torch.Tensor
    mask: torch.Tensor | None = None

    def repeated(self, beams: int) -> "EncoderStates":
        """Each input so many times."""
        mask = None if self.mask is None else self.mask.repeat_interleave(beams, dim=0)
        return EncoderStates(self.states.repeat_interleave(beams, dim=0), mask)


class CachedDecoder:
    """A model of the package that writes behind what its encoder has read."""

    def __init__(self, transformers: Any, model: Any, states: EncoderStates) -> None:
        self._model = model
        self._given = {"encoder_outputs": transformers.modeling_outputs.BaseModelOutput(states.states)}
        if states.mask is not None:
            self._given["attention_mask"] = states.mask
        own, cross = transformers.DynamicCache(), transformers.DynamicCache()
        self._cache = transformers.EncoderDecoderCache(own, cross)

    def logits(self, ids: torch.Tensor) -> torch.Tensor:
        """[rows, new tokens] to float32 [rows, vocabulary]: what comes behind the last."""
        out = self._model(decoder_input_ids=ids, past_key_values=self._cache, use_cache=True, **self._given)
        logits: torch.Tensor = out.logits[:, -1].float()
        return logits

    def reorder_cache(self, rows: torch.Tensor) -> None:
        """Go on from other rows of the same prompt, whose memory is the same: only what was written changes."""
        self._cache.self_attention_cache.reorder_cache(rows)


@dataclass(frozen=True, slots=True)
class Seq2Seq:
    """A model of the package that writes, and how it does."""

    transformers: Any
    model: Any
    config: GenerationConfig

    def write(
        self,
        prompts: Sequence[tuple[int, ...]],
        lengths: Sequence[Length],
        encode: Callable[[Sequence[int]], EncoderStates],
    ) -> Generator[None, None, list[Generated]]:
        """What it writes behind the prompts of a batch; `encode` encodes the inputs at some places of it.

        Inputs share a pass if their prompts are equally long and they may write alike; nothing is padded. It pauses
        behind each step.
        """
        found: dict[int, Generated] = {}
        for places in grouped([(len(prompt), length) for prompt, length in zip(prompts, lengths, strict=True)]):
            length = lengths[places[0]]
            states = encode(places)
            yield
            ids = torch.tensor([prompts[at] for at in places], device=states.states.device)
            writer = CachedDecoder(self.transformers, self.model, states.repeated(length.beams))
            texts = yield from write(writer, ids, self.config, length)
            found.update(zip(places, texts, strict=True))
        return [found[at] for at in range(len(prompts))]


def paced(work: Generator[None, None, T], parts: LoadedParts[Any]) -> Generator[None, int, T]:
    """The steps of some work, each with as many threads as are sent in for it."""
    while True:
        try:
            next(work)
        except StopIteration as ended:
            result: T = ended.value
            return result
        parts.with_threads((yield))


def grouped(keys: Sequence[object]) -> list[list[int]]:
    """Places of the inputs of a batch that can be computed together, by what they must have in common."""
    groups: dict[object, list[int]] = {}
    for at, key in enumerate(keys):
        groups.setdefault(key, []).append(at)
    return list(groups.values())
