import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from sie_server.adapters.base import LoadError
from sie_server.adapters.shared.weight_files import graph_bytes, tensor_bytes
from sie_server.adapters.shared.weights import read_pickle, read_tensors
from sie_server.core.lifecycle import ErrorClass

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int64)
SHAPES = st.lists(st.tuples(st.lists(st.integers(0, 5), max_size=3), st.sampled_from(DTYPES)), min_size=1, max_size=5)


class Evil:
    """Says so when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.proof,)


def write_shards(folder: Path, *shards: dict[str, torch.Tensor]) -> Path:
    weight_map = {}
    for at, shard in enumerate(shards):
        name = f"model-{at + 1:05}-of-{len(shards):05}.safetensors"
        save_file(shard, folder / name)
        weight_map.update(dict.fromkeys(shard, name))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


@given(SHAPES)
def test_the_bytes_of_a_model_are_those_of_its_tensors(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[tuple[list[int], torch.dtype]]
) -> None:
    tensors = {str(at): torch.zeros(shape, dtype=dtype) for at, (shape, dtype) in enumerate(shapes)}
    folder = tmp_path_factory.mktemp("model")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert tensor_bytes(folder) == sum(tensor.nbytes for tensor in tensors.values())
    loaded = [tensor.float() if tensor.is_floating_point() else tensor for tensor in tensors.values()]
    assert tensor_bytes(folder, float_bytes=4) == sum(tensor.nbytes for tensor in loaded)


def test_shards_are_read_and_counted_as_one_checkpoint_and_modules_count(tmp_path: Path) -> None:
    write_shards(tmp_path, {"a": torch.ones(3)}, {"b": torch.ones(5), "c": torch.ones(1)})
    (tmp_path / "model-stray.safetensors").write_text("no part of the checkpoint")
    assert {name: len(tensor) for name, tensor in read_tensors(tmp_path).items()} == {"a": 3, "b": 5, "c": 1}
    (tmp_path / "2_Dense").mkdir()
    save_file({"linear.weight": torch.ones(4, 4)}, tmp_path / "2_Dense" / "model.safetensors")
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "separation").mkdir()
    save_file({"a.lora_A.weight": torch.ones(2, 5)}, tmp_path / "separation" / "adapter_model.safetensors")
    assert tensor_bytes(tmp_path) == 4 * (3 + 5 + 1 + 16 + 10)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path, {"a": torch.ones(3)}, {"b": torch.ones(5)})
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(LoadError, match=r"names model-00002-of-00002[.]safetensors, which the folder lacks"):
        read_tensors(tmp_path)


def test_an_index_that_leaves_its_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../secret"}}')
    with pytest.raises(LoadError, match="outside of its folder"):
        tensor_bytes(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x08\0\0\0\0\0\0\0no json!", b"\x02\0\0\0\0\0\0\0[]", b"\xff" * 16])
def test_a_file_without_a_header_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(LoadError, match="header"):
        tensor_bytes(tmp_path)


def test_pickles_are_read_where_the_catalogue_allows_them_and_only_there(tmp_path: Path) -> None:
    state = {"weight": torch.arange(6.0).reshape(2, 3)}
    torch.save(state, tmp_path / "pytorch_model.bin")
    for read in (read_tensors, tensor_bytes):
        with pytest.raises(LoadError, match="allow_pickle: true") as refused:
            read(tmp_path)
        assert refused.value.error_class is ErrorClass.DEPENDENCY
    assert torch.equal(read_tensors(tmp_path, allow_pickle=True)["weight"], state["weight"])
    assert tensor_bytes(tmp_path, allow_pickle=True) >= math.prod((2, 3, 4))
    with pytest.raises(LoadError, match=r"pytorch_model\.bin is a pickle"):
        read_pickle(tmp_path / "pytorch_model.bin", allow_pickle=False)


def test_safetensors_win_over_pickles(tmp_path: Path) -> None:
    torch.save({"old": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    save_file({"new": torch.ones(1)}, tmp_path / "model.safetensors")
    assert set(read_tensors(tmp_path, allow_pickle=True)) == {"new"}


def test_a_pickle_that_calls_something_is_refused_and_does_not_call_it(tmp_path: Path) -> None:
    torch.save({"weight": Evil(tmp_path / "called")}, tmp_path / "evil.pt")
    with pytest.raises(LoadError, match="not a file of tensors alone") as refused:
        read_pickle(tmp_path / "evil.pt", allow_pickle=True)
    assert refused.value.error_class is ErrorClass.UNKNOWN
    assert not (tmp_path / "called").exists()


def test_a_pickle_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(LoadError, match="other things than named tensors"):
        read_pickle(tmp_path / "list.pt", allow_pickle=True)
    (tmp_path / "empty.pt").touch()
    with pytest.raises(LoadError, match="not a file of tensors"):
        read_pickle(tmp_path / "empty.pt", allow_pickle=True)


def test_a_file_that_was_cut_off_is_named(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(100)}, file)
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(LoadError, match=f"'{file}' cannot be read: .*not fully covered"):
        read_tensors(tmp_path)


def test_a_graph_takes_what_lies_beside_it_as_well(tmp_path: Path) -> None:
    for name, size in (("model.onnx", 5), ("model.onnx_data", 70), ("model.onnx.data", 900), ("model_q4.onnx", 8000)):
        (tmp_path / name).write_bytes(bytes(size))
    assert graph_bytes(tmp_path / "model.onnx") == 975
    assert graph_bytes(tmp_path / "model_q4.onnx") == 8000
    assert graph_bytes(tmp_path / "other.onnx") == 0
