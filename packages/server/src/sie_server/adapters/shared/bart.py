"""BART over packed batches: an encoder, and a decoder that reads the same text, one token behind.

Blocks normalise after each step, as BERT's do, and are BERT's blocks but for the decoder's look at what the encoder
made of the text. No text is generated: a classifier reads what the decoder has at the last token.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch.nn import functional

from sie_protocol.arrays import Array
from sie_server.adapters.shared.attention import FULL_ATTENTION, Attention, AttentionPattern
from sie_server.adapters.shared.bert_weights import Layer, Norm, read_layer, read_linear, read_norm
from sie_server.adapters.shared.buffers import Buffers, ThreadBuffers
from sie_server.adapters.shared.checkpoint import Checkpoint, expect, read_numbers
from sie_server.adapters.shared.lora import Lora
from sie_server.adapters.shared.varlen import Packed, finish_block, normalize, pack

EPS: Final = 1e-5
FIRST_POSITION: Final = 2  # the rows before it are never used
BACKWARD: Final = AttentionPattern(causal=True)
_PARTS: Final = (
    (re.compile(r"^model\."), ""),
    (re.compile(r"^decoder\.layers\.(\d+)\.self_attn\."), r"decoder.layer.\1.own."),
    (re.compile(r"^decoder\.layers\.(\d+)\.self_attn_layer_norm\."), r"decoder.layer.\1.own.norm."),
    (re.compile(r"\.layers\."), ".layer."),
    (re.compile(r"\.(?:self|encoder)_attn_layer_norm\."), ".attention.output.LayerNorm."),
    (re.compile(r"\.(?:self|encoder)_attn\.out_proj\."), ".attention.output.dense."),
    (re.compile(r"\.(?:self|encoder)_attn\.q_proj\."), ".attention.self.query."),
    (re.compile(r"\.(?:self|encoder)_attn\.k_proj\."), ".attention.self.key."),
    (re.compile(r"\.(?:self|encoder)_attn\.v_proj\."), ".attention.self.value."),
    (re.compile(r"\.fc1\."), ".intermediate.dense."),
    (re.compile(r"\.fc2\."), ".output.dense."),
    (re.compile(r"\.final_layer_norm\."), ".output.LayerNorm."),
)


@dataclass(frozen=True, slots=True)
class BartShape:
    """The numbers of a BART configuration; `start` is the token before a decoder's first."""

    encoder_layers: int
    decoder_layers: int
    width: int
    heads: int
    inner: int
    positions: int
    start: int


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    """One block of the decoder: its look at the tokens before, and `rest`, whose keys and values are the encoder's."""

    qkv: torch.Tensor
    qkv_bias: torch.Tensor
    out: torch.Tensor
    out_bias: torch.Tensor
    norm: Norm
    rest: Layer


@dataclass(frozen=True, slots=True)
class Half:
    """What encoder and decoder both begin with."""

    positions: torch.Tensor
    norm: Norm


@dataclass(frozen=True, slots=True)
class BartWeights:
    """A whole model."""

    words: torch.Tensor
    encoder: Half
    decoder: Half
    encoder_layers: tuple[Layer, ...]
    decoder_layers: tuple[DecoderLayer, ...]


def read_shape(config: Mapping[str, Any]) -> BartShape:
    """The shape of a BART `config.json`.

    Raises:
        LoadError: DEPENDENCY for a variety that is not computed here, UNKNOWN when numbers are missing.
    """
    expect(config, "activation_function", "gelu", default="gelu")
    for flag in ("scale_embedding", "normalize_before", "add_final_layer_norm"):
        expect(config, flag, False, default=False)

    def read() -> BartShape:
        expect(config, "decoder_attention_heads", int(config["encoder_attention_heads"]))
        return BartShape(
            encoder_layers=int(config["encoder_layers"]),
            decoder_layers=int(config["decoder_layers"]),
            width=int(config["d_model"]),
            heads=int(config["encoder_attention_heads"]),
            inner=max(int(config["encoder_ffn_dim"]), int(config["decoder_ffn_dim"])),
            positions=int(config["max_position_embeddings"]),
            start=int(config["decoder_start_token_id"]),
        )

    return read_numbers("BART", read)


