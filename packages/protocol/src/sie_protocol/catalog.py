"""The model catalogue: one YAML file per model, one per bundle, read by routers and workers alike.

This module is the schema and the pure questions one can ask; whoever reads the files does it elsewhere. Unknown keys
are refused, so a typo never silently means "default".
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

import msgspec

from sie_protocol.errors import DID_YOU_MEAN, MAX_SHOWN, MODELS_HINT, ErrorCode, Problem
from sie_protocol.names import alike
from sie_protocol.target import ModelRef

DEFAULT_PROFILE = "default"
PROFILE_SEPARATOR = ":"
T = TypeVar("T")
_MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")


class Inputs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What kinds of input a model reads."""

    text: bool = True
    image: bool = False


class VectorTask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One encode output; `dim` is the number of components (for sparse: the vocabulary).

    `min_dim` is for dense models trained so that the beginning of a vector is a vector too: the shortest good one.
    """

    dim: int
    min_dim: int | None = None


class EncodeTask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The encode outputs of a model; None for those it does not have."""

    dense: VectorTask | None = None
    sparse: VectorTask | None = None
    multivector: VectorTask | None = None


class ExtractTask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What callers of an extracting model say about labels, entities that they know already, and the form of data.

    `labels`: `required`: the model looks for what the caller names. `optional`: it has labels of its own, and the
    caller may name those that matter. `none`: it reads no labels. `entities`: `required`: every item names the entities
    of its text in `metadata.entities`. `output_schema`: `optional`: the caller may send one in the place of labels, and
    gets data of that form. `instruction`: whether a question or the like stands beside every image, as
    `params.instruction` or, for a model whose inputs are text and image, as the item's own text.
    """

    labels: Literal["required", "optional", "none"] = "required"
    entities: Literal["required", "none"] = "none"
    output_schema: Literal["optional", "none"] = "none"
    instruction: Literal["required", "optional", "none"] = "none"


class EmptyTask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A task without parameters of its own; written `{}`."""


class Tasks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a model can do."""

    encode: EncodeTask | None = None
    score: EmptyTask | None = None
    extract: ExtractTask | None = None


class LoraConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a LoRA in PEFT's layout comes from: the directory `weights_path`, else `hf_id` of the hub at a revision."""

    hf_id: str | None = None
    hf_revision: str | None = None
    weights_path: str | None = None

    @property
    def name(self) -> str:
        """By which it is told from others of its model."""
        return self.weights_path or self.hf_id or ""


class ProfileConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One way to run a model. `adapter` is a name of the worker's adapter registry, never code.

    `max_batch_tokens` bounds one batch. `adapter_options` are the family's own options (pooling, templates, ...).
    `lora` goes on top of the model's weights for requests of this profile. In a file a profile may say `extends: other`
    and then only what differs; here it is complete.
    """

    adapter: str
    max_batch_tokens: int = 16384
    compute_precision: str | None = None
    adapter_options: dict[str, Any] = {}
    lora: LoraConfig | None = None


class ModelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model of the catalogue.

    Weights come from the first of `weights_path` (a directory), `weights_package` (an installed Python package and a
    folder inside it, `package:folder`) and `hf_id` (Hugging Face hub, at `hf_revision`). `allow_pickle` is for models
    that are published as `.bin` or `.pt` files only: those are neither fetched nor read otherwise.
    """

    sie_id: str
    tasks: Tasks
    profiles: dict[str, ProfileConfig]
    hf_id: str | None = None
    hf_revision: str | None = None
    weights_path: str | None = None
    weights_package: str | None = None
    allow_pickle: bool = False
    inputs: Inputs = Inputs()
    max_sequence_length: int | None = None

    @property
    def adapters(self) -> frozenset[str]:
        """Adapters that any of the model's profiles uses."""
        return frozenset(profile.adapter for profile in self.profiles.values())

    @property
    def dims(self) -> dict[str, int]:
        """Encode output → dimension."""
        encode = self.tasks.encode
        kinds = ("dense", "sparse", "multivector")
        return {kind: task.dim for kind in kinds if encode and (task := getattr(encode, kind)) is not None}

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the model returns: dense, sparse, multivector, score, json."""
        tasks = ((self.tasks.score, "score"), (self.tasks.extract, "json"))
        return (*self.dims, *(name for task, name in tasks if task is not None))


class BundleConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A set of adapters that share one installed environment; lower `priority` is preferred."""

    name: str
    adapters: tuple[str, ...]
    priority: int = 100


class Catalog(msgspec.Struct, frozen=True):
    """All models and bundles, with lookups that ignore case."""

    models: Mapping[str, ModelConfig]
    bundles: tuple[BundleConfig, ...]

    def find(self, name: str) -> ModelConfig | None:
        """The model that is meant by an id, or by `id:profile`, in any spelling."""
        base, _, profile = name.lower().partition(PROFILE_SEPARATOR)
        model = self.models.get(base)
        return model if model and (not profile or profile in map(str.lower, model.profiles)) else None

    def bundles_of(self, model: ModelConfig) -> tuple[str, ...]:
        """Bundles that can run the model, preferred first."""
        return self.bundles_for(model.adapters)

    def bundles_for(self, adapters: frozenset[str]) -> tuple[str, ...]:
        """Bundles that have one of these adapters, preferred first."""
        able = (bundle for bundle in self.bundles if adapters.intersection(bundle.adapters))
        return tuple(bundle.name for bundle in sorted(able, key=lambda bundle: (bundle.priority, bundle.name)))

    def models_of(self, bundle: str) -> tuple[ModelConfig, ...]:
        """Models that a worker of this bundle can run, sorted by id."""
        return tuple(model for _, model in sorted(self.models.items()) if bundle in self.bundles_of(model))

    def resolve(self, ref: ModelRef) -> tuple[ModelConfig, str]:
        """The model and the bundle to run it in.

        Raises:
            Problem: MODEL_NOT_FOUND, or BUNDLE_CONFLICT when the caller insists on a bundle that cannot run it.
        """
        model = self.find(ref.name)
        able = self.bundles_of(model) if model else ()
        if model is None or not able:
            raise unknown_model({key: each for key, each in self.models.items() if self.bundles_of(each)}, ref.name)
        if ref.bundle is not None and ref.bundle not in able:
            raise bundle_conflict(model.sie_id, ref.bundle, able)
        return model, ref.bundle or able[0]


