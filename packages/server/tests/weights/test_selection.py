import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_server.adapters.base import LoadError
from sie_server.core.lifecycle import ErrorClass
from sie_server.weights.selection import is_needed, select, select_lora
from sie_server.weights.snapshot import Snapshot

CODE = (
    "modeling.py",
    "1_Pooling/evil.py",
    "config.json.py",
    "setup.sh",
    "model.onnx",
    "onnx/model.safetensors",
    "x.pkl",
)
BERT = ["config.json", "tokenizer.json", "vocab.txt", "modules.json", "1_Pooling/config.json"]
TASK = ["separation/adapter_config.json", "separation/adapter_model.safetensors"]
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
PATHS = st.lists(st.sampled_from([*CODE, *BERT, *SHARDS, "model.safetensors", "pytorch_model.bin", "head_linear.pt"]))


@pytest.mark.parametrize(
    ("published", "chosen"),
    [
        ([*BERT, "model.safetensors", "README.md", "tf_model.h5"], [*BERT, "model.safetensors"]),
        ([*BERT, "model.safetensors", "pytorch_model.bin"], [*BERT, "model.safetensors"]),
        ([*BERT, *SHARDS, "consolidated.safetensors"], [*BERT, *SHARDS]),
        ([*BERT, *SHARDS, "model.safetensors"], [*BERT, "model.safetensors"]),
        (["gliner_config.json", "tokenizer.json", "model.safetensors", "labels_tokenizer/tokenizer.json"], None),
        (
            ["model.safetensors", "labels_tokenizer/tokenizer.json", "labels_tokenizer/vocab.txt", "x/tokenizer.json"],
            ["model.safetensors", "labels_tokenizer/tokenizer.json"],
        ),
        (["config.json", "encoder_config/config.json", "tokenizer.json", "model.safetensors"], None),
        (["config.json", "spiece.model", "sentencepiece.bpe.model", "model.safetensors"], None),
        (["0_StaticEmbedding/model.safetensors", "0_StaticEmbedding/tokenizer.json", "modules.json"], None),
        (["config.json", "model.safetensors", "2_Dense/model.safetensors", "query_0_Router/config.json"], None),
        (["config.json", "model.safetensors", "2_Dense_1024/model.safetensors", "2_Dense_1024/config.json"], None),
        (["config.json", "model.safetensors", "sparse_linear.safetensors", "colbert_linear.safetensors"], None),
        (
            ["model.safetensors", *TASK, "separation/adapter_model.bin", "step-9/adapter_config.json"],
            [*TASK, "model.safetensors"],
        ),
        (
            [
                "config.json",
                "model.safetensors",
                "sparse_linear.safetensors",
                "sparse_linear.pt",
                "adapter.safetensors",
            ],
            ["config.json", "model.safetensors", "sparse_linear.safetensors"],
        ),
    ],
)
def test_of_a_published_model_one_form_of_its_weights_is_fetched(
    published: list[str], chosen: list[str] | None
) -> None:
    for allow_pickle in (False, True):
        assert select(published, allow_pickle=allow_pickle) == sorted(chosen or published)


def test_pickles_are_fetched_where_allowed_and_nothing_safer_is_there() -> None:
    bge = [*BERT, "pytorch_model.bin", "sparse_linear.pt", "colbert_linear.pt", "optimizer.pt", "training_args.bin"]
    assert set(bge) - set(select(bge, allow_pickle=True)) == {"optimizer.pt", "training_args.bin"}
    with pytest.raises(LoadError, match=r"pytorch_model\.bin.*allow_pickle: true") as refused:
        select(bge, allow_pickle=False)
    assert refused.value.error_class is ErrorClass.DEPENDENCY
    half_safe = [*BERT, "model.safetensors", "2_Dense/pytorch_model.bin"]
    assert select(half_safe, allow_pickle=True) == sorted(half_safe)
    with pytest.raises(LoadError, match="2_Dense"):
        select(half_safe, allow_pickle=False)


def test_a_graph_is_fetched_in_place_of_tensors_with_the_file_it_keeps_its_numbers_in() -> None:
    graph = "onnx/model_q4.onnx"
    published = [*BERT, "model.safetensors", graph, f"{graph}_data", "onnx/model.onnx", "../up.onnx"]
    assert set(select(published, allow_pickle=False, graph=graph)) == {*BERT, graph, f"{graph}_data"}
    with pytest.raises(LoadError, match=r"no onnx/other\.onnx") as refused:
        select(published, allow_pickle=False, graph="onnx/other.onnx")
    assert refused.value.error_class is ErrorClass.NOT_FOUND
    assert not is_needed("../up.onnx", allow_pickle=False, graph="../up.onnx")


def test_a_repository_without_weights_is_refused() -> None:
    with pytest.raises(LoadError, match=r"no model\.safetensors") as refused:
        select(BERT, allow_pickle=True)
    assert refused.value.error_class is ErrorClass.NOT_FOUND


@given(PATHS, st.booleans())
def test_code_is_never_chosen_and_pickles_only_where_allowed(published: list[str], allow_pickle: bool) -> None:
    try:
        chosen = select(published, allow_pickle=allow_pickle)
    except LoadError:
        return
    assert set(chosen) <= set(published)
    assert not set(chosen) & set(CODE)
    assert allow_pickle or not any(path.endswith((".bin", ".pt")) for path in chosen)


@given(st.text("abc./\\_-0123456789jsonmdel", max_size=20).map(lambda text: f"{text}.json"))
def test_no_needed_file_leaves_its_folder(path: str) -> None:
    if is_needed(path, allow_pickle=True):
        assert ".." not in path.split("/")
        assert not path.startswith(("/", "."))
        assert path.count("/") <= 1


def test_a_lora_is_its_two_files_and_never_a_pickle() -> None:
    published = ["README.md", "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin", "tokenizer.json"]
    assert select_lora(published) == ["adapter_config.json", "adapter_model.safetensors"]
    with pytest.raises(LoadError, match=r"no adapter_model\.safetensors, so it is no LoRA") as refused:
        select_lora(["adapter_config.json", "adapter_model.bin"])
    assert refused.value.error_class is ErrorClass.NOT_FOUND
    lora = Snapshot("org/m", lora=True)
    assert [path for path in (*published, "../adapter_config.json", "config.json") if lora.has(path)] == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert lora.entry != Snapshot("org/m").entry
