"""Resolves what one request wants: the request beats the profile, the profile beats the default."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sie_protocol.catalog import DEFAULT_PROFILE, ModelConfig, ProfileConfig
from sie_protocol.errors import MAX_SHOWN, ErrorCode, Problem, about_item
from sie_protocol.items import EncodeParams, Item
from sie_protocol.names import suggestion
from sie_protocol.profiles import MUVERA, Muvera, muvera_of
from sie_server.core.extract_options import EXTRACT_OPTIONS
from sie_server.core.tasks import DOC_TASK, QUERY_TASK

T = TypeVar("T")

DTYPES: Final = ("float32", "float16", "int8", "uint8", "binary", "ubinary")
OVERFLOW_POLICIES: Final = ("default", "truncate_text", "error")
# Of what stands around every text of a request: a prompt is made for each of thousands of items.
MAX_INSTRUCTION_CHARS: Final = 10_000
MAX_TEMPLATE_CHARS: Final = 10_000
MAX_PLACES: Final = 2  # of the text, and of the instruction: some read a text twice
# Which profile a request means; `core.profiles.check_profile` reads them.
LORA_OPTIONS: Final = ("lora", "lora_id")
REQUEST_OPTIONS: Final = frozenset({"profile", "is_query", *LORA_OPTIONS})
# Runtime options: a profile may set them, and a request may override them. One set for all tasks, because clients have
# defaults for all their calls: what belongs to another task changes nothing.
RUNTIME_OPTIONS: Final = frozenset(
    {
        *EXTRACT_OPTIONS,
        "query_template",
        "instructed_query_template",
        "doc_template",
        "instruction",
        "default_instruction",
        "output_types",
        "output_dtype",
        "overflow_policy",
        "score_mode",
        "score_weights",
        "similarity",
    }
)
# What a profile may say without weights of its own, and a request may not.
PROFILE_OPTIONS: Final = frozenset({MUVERA, QUERY_TASK, DOC_TASK})
_SLOT = re.compile(r"\{(text|instruction)\}")


@dataclass(frozen=True, slots=True)
class Prompt:
    """How a text becomes what the model reads.

    `template` may hold `{text}` and `{instruction}`; every other brace is a plain character. Without a place for the
    instruction it goes in front of the text.
    """

    template: str = "{text}"
    instruction: str = ""

    def apply(self, text: str) -> str:
        """The prompt for one text; nothing inside the text or the instruction is interpreted."""
        if self.instruction and "{instruction}" not in self.template:
            text = f"{self.instruction} {text}"
        if self.template == "{text}":
            return text
        values = {"text": text, "instruction": self.instruction}
        return _SLOT.sub(lambda slot: values[slot[1]], self.template)


@dataclass(frozen=True, slots=True)
class EncodeOptions:
    """One encode request, resolved: which outputs, in which dtype, of which prompt, for a query or a document.

    `may_cut`: a text that is too long loses its end, else it is refused. `muvera`: the dense vectors are made of the
    token vectors.
    """

    output_types: tuple[str, ...]
    output_dtype: str
    prompt: Prompt
    is_query: bool
    may_cut: bool
    muvera: Muvera | None = None

    @property
    def computed(self) -> frozenset[str]:
        """What the adapter has to give for the outputs."""
        return computed_for(self.output_types, self.muvera)


def load_options(profile: ProfileConfig) -> dict[str, Any]:
    """The adapter's part of a profile's options: what is fixed once the model is loaded."""
    apart = RUNTIME_OPTIONS | PROFILE_OPTIONS
    return {key: value for key, value in without_nulls(profile.adapter_options).items() if key not in apart}


def load_identity(profile: ProfileConfig) -> tuple[object, ...]:
    """What decides which weights a profile runs on, and how they are loaded; equal ones share.

    A LoRA is no part of it, nor are tasks: they go on top, request by request.
    """
    return profile.adapter, profile.compute_precision, load_options(profile)


def resolve_encode(model: ModelConfig, params: EncodeParams) -> EncodeOptions:
    """Resolve one encode request against its model.

    Raises:
        Problem: INVALID_INPUT; the message names what was asked and what the model has.
    """
    if model.tasks.encode is None:
        raise no_such_task(model, "encode")
    options = merged_options(model, params.options or {})
    is_query = options.get("is_query", False)
    if not isinstance(is_query, bool):
        raise invalid(f"options.is_query is {shown(is_query)}; expected true or false")
    types = output_types(model, _first(params.output_types, options.get("output_types")))
    return EncodeOptions(
        types,
        _dtype(_first(params.output_dtype, options.get("output_dtype"))),
        prompt_of(options, params.instruction, is_query=is_query),
        is_query,
        may_cut(options),
        muvera_of(model, options) if "dense" in types else None,
    )


def computed_for(outputs: Iterable[str], muvera: Muvera | None) -> frozenset[str]:
    """What an adapter has to give for these outputs, when `muvera` makes the dense one of token vectors."""
    return frozenset("multivector" if kind == "dense" and muvera else kind for kind in outputs)


def merged_options(model: ModelConfig, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The request's options over those of the profile it names.

    Raises:
        Problem: INVALID_INPUT for an unknown profile or option.
    """
    asked = without_nulls(asked)
    profile = _profile(model, asked.get("profile", DEFAULT_PROFILE))
    unknown = sorted(set(asked) - REQUEST_OPTIONS - RUNTIME_OPTIONS)
    if unknown:
        known = sorted(REQUEST_OPTIONS | RUNTIME_OPTIONS)
        meant = suggestion(unknown[0], known) or f"; known options: {', '.join(known)}"
        raise invalid(f"options {cut(', '.join(unknown))} cannot be set per request{meant}")
    return without_nulls({**profile.adapter_options, **asked})


