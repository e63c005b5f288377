import pytest
import torch

from sie_server.adapters.base import LoadError
from sie_server.adapters.shared.accelerator import choose, is_out_of_memory
from sie_server.adapters.shared.loading import loading_onto
from sie_server.core.lifecycle import ErrorClass

TOO_MUCH = 1 << 47  # bytes: more than a process can address


def test_memory_that_the_processor_has_not_got_is_told_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(TOO_MUCH, dtype=torch.uint8)
    assert is_out_of_memory(refused.value)
    with pytest.raises(RuntimeError) as mistaken:
        torch.ones(2) @ torch.ones(3)
    assert not is_out_of_memory(mistaken.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError())
    assert not is_out_of_memory(ValueError("DefaultCPUAllocator: can't allocate memory"))


def test_weights_that_do_not_fit_are_a_load_that_may_succeed_later_and_other_errors_are_not() -> None:
    with pytest.raises(LoadError) as refused, loading_onto("cpu"):
        torch.empty(TOO_MUCH, dtype=torch.uint8)
    assert refused.value.error_class is ErrorClass.OOM
    with pytest.raises(RuntimeError, match="size"), loading_onto("cpu"):
        torch.ones(2) @ torch.ones(3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what the test asks for in vain")
@pytest.mark.parametrize(("wanted", "said"), [("cuda", "finds no device 'cuda'"), ("tpu", "choose auto, cpu, cuda")])
def test_a_device_that_is_not_there_is_refused_before_anything_is_loaded(wanted: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        choose(wanted)
    assert choose("cpu") == "cpu"
