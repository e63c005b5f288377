import pytest
from msgspec.structs import replace

from sie_protocol.catalog import EncodeTask, LoraConfig, ModelConfig, ProfileConfig, Tasks, VectorTask
from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.items import EncodeParams
from sie_protocol.profiles import under
from sie_server.core.load_options import check_options
from sie_server.core.options import resolve_encode
from sie_server.core.profiles import weights_of
from sie_server.core.tasks import BySide
from sie_server.engine.slots import Slots, spec_of

MODEL = ModelConfig(
    "org/m",
    Tasks(encode=EncodeTask(dense=VectorTask(8), sparse=VectorTask(9))),
    {
        "default": ProfileConfig("dense", adapter_options={"pooling": "mean"}),
        "short": ProfileConfig("dense", 100, adapter_options={"pooling": "mean", "doc_template": "s: {text}"}),
        "half": ProfileConfig("dense", compute_precision="float16", adapter_options={"pooling": "mean"}),
        "half-sparse": ProfileConfig(
            "dense", compute_precision="float16", adapter_options={"pooling": "mean", "output_types": ["sparse"]}
        ),
        "cls": ProfileConfig("dense", adapter_options={"pooling": "cls"}),
        "Other": ProfileConfig("other", adapter_options={"pooling": "mean"}),
    },
)


def slots() -> Slots:
    return Slots({"org/m": MODEL})


def test_profiles_that_load_alike_share_one_set_of_weights() -> None:
    assert weights_of(MODEL) == {
        "default": "default",
        "short": "default",
        "half": "half",
        "half-sparse": "half",
        "cls": "cls",
        "Other": "Other",
    }
    held = {slot.name: slot for slot in slots()}
    assert set(held) == {"org/m", "org/m:half", "org/m:cls", "org/m:Other"}
    assert held["org/m"].weights.aliases == ("org/m:short",)
    assert held["org/m"].weights.max_batch_tokens == 100  # batches mix its profiles: the smallest bound holds
    assert held["org/m:half"].model.profiles["default"].compute_precision == "float16"


@pytest.mark.parametrize(
    ("name", "options", "expected", "weights"),
    [
        ("org/m", {}, "org/m", "org/m"),
        ("ORG/M:Default", {}, "org/m", "org/m"),
        ("org/m:SHORT", {}, "org/m:short", "org/m"),
        ("org/m", {"profile": "short"}, "org/m:short", "org/m"),
        ("org/m:short", {"profile": "short"}, "org/m:short", "org/m"),
        ("org/m", {"profile": "half-sparse"}, "org/m:half-sparse", "org/m:half"),
        ("org/m:other", {}, "org/m:Other", "org/m:Other"),
    ],
)
def test_a_profile_is_named_behind_the_model_or_among_the_options(
    name: str, options: dict[str, object], expected: str, weights: str
) -> None:
    choice = slots().find(name, options)
    assert (choice.name, choice.slot.name) == (expected, weights)


@pytest.mark.parametrize(
    ("name", "options", "code"),
    [
        ("org/x", {}, ErrorCode.MODEL_NOT_FOUND),
        ("org/m:none", {}, ErrorCode.MODEL_NOT_FOUND),
        ("org/m", {"profile": "none"}, ErrorCode.INVALID_INPUT),
        ("org/m", {"profile": ["short"]}, ErrorCode.INVALID_INPUT),
        ("org/m:half", {"profile": "short"}, ErrorCode.INVALID_INPUT),
    ],
)
def test_what_is_no_profile_or_two_of_them_is_refused(name: str, options: dict[str, object], code: ErrorCode) -> None:
    with pytest.raises(Problem) as refused:
        slots().find(name, options)
    assert refused.value.code is code


def test_the_request_beats_the_profile_and_the_profile_beats_the_default() -> None:
    model = under(MODEL, "half-sparse")
    assert resolve_encode(model, EncodeParams()).output_types == ("sparse",)
    assert resolve_encode(model, EncodeParams(output_types=["dense"])).output_types == ("dense",)
    assert resolve_encode(MODEL, EncodeParams()).output_types == ("dense",)
    with pytest.raises(Problem, match="expected a list of names"):
        resolve_encode(model, EncodeParams(output_types=[]))  # empty is a value, not silence


LAW, BANK = LoraConfig(hf_id="org/law"), LoraConfig(hf_id="org/bank")
PLAIN = ProfileConfig("dense", adapter_options={"pooling": "mean"})
WITH_LORAS = ModelConfig(
    "org/m",
    Tasks(encode=EncodeTask(dense=VectorTask(8))),
    {
        "default": PLAIN,
        "bank": replace(PLAIN, lora=BANK),
        "law": replace(PLAIN, lora=LAW),
        "law-short": replace(PLAIN, lora=LAW, adapter_options={"pooling": "mean", "doc_template": "s: {text}"}),
    },
)


def test_profiles_that_differ_in_their_lora_share_the_weights_and_are_no_names_of_them() -> None:
    (held,) = Slots({"org/m": WITH_LORAS})
    assert (held.name, held.weights.aliases) == ("org/m", ())
    assert held.weights.loras == {"org/m:bank": BANK, "org/m:law": LAW, "org/m:law-short": LAW}


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("org/m", {"lora": "org/law"}, "org/m:law"),
        ("org/m", {"lora": "law-short"}, "org/m:law-short"),
        ("org/m", {"lora": "org/law", "profile": "law-short"}, "org/m:law-short"),
        ("ORG/M:Law-Short", {"lora_id": "org/law"}, "org/m:law-short"),
        ("org/m", {"lora": "law", "lora_id": "org/law"}, "org/m:law"),
        ("org/m", {"lora": None}, "org/m"),
    ],
)
def test_a_lora_means_the_profile_that_has_it(name: str, options: dict[str, object], expected: str) -> None:
    assert Slots({"org/m": WITH_LORAS}).find(name, options).name == expected


WITH_TASKS = ModelConfig(
    "org/m",
    Tasks(encode=EncodeTask(dense=VectorTask(8))),
    {
        "default": ProfileConfig("dense", adapter_options={"query_task": "ask", "doc_task": "tell"}),
        "alike": ProfileConfig("dense", adapter_options={"query_task": "alike", "doc_task": "alike"}),
        "plain": ProfileConfig("dense"),
        "half": ProfileConfig("dense", compute_precision="float16", adapter_options={"doc_task": "half"}),
    },
)


def test_profiles_that_differ_in_their_tasks_share_the_weights_which_have_those_of_all() -> None:
    held = {slot.name: slot for slot in Slots({"org/m": WITH_TASKS})}
    assert {name: spec_of(slot.model).tasks for name, slot in held.items()} == {
        "org/m": ("alike", "ask", "tell"),
        "org/m:half": ("half",),
    }
    slots = Slots({"org/m": WITH_TASKS})
    assert slots.find("org/m", {}).tasks == BySide("ask", "tell")
    assert slots.find("org/m:alike", {}).tasks == BySide("alike", "alike")
    assert slots.find("org/m", {"profile": "plain"}).tasks == BySide()
    assert slots.find("org/m:half", {}).tasks == BySide(None, "half")


@pytest.mark.parametrize("wrong", [7, "", ["ask"]])
def test_a_task_that_is_no_name_is_refused_with_the_profile_that_says_it(wrong: object) -> None:
    model = replace(WITH_TASKS, profiles={"default": ProfileConfig("dense", adapter_options={"doc_task": wrong})})
    with pytest.raises(ValueError, match=r"profile 'default' of model 'org/m': doc_task is .*; expected the name"):
        check_options(model, "default")