def without_nulls(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options without those that are null, which is how some clients spell what they do not say."""
    return {name: value for name, value in options.items() if value is not None}


def prompt_of(options: Mapping[str, Any], own_instruction: str | None, *, is_query: bool) -> Prompt:
    """The prompt of one side; `own_instruction` is the caller's, which beats those among the options.

    Raises:
        Problem: INVALID_INPUT for an instruction that is no text, or a template that is none with a place for the text;
            INPUT_TOO_LONG.
    """
    instruction = own_instruction or _text(options, "instruction") or _text(options, "default_instruction")
    check_chars("the instruction", instruction, MAX_INSTRUCTION_CHARS)
    template = _template(options, "query_template" if is_query else "doc_template") or "{text}"
    instructed = _template(options, "instructed_query_template")
    if is_query and own_instruction:
        template = instructed or template
    if not own_instruction and "{instruction}" not in template:
        instruction = ""  # a default fills its place in a template; only the caller's own goes in front of a text
    return Prompt(template, instruction)


def may_cut(options: Mapping[str, Any]) -> bool:
    """Whether inputs that are too long lose their end; every model's default is that they do.

    Raises:
        Problem: INVALID_INPUT for a policy that there is not.
    """
    policy = options.get("overflow_policy", OVERFLOW_POLICIES[0])
    if policy not in OVERFLOW_POLICIES:
        raise invalid(f"options.overflow_policy is {shown(policy)}; expected one of: {', '.join(OVERFLOW_POLICIES)}")
    return bool(policy != "error")


def no_such_task(model: ModelConfig, task: str) -> Problem:
    """The refusal of a task that a model does not have."""
    tasks = [name for name in ("encode", "score", "extract") if getattr(model.tasks, name) is not None]
    return invalid(f"model '{model.sie_id}' has no task '{task}'; it has: {', '.join(tasks)}")


def no_such_profile(model: ModelConfig, name: object) -> Problem:
    """The refusal of a profile that a model does not have."""
    return invalid(f"model '{model.sie_id}' has no profile {shown(name)}; it has: {', '.join(sorted(model.profiles))}")


def shown(value: object) -> str:
    """What a caller sent, as a refusal says it: as Python writes it, but no more of it than helps."""
    try:
        return cut(repr(value))
    except (ValueError, RecursionError):  # a number of thousands of digits, lists in lists without end
        return f"a value of type {type(value).__name__} that is too large to show"


def cut(text: str) -> str:
    """The beginning of a text of the caller's, or all if it is short."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def profile_named(model: ModelConfig, name: object) -> str:
    """The profile that a caller means; as in the name of a model, case does not matter.

    Raises:
        Problem: INVALID_INPUT.
    """
    lowered = name.lower() if isinstance(name, str) else None
    found = next((each for each in model.profiles if each.lower() == lowered), None)
    if found is None:
        raise no_such_profile(model, name)
    return found


def of_each(items: Sequence[Item], read: Callable[[str, Item], T]) -> list[T]:
    """What `read` makes of each item and of what it is called; its refusals tell which item they are about."""
    made = []
    for at, item in enumerate(items):
        try:
            made.append(read(f"item {at}", item))
        except Problem as problem:
            raise about_item(problem, at) from problem.__cause__
    return made


def check_chars(what: str, text: str, limit: int) -> None:
    """Refuse a text of the caller's that is too long.

    Raises:
        Problem: INPUT_TOO_LONG.
    """
    if len(text) > limit:
        raise Problem(ErrorCode.INPUT_TOO_LONG, f"{what} has {len(text)} characters, the limit is {limit}")


def invalid(message: str) -> Problem:
    """A refusal of what the caller sent."""
    return Problem(ErrorCode.INVALID_INPUT, message)


def _profile(model: ModelConfig, name: object) -> ProfileConfig:
    profile = model.profiles[profile_named(model, name)]
    if load_identity(profile) != load_identity(model.profiles[DEFAULT_PROFILE]):
        raise invalid(f"profile '{name}' has weights of its own; ask for model '{model.sie_id}:{name}'")
    return profile


def _first(asked: object, otherwise: object) -> object:
    """An empty value is a value: only what was not said falls back."""
    return otherwise if asked is None else asked


def _text(options: Mapping[str, Any], key: str) -> str:
    value = options.get(key)
    if value is not None and not isinstance(value, str):
        raise invalid(f"options.{key} is {shown(value)}; expected a text")
    return value or ""


def _template(options: Mapping[str, Any], key: str) -> str:
    template = _text(options, key)
    check_chars(f"options.{key}", template, MAX_TEMPLATE_CHARS)
    if template and "{text}" not in template:
        raise invalid(f"options.{key} is {shown(template)}; expected a text with {{text}}, where the input goes")
    for place in ("{text}", "{instruction}"):
        if (count := template.count(place)) > MAX_PLACES:
            raise invalid(f"options.{key} has {place} {count} times; it may be there {MAX_PLACES} times")
    return template


def output_types(model: ModelConfig, wanted: object) -> tuple[str, ...]:
    """The outputs that are wanted, each once; without a wish the dense one, or the first that the model has.

    Raises:
        Problem: INVALID_INPUT naming outputs that the model does not have.
    """
    has = tuple(model.dims)
    if wanted is None:
        return ("dense",) if "dense" in has else has[:1]
    if not isinstance(wanted, list) or not wanted or not all(isinstance(each, str) for each in wanted):
        raise invalid(f"output_types is {shown(wanted)}; expected a list of names")
    missing = [each for each in wanted if each not in has]
    if missing:
        raise invalid(f"model '{model.sie_id}' has no output {cut(', '.join(missing))}; it has: {', '.join(has)}")
    return tuple(dict.fromkeys(wanted))


def _dtype(wanted: object) -> str:
    if wanted is None:
        return DTYPES[0]
    if wanted not in DTYPES:
        raise invalid(f"output_dtype {shown(wanted)} is not supported; supported: {', '.join(DTYPES)}")
    return str(wanted)
