"""What a catalogue file may say to an adapter; a wrong word is found when the file is read."""

import re
from pathlib import Path
from typing import Any

import pytest

import sie_server.adapters
from sie_protocol.catalog import EncodeTask, ExtractTask, ModelConfig, ProfileConfig, Tasks, VectorTask
from sie_server.adapters.registry import ADAPTERS
from sie_server.core.load_options import LOAD_OPTIONS, check_options
from sie_server.core.options import PROFILE_OPTIONS, RUNTIME_OPTIONS, load_options

DENSE = Tasks(encode=EncodeTask(dense=VectorTask(8)))
READ = re.compile(r"""options(?:\.get\(|\[)"([a-z0-9_]+)\"""")


def check(adapter: str, options: dict[str, Any], tasks: Tasks = DENSE) -> None:
    profile = ProfileConfig(adapter, adapter_options=options)
    check_options(ModelConfig(sie_id="org/m", tasks=tasks, profiles={"default": profile}), "default")


def test_every_adapter_says_what_it_takes_and_takes_what_its_code_reads() -> None:
    sources = "\n".join(file.read_text() for file in Path(sie_server.adapters.__path__[0]).rglob("*.py"))
    known = {name for options in LOAD_OPTIONS.values() for name in options}
    assert LOAD_OPTIONS.keys() == ADAPTERS.keys()
    assert set(READ.findall(sources)) <= known | RUNTIME_OPTIONS | PROFILE_OPTIONS


@pytest.mark.parametrize(
    ("adapter", "options", "said"),
    [
        ("dense", {"poolin": "cls"}, "has no option 'poolin'; did you mean pooling"),
        ("dense", {"normalise": False}, "did you mean normalize"),
        ("dense", {"normalize": "false"}, "normalize is 'false'; expected true or false"),
        ("dense", {"pooling": "meen"}, "pooling is 'meen'; expected one of: mean, cls, last"),
        ("dense", {"query_length": 32}, "has no option 'query_length'"),
        ("colbert", {"query_length": 0}, "query_length is 0; expected"),
        ("vision", {"clean": "wash"}, "clean is 'wash'; expected one of: lower, strip"),
        ("florence2", {"tasks": "<A>"}, "tasks is '<A>'; expected a list of at most 100 texts, each once"),
        ("sparse", {"log1p": True}, "log1p is True; expected one of: 1, 2"),
        ("dense", {"doc_template": "passage: {txt}"}, "doc_template is 'passage: {txt}'; expected a text with {text}"),
        ("dense", {"query_template": "query"}, "expected a text with {text}"),
        ("dense", {"similarity": "cosin"}, "similarity is 'cosin'"),
        ("dense", {"output_dtype": "float64"}, "output_dtype 'float64' is not supported"),
    ],
)
def test_a_wrong_word_is_named_with_the_right_one(adapter: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match="profile 'default' of model 'org/m'") as refusal:
        check(adapter, options)
    assert said in str(refusal.value)


def test_what_extracting_models_say_is_checked_too() -> None:
    with pytest.raises(ValueError, match="threshold is 50; expected a number from 0 to 1"):
        check("gliner", {"threshold": 50}, Tasks(extract=ExtractTask()))


def test_null_is_nothing_said_and_unknown_adapters_may_say_anything() -> None:
    check("dense", {"pooling": None, "query_template": None})
    check("made_elsewhere", {"anything": 1})
    assert load_options(ProfileConfig("dense", adapter_options={"pooling": None, "normalize": True})) == {
        "normalize": True
    }
