from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_protocol.catalog import Catalog, build_catalog, decode_bundle, decode_model
from sie_protocol.errors import DID_YOU_MEAN, MODELS_HINT, ErrorCode, Problem
from sie_protocol.hashing import bundle_config_hash
from sie_protocol.target import ModelRef

MODEL = """
sie_id: {id}
hf_id: {id}
tasks: {{encode: {{dense: {{dim: 8}}}}}}
profiles:
  default: {{adapter: {adapter}, adapter_options: {{pooling: cls}}}}
"""


def model(name: str, adapter: str = "dense") -> bytes:
    return MODEL.format(id=name, adapter=adapter).encode()


def catalog() -> Catalog:
    models = [decode_model(model("BAAI/bge-m3")), decode_model(model("org/llm", "big"))]
    bundles = [
        decode_bundle(b"{name: late, adapters: [dense, big], priority: 20}"),
        decode_bundle(b"{name: default, adapters: [dense], priority: 10}"),
    ]
    return build_catalog(models, bundles)


def test_lookup_ignores_case_and_answers_with_the_published_spelling() -> None:
    found, bundle = catalog().resolve(ModelRef("baai/BGE-M3"))
    assert (found.sie_id, bundle) == ("BAAI/bge-m3", "default")


def test_a_bundle_with_lower_priority_number_is_preferred_and_another_able_one_can_be_insisted_on() -> None:
    assert catalog().resolve(ModelRef("BAAI/bge-m3", "late"))[1] == "late"
    assert catalog().resolve(ModelRef("org/llm"))[1] == "late"


@pytest.mark.parametrize(
    ("ref", "code"),
    [
        (ModelRef("nobody/knows"), ErrorCode.MODEL_NOT_FOUND),
        (ModelRef("org/llm", "default"), ErrorCode.BUNDLE_CONFLICT),
        (ModelRef("org/llm", "typo"), ErrorCode.BUNDLE_CONFLICT),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(ref: ModelRef, code: ErrorCode) -> None:
    with pytest.raises(Problem) as refusal:
        catalog().resolve(ref)
    assert refusal.value.code is code
    assert ref.name in refusal.value.message


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("bge-m3", "is not in the catalogue; did you mean BAAI/bge-m3?"),
        ("BAAI/bge-m3:nope", "model 'BAAI/bge-m3' has no profile 'nope'; it has: default"),
        ("nobody/knows", f"is not in the catalogue; {MODELS_HINT}"),
        ("org/llm2", "is not in the catalogue; did you mean org/llm?"),
        ("org/llm3" * 100, f"is not in the catalogue; {MODELS_HINT}"),
    ],
)
def test_an_unknown_name_is_told_what_may_be_meant(name: str, end: str) -> None:
    with pytest.raises(Problem) as refusal:
        catalog().resolve(ModelRef(name))
    assert refusal.value.message.endswith(end)
    assert len(refusal.value.message) < 300
    assert bool(refusal.value.details.get(DID_YOU_MEAN)) == ("did you mean" in end)


@pytest.mark.parametrize(
    "text",
    [
        b"sie_id: a",
        b"[]",
        b"{",
        model("a") + b"colour: red\n",
        model("../etc/passwd"),
        model("a//b"),
        model("a").replace(b"default:", b"other:"),
        model("a").replace(b"dim: 8", b"dim: eight"),
    ],
)
def test_a_model_file_with_a_fault_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        decode_model(text)


def test_the_same_model_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        build_catalog([decode_model(model("A/b")), decode_model(model("a/B"))], [])


@given(st.permutations(["a", "b", "c"]))
def test_the_hash_does_not_depend_on_the_order_of_models(order: list[str]) -> None:
    forward = [decode_model(model(name)) for name in ("a", "b", "c")]
    assert bundle_config_hash(decode_model(model(name)) for name in order) == bundle_config_hash(forward)


def test_the_hash_changes_with_what_decides_how_a_model_runs_and_is_empty_for_nothing() -> None:
    one = decode_model(model("a"))
    other = decode_model(model("a").replace(b"cls", b"mean"))
    assert bundle_config_hash([one]) != bundle_config_hash([other])
    assert bundle_config_hash([]) == ""


