import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sie_protocol import arrays, codec
from sie_protocol.errors import Problem

NUMERIC = st.sampled_from(sorted(arrays.DTYPES)).map(np.dtype)
ARRAYS = hnp.arrays(NUMERIC, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))


@given(ARRAYS)
def test_an_array_survives_the_wire_bit_by_bit(array: arrays.Array) -> None:
    _, body = codec.encode_body({"x": [array]}, None, arrays.pack)
    back = arrays.decode_reply(body)["x"][0]
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.tobytes() == array.tobytes()


@given(hnp.arrays(np.dtype("<f4"), (4, 6)))
def test_a_view_with_strides_travels_as_what_it_shows(array: arrays.Array) -> None:
    _, body = codec.encode_body(array[::2, ::3], None, arrays.pack)
    assert arrays.decode_reply(body).tobytes() == array[::2, ::3].tobytes()


def test_the_bytes_are_those_that_published_clients_read() -> None:
    _, body = codec.encode_body(np.array([1.0, -2.0], "<f4"), None, arrays.pack)
    golden = (
        b"\x85\xc4\x02nd\xc3\xc4\x04type\xa3<f4\xc4\x04kind\xc4\x00\xc4\x05shape\x91\x02"
        b"\xc4\x04data\xc4\x08\x00\x00\x80?\x00\x00\x00\xc0"
    )
    assert body == golden


@pytest.mark.parametrize("array", [np.array([object()]), np.zeros(1, "c8"), np.zeros(1, "S3"), np.zeros(1, "M8[s]")])
def test_anything_but_plain_numbers_is_refused_on_the_way_out(array: arrays.Array) -> None:
    with pytest.raises(TypeError, match="cannot travel"):
        arrays.to_wire(array)


GOOD = {b"nd": True, b"type": "<f4", b"kind": b"", b"shape": [2], b"data": bytes(8)}


@pytest.mark.parametrize(
    "change",
    [
        {b"type": "|O"},
        {b"type": "O", b"kind": b"O"},
        {b"kind": b"V"},
        {b"type": [["a", "<f4"]]},
        {b"type": None},
        {b"shape": [3]},
        {b"shape": [-2]},
        {b"shape": [True, 2]},
        {b"shape": [2.0]},
        {b"shape": "2"},
        {b"shape": [1] * 9},
        {b"data": "text"},
        {b"data": bytes(7)},
    ],
)
def test_a_malformed_array_is_refused_on_the_way_in(change: dict[bytes, object]) -> None:
    with pytest.raises(ValueError, match="array"):
        arrays.from_wire(GOOD | change)


def test_a_reply_nested_without_end_is_an_error_and_not_a_crash() -> None:
    body = b"\x91" * 100_000 + b"\x01"
    with pytest.raises(Problem, match="not valid msgpack"):
        arrays.decode_reply(body)


@pytest.mark.parametrize("shape", [(arrays.JSON_AT_ONCE + 1,), (300, 100, 2), (1, 50_000), (3, 20_000)])
def test_a_large_array_is_written_block_by_block_and_reads_as_written_at_once(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    hook = arrays.hook_for("application/json")
    assert isinstance(hook(array), msgspec.Raw)  # a list would be written without a break
    assert codec.encode_body({"x": array}, "application/json", hook)[1] == msgspec.json.encode({"x": array.tolist()})


def test_a_float_takes_about_as_much_json_as_is_counted() -> None:
    array = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    assert len(msgspec.json.encode(array.tolist())) == pytest.approx(array.size * arrays.JSON_NUMBER_BYTES, rel=0.1)


def test_json_readers_get_lists() -> None:
    value = {"a": np.array([1, 2], "i1"), "b": np.float32(0.5)}
    media, body = codec.encode_body(value, "application/json", arrays.hook_for("application/json"))
    assert (media, body) == ("application/json", b'{"a":[1,2],"b":0.5}')
