"""What a catalogue may say about loading a model, adapter by adapter.

It is written here and not in the adapters, which import torch, so that a worker refuses a misspelt or mistyped option
when it reads the catalogue. Ignored, it would give vectors that look fine and search badly.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from sie_protocol.catalog import ModelConfig
from sie_protocol.errors import Problem
from sie_protocol.items import EncodeParams
from sie_protocol.names import suggestion
from sie_protocol.profiles import offered
from sie_server.core.checks import ANY_TEXT, SECONDS, SWITCH, Check, one_of, texts, whole
from sie_server.core.extract_options import EXTRACT_OPTIONS
from sie_server.core.options import PROFILE_OPTIONS, RUNTIME_OPTIONS, load_options, resolve_encode, shown, without_nulls
from sie_server.core.scoring import resolve_score
from sie_server.core.tasks import tasks_of

MAX_TASKS: Final = 100
MAX_TASK_CHARS: Final = 100
LOAD_OPTIONS: Final[Mapping[str, Mapping[str, Check]]] = MappingProxyType(
    {
        "bge_m3": {},
        "colbert": {
            "doc_marker": ANY_TEXT,
            "expansion_seen": SWITCH,
            "query_expansion": SWITCH,
            "query_length": whole("tokens", 1),
            "query_marker": ANY_TEXT,
            "skip_punctuation": SWITCH,
        },
        "colvision": {},
        "cross_encoder": {},
        "dense": {
            "end_token": ANY_TEXT,
            "is_causal": SWITCH,
            "normalize": SWITCH,
            "pooling": one_of("mean", "cls", "last"),
        },
        "donut": {},
        "florence2": {"tasks": texts(MAX_TASKS, MAX_TASK_CHARS)},
        "gliclass": {},
        "gliner": {},
        "gliner2": {},
        "glirel": {},
        "grounding_dino": {},
        "hash": {"batch_s": SECONDS, "load_s": SECONDS},
        "instructed": {
            "doc_prompt_end": ANY_TEXT,
            "end_token": ANY_TEXT,
            "normalize": SWITCH,
            "query_prompt_end": ANY_TEXT,
            "start_token_counts": SWITCH,
        },
        "judge": {
            "activation": ANY_TEXT,
            "no": ANY_TEXT,
            "prefix": ANY_TEXT,
            "separator": ANY_TEXT,
            "suffix": ANY_TEXT,
            "yes": ANY_TEXT,
        },
        "nli": {},
        "onnx_token_classifier": {"graph": ANY_TEXT},
        "owlv2": {},
        "sparse": {"drop_special": SWITCH, "log1p": one_of(1, 2), "query_weights": ANY_TEXT},
        "token_classifier": {},
        "vision": {"clean": one_of("lower", "strip"), "normalize": SWITCH, "pad_token": ANY_TEXT},
    }
)


def check_options(model: ModelConfig, profile: str) -> None:
    """Check what a profile says in `adapter_options`; those of adapters that are not listed here pass.

    Raises:
        ValueError: an option does not exist or is not what it may be; the message names it.
    """
    own = model.profiles[profile]
    where = f"profile '{profile}' of model '{model.sie_id}'"
    known = LOAD_OPTIONS.get(own.adapter)
    for name, value in load_options(own).items():
        if known is None:
            break
        if name not in known:
            meant = suggestion(name, (*known, *RUNTIME_OPTIONS, *PROFILE_OPTIONS))
            its = f"its own options: {', '.join(known) or 'none'}"
            raise ValueError(f"{where}: adapter '{own.adapter}' has no option '{name}'{meant or '; ' + its}")
        _check(where, name, value, known[name])
    for name, value in without_nulls(own.adapter_options).items():
        if name in EXTRACT_OPTIONS:
            _check(where, name, value, EXTRACT_OPTIONS[name])
    callers_see = offered(model, profile)
    try:
        tasks_of(own.adapter_options)
        if model.tasks.encode is not None:
            resolve_encode(callers_see, EncodeParams())
        if model.tasks.score is not None or model.dims:
            resolve_score(callers_see, None, {})
    except (Problem, ValueError) as wrong:
        raise ValueError(f"{where}: {wrong}") from wrong


def _check(where: str, name: str, value: object, check: Check) -> None:
    is_right, expected = check
    if not is_right(value):
        raise ValueError(f"{where}: adapter_options.{name} is {shown(value)}; expected {expected}")