def test_every_file_of_the_shipped_catalogue_is_valid_and_runnable() -> None:
    folder = Path(__file__).parents[2] / "server/src/sie_server/catalog"
    models = [decode_model(file.read_bytes()) for file in folder.glob("models/*.yaml")]
    bundles = [decode_bundle(file.read_bytes()) for file in folder.glob("bundles/*.yaml")]
    shipped = build_catalog(models, bundles)
    assert models
    assert all(shipped.bundles_of(each) for each in models)


@pytest.mark.parametrize("labels", ["required", "optional", "none"])
def test_a_model_says_whether_it_reads_labels(labels: str) -> None:
    text = b"sie_id: a\ntasks: {extract: {labels: %s}}\nprofiles: {default: {adapter: nli}}" % labels.encode()
    extract = decode_model(text).tasks.extract
    assert extract is not None
    assert extract.labels == labels
    with pytest.raises(ValueError, match="labels"):
        decode_model(text.replace(labels.encode(), b"sometimes"))


def test_a_model_may_say_how_short_its_vectors_can_be() -> None:
    text = model("org/m").replace(b"dim: 8", b"dim: 8, min_dim: 4")
    encode = decode_model(text).tasks.encode
    assert encode is not None
    assert encode.dense is not None
    assert (encode.dense.dim, encode.dense.min_dim) == (8, 4)


PROFILES = b"""
sie_id: org/m
tasks: {encode: {dense: {dim: 8}}}
profiles:
  default: {adapter: dense, max_batch_tokens: 100, adapter_options: {pooling: cls, normalize: true}}
  half: {extends: default, compute_precision: float16, max_batch_tokens: null, adapter_options: {pooling: mean}}
"""


def test_a_profile_that_extends_another_has_all_of_it_but_what_it_says_itself() -> None:
    half = decode_model(PROFILES).profiles["half"]
    assert (half.adapter, half.max_batch_tokens, half.compute_precision) == ("dense", 100, "float16")
    assert half.adapter_options == {"pooling": "mean", "normalize": True}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (PROFILES + b"  third: {extends: half}\n", "one level is allowed"),
        (PROFILES + b"  third: {extends: none}\n", "does not exist"),
        (PROFILES + b"  third: {extends: [default]}\n", "does not exist"),
        (PROFILES + b"  third: {extends: default, typo: 1}\n", "typo"),
        (PROFILES + b"  third: 3\n", "int"),
    ],
)
def test_a_profile_that_cannot_be_completed_is_refused(text: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        decode_model(text)


def test_a_profile_is_found_behind_its_model() -> None:
    found = build_catalog([decode_model(PROFILES)], [])
    assert found.find("ORG/m:Half") is found.find("org/m") is not None
    assert found.find("org/m:none") is None


LORA = PROFILES + b"  law: {extends: default, lora: {hf_id: org/law, hf_revision: abc}}\n"


def test_a_profile_may_have_a_lora_on_top_and_that_decides_how_it_runs() -> None:
    found = decode_model(LORA)
    law = found.profiles["law"]
    assert law.lora is not None
    assert (law.lora.hf_id, law.lora.hf_revision, law.lora.name) == ("org/law", "abc", "org/law")
    assert (law.adapter, found.profiles["default"].lora) == ("dense", None)
    assert bundle_config_hash([found]) != bundle_config_hash([decode_model(LORA.replace(b"abc", b"abd"))])


@pytest.mark.parametrize(
    ("profile", "why"),
    [
        (b"{extends: default, lora: {}}", "profile 'law' names no weights"),
        (b"{extends: default, lora: {hf_revision: abc}}", "profile 'law' names no weights"),
        (b"{extends: default, lora: {hf_id: org/law, typo: 1}}", "typo"),
        (b"{extends: default, lora: org/law}", "lora"),
        (b"{extends: default, adapter_options: {lora: org/law}}", "'lora' stands beside them"),
        (b"{extends: default, adapter_options: {lora_id: org/law}}", "'lora' stands beside them"),
    ],
)
def test_a_lora_that_would_not_be_used_is_refused(profile: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        decode_model(PROFILES + b"  law: " + profile + b"\n")