def read_weights(tensors: Mapping[str, torch.Tensor], shape: BartShape, device: str, dtype: torch.dtype) -> BartWeights:
    """Collect a checkpoint's tensors under their names, with or without `model.`.

    Raises:
        LoadError: UNKNOWN naming a tensor that is missing or has another shape.
    """
    get, width = Checkpoint(tensors, _bert_name, device).get, shape.width
    scale = 1.0 / math.sqrt(width // shape.heads)

    def half(name: str) -> Half:
        rows = FIRST_POSITION + shape.positions
        positions = get(f"{name}.embed_positions.weight", rows, width, dtype=dtype)[FIRST_POSITION:]
        return Half(positions, read_norm(get, f"{name}.layernorm_embedding", width, dtype))

    def decoder_layer(prefix: str) -> DecoderLayer:
        own = f"{prefix}.own"
        return DecoderLayer(
            *read_linear(get, [f"{own}.{part}_proj" for part in "qkv"], scale, dtype),
            *read_linear(get, [f"{own}.out_proj"], 1.0, dtype),
            read_norm(get, f"{own}.norm", width, dtype),
            read_layer(get, prefix, width, scale, dtype),
        )

    return BartWeights(
        get("shared.weight", dtype=dtype),
        half("encoder"),
        half("decoder"),
        tuple(read_layer(get, f"encoder.layer.{at}", width, scale, dtype) for at in range(shape.encoder_layers)),
        tuple(decoder_layer(f"decoder.layer.{at}") for at in range(shape.decoder_layers)),
    )


def _bert_name(name: str) -> str:
    for old, new in _PARTS:
        name = old.sub(new, name)
    return name


class PackedBart:
    """The model. `encode` may run in several threads at once: each has buffers of its own."""

    targets: Final = None  # it is not run with LoRAs

    def __init__(self, shape: BartShape, weights: BartWeights, device: str) -> None:
        self._shape = shape
        self._weights = weights
        self._device = device
        self._attend = Attention(device)
        self._buffers = ThreadBuffers(device, qkv=3 * shape.width, context=shape.width, inner=shape.inner)

    @torch.inference_mode()
    def encode(
        self,
        sequences: Sequence[Array],
        *,
        first_only: bool = False,
        types: Sequence[Array] | None = None,
        key_lengths: list[int] | None = None,
        loras: Sequence[Lora | None] | None = None,
    ) -> tuple[torch.Tensor, list[int]]:
        """Hidden states of the decoder's last block for int64 token id arrays; the decoder reads one token behind.

        Returns [tokens, width] and the length of each sequence; with `first_only` [sequences, width] and ones.
        """
        assert loras is None, "without targets nobody has any"  # noqa: S101 - a bug of the caller
        assert types is None and key_lengths is None, "there are no token types, and every token is seen"  # noqa: S101, PT018 - a bug of the caller
        weights, text = self._weights, pack(sequences, self._device)
        behind = pack([np.concatenate(([self._shape.start], each[:-1])) for each in sequences], self._device)
        buffers = self._buffers.of(len(text.ids), weights.words.dtype)
        memory = self._begin(text, weights.encoder)
        for layer in weights.encoder_layers:
            context = self._look(layer.qkv, layer.qkv_bias, memory, memory, text, buffers, FULL_ATTENTION)
            memory = finish_block(layer, memory, context, buffers, EPS)
        hidden = self._begin(behind, weights.decoder)
        for block in weights.decoder_layers:
            context = self._look(block.qkv, block.qkv_bias, hidden, hidden, text, buffers, BACKWARD)
            hidden = normalize(hidden.add_(block.out_bias).addmm_(context, block.out), block.norm, EPS)
            context = self._look(block.rest.qkv, block.rest.qkv_bias, hidden, memory, text, buffers, FULL_ATTENTION)
            hidden = finish_block(block.rest, hidden, context, buffers, EPS)
        return (hidden[text.starts], [1] * len(text.lengths)) if first_only else (hidden, text.lengths)

    def _begin(self, text: Packed, half: Half) -> torch.Tensor:
        hidden = functional.embedding(text.ids, self._weights.words)
        return normalize(hidden.add_(functional.embedding(text.positions, half.positions)), half.norm, EPS)

    def _look(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor,
        asking: torch.Tensor,
        seen: torch.Tensor,
        text: Packed,
        buffers: Buffers,
        pattern: AttentionPattern,
    ) -> torch.Tensor:
        """Attention of one batch [tokens, width] to another; `weight` is [width, queries + keys + values]."""
        shape, tokens = self._shape, len(asking)
        qkv, width = buffers.qkv[:tokens], shape.width
        if asking is seen:
            torch.addmm(bias, asking, weight, out=qkv)
        else:
            torch.addmm(bias[:width], asking, weight[:, :width], out=qkv[:, :width])
            torch.addmm(bias[width:], seen, weight[:, width:], out=qkv[:, width:])
        heads = qkv.view(tokens, 3, shape.heads, width // shape.heads).permute(1, 2, 0, 3)
        context = buffers.context[:tokens]
        out = context.view(tokens, shape.heads, width // shape.heads)
        self._attend(heads.unbind(), out, text.lengths, pattern)
        return context