def unknown_model(models: Mapping[str, ModelConfig], name: str, where: str = "in the catalogue") -> Problem:
    """The refusal of a name that is neither a model nor a profile of one; `models`, by id in lower case, are those."""
    base, _, profile = name.partition(PROFILE_SEPARATOR)
    model = models.get(base.lower())
    details: dict[str, Any] = {"model": name[:MAX_SHOWN]}
    if model is not None and profile:
        known = ", ".join(sorted(model.profiles))
        message = f"model '{model.sie_id}' has no profile '{profile[:MAX_SHOWN]}'; it has: {known}"
    elif found := alike(base, (each.sie_id for each in models.values())):
        details[DID_YOU_MEAN] = found
        message = f"model '{name[:MAX_SHOWN]}' is not {where}; did you mean {' or '.join(found)}?"
    else:
        message = f"model '{name[:MAX_SHOWN]}' is not {where}; {MODELS_HINT}"
    return Problem(ErrorCode.MODEL_NOT_FOUND, message, details=details)


def bundle_conflict(model_id: str, asked: str, able: Iterable[str]) -> Problem:
    """The refusal of a bundle that cannot run the model; `able` are those that can."""
    names, asked = list(able), asked[:MAX_SHOWN]
    return Problem(
        ErrorCode.BUNDLE_CONFLICT,
        f"bundle '{asked}' cannot run model '{model_id}'; bundles that can: {', '.join(names)}",
        details={"model": model_id, "requested_bundle": asked, "compatible_bundles": names},
    )


def build_catalog(models: Iterable[ModelConfig], bundles: Iterable[BundleConfig]) -> Catalog:
    """Index the catalogue.

    Raises:
        ValueError: two models share an id (in any spelling), or two bundles a name.
    """
    by_id: dict[str, ModelConfig] = {}
    for model in models:
        if model.sie_id.lower() in by_id:
            raise ValueError(f"model '{model.sie_id}' is in the catalogue twice")
        by_id[model.sie_id.lower()] = model
    all_bundles = tuple(bundles)
    if len({bundle.name for bundle in all_bundles}) < len(all_bundles):
        raise ValueError(f"a bundle is in the catalogue twice: {', '.join(b.name for b in all_bundles)}")
    return Catalog(by_id, all_bundles)


def decode_model(text: bytes) -> ModelConfig:
    """Read one model file.

    Raises:
        ValueError: the YAML, a key or a value is wrong; the message names it.
    """
    model = _convert(_complete(_decode(text, Any)), ModelConfig)
    if not _MODEL_ID.fullmatch(model.sie_id):
        raise ValueError(f"sie_id '{model.sie_id}' is not a model id; expected letters, digits, '.', '_', '-' and '/'")
    if DEFAULT_PROFILE not in model.profiles:
        raise ValueError(f"model '{model.sie_id}' has no profile named '{DEFAULT_PROFILE}'")
    for name, profile in model.profiles.items():
        _check_lora(name, profile)
    return model


def decode_bundle(text: bytes) -> BundleConfig:
    """Read one bundle file.

    Raises:
        ValueError: the YAML, a key or a value is wrong; the message names it.
    """
    return _decode(text, BundleConfig)


def _check_lora(name: str, profile: ProfileConfig) -> None:
    if profile.lora is not None and not profile.lora.name:
        raise ValueError(f"the lora of profile '{name}' names no weights; give it an hf_id or a weights_path")
    for option in ("lora", "lora_id"):
        if option in profile.adapter_options:
            message = f"profile '{name}' has {option} among its adapter_options; 'lora' stands beside them"
            raise ValueError(message)


def _complete(raw: Any) -> Any:
    """The content of a model file with every profile that extends another one filled in from it; else unchanged."""
    profiles = raw.get("profiles") if isinstance(raw, dict) else None
    if not isinstance(profiles, dict):
        return raw  # the schema says what is wrong
    return {**raw, "profiles": {name: _extended(name, profiles) for name in profiles}}


def _extended(name: str, profiles: Mapping[str, Any]) -> Any:
    own = profiles[name]
    if not isinstance(own, dict) or "extends" not in own:
        return own
    base = profiles.get(str(own["extends"]))
    if not isinstance(base, dict) or "extends" in base:
        why = "does not exist" if not isinstance(base, dict) else "extends another one itself; one level is allowed"
        raise ValueError(f"profile '{name}' extends '{own['extends']}', which {why}")
    said = {key: value for key, value in own.items() if key != "extends" and value is not None}
    options = [each.get("adapter_options") or {} for each in (base, own)]
    if all(isinstance(each, dict) for each in options):
        said["adapter_options"] = {**options[0], **options[1]}
    return {**base, **said}


def _decode(text: bytes, kind: type[T]) -> T:
    try:
        return msgspec.yaml.decode(text, type=kind)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error


def _convert(raw: Any, kind: type[T]) -> T:
    try:
        return msgspec.convert(raw, kind)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error
