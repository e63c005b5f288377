"""Which profiles of a model share its weights, and which one a request asks for. Knows no worker.

Profiles whose adapter, precision and load options are equal run on one set of weights, however their other options
and their LoRAs differ. `org/model` names the default profile of a model, `org/model:name` another one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sie_protocol.catalog import (
    DEFAULT_PROFILE,
    PROFILE_SEPARATOR,
    LoraConfig,
    ModelConfig,
    unknown_model,
)
from sie_protocol.errors import MAX_SHOWN, ErrorCode, Problem
from sie_protocol.profiles import profile_id, under
from sie_server.core.options import LORA_OPTIONS, cut, invalid, load_identity, profile_named, shown
from sie_server.core.tasks import tasks_of


@dataclass(frozen=True, slots=True)
class Weights:
    """One set of weights: the model under the profile that owns them.

    `aliases` are other profiles that run on them as they are, `loras` those that have something on top of them.
    """

    name: str
    model: ModelConfig
    max_batch_tokens: int
    aliases: tuple[str, ...] = ()
    loras: Mapping[str, LoraConfig] = field(default_factory=dict)


def sets_of(model: ModelConfig) -> list[Weights]:
    """Every set of weights that a model's profiles need; of those that share one, the smallest batches count."""
    owners = weights_of(model)
    sharing = {owner: [name for name, own in owners.items() if own == owner] for owner in owners.values()}
    return [
        Weights(
            profile_id(model, owner),
            under(model, owner),
            max_batch_tokens=min(model.profiles[name].max_batch_tokens for name in names),
            aliases=tuple(
                profile_id(model, name) for name in names if name != owner and model.profiles[name].lora is None
            ),
            loras={profile_id(model, name): lora for name in names if (lora := model.profiles[name].lora) is not None},
        )
        for owner, names in sharing.items()
    ]


def weights_of(model: ModelConfig) -> Mapping[str, str]:
    """For each profile the one whose weights it runs on: the default, or the first by name that loads alike."""
    owners: dict[str, str] = {}
    for name in sorted(model.profiles, key=lambda each: (each != DEFAULT_PROFILE, each)):
        identity = load_identity(model.profiles[name])
        owners[name] = next(
            (owner for owner in owners.values() if load_identity(model.profiles[owner]) == identity), name
        )
    return owners


def tasks_used(model: ModelConfig) -> tuple[str, ...]:
    """The tasks of all profiles that run on the weights of the default one, by name."""
    identity = load_identity(model.profiles[DEFAULT_PROFILE])
    sharing = (own for own in model.profiles.values() if load_identity(own) == identity)
    return tuple(sorted({task for own in sharing for task in tasks_of(own.adapter_options) if task is not None}))


def check_profile(model: ModelConfig, named: str, options: Mapping[str, Any]) -> str | None:
    """The profile that `options.profile` or `options.lora` asks for, if any; `named` is how the request names it.

    Raises:
        Problem: INVALID_INPUT when there is no such profile, or two of the three ask for different ones.
    """
    wanted: str | None = options.get("profile")
    if wanted is not None:
        wanted = profile_named(model, wanted)
    loras = _profiles_with_lora(model, options)
    if loras:
        wanted = wanted or _named(model, named) or loras[0]
        if wanted not in loras:
            raise invalid(f"profile '{wanted}' has another LoRA than the request asks for, or none; name one only")
    if wanted is None:
        return None
    if PROFILE_SEPARATOR in named and wanted != _named(model, named):
        raise invalid(f"the request names '{cut(named)}' and options.profile '{wanted}'; name one profile only")
    return wanted


def _named(model: ModelConfig, named: str) -> str | None:
    """The profile in the name by which a request calls a model."""
    return next((name for name in model.profiles if named.lower() == f"{model.sie_id}:{name}".lower()), None)


def _profiles_with_lora(model: ModelConfig, options: Mapping[str, Any]) -> list[str]:
    """The profiles with the LoRA that a request names by a profile or by its hub id; empty when it names none.

    Nothing else is a LoRA: no path and no id that the catalogue does not list.
    """
    loras = {name: profile.lora for name, profile in sorted(model.profiles.items()) if profile.lora is not None}
    found: list[str] | None = None
    for option in LORA_OPTIONS:
        wanted = options.get(option)
        if wanted is None:
            continue
        meant = {lora for name, lora in loras.items() if isinstance(wanted, str) and wanted in (name, lora.hf_id)}
        if not meant:
            known = f"it has: {', '.join(loras)}" if loras else "it has none"
            raise invalid(f"model '{model.sie_id}' has no LoRA {shown(wanted)} (options.{option}); {known}")
        own = sorted((name for name, lora in loras.items() if lora in meant), key=lambda name: (name != wanted, name))
        found = own if found is None else [name for name in found if name in own]
    if found == []:
        raise invalid("options.lora and options.lora_id ask for two LoRAs; name one")
    return found or []


def unknown(models: Mapping[str, ModelConfig], name: str) -> Problem:
    """The refusal of a name that is neither a model nor a profile; `models` by id in lower case."""
    if name.strip("/"):
        return unknown_model(models, name, "on this worker")
    message = "the request names no model; GET /v1/models lists what this worker has"
    return Problem(ErrorCode.MODEL_NOT_FOUND, message, details={"model": name[:MAX_SHOWN]})
