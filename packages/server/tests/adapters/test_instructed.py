import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import MistralConfig, MistralModel

from sie_protocol.arrays import Array
from sie_server.adapters.base import LoadError, ModelSpec, UnsupportedInputError, WeightsSource
from sie_server.adapters.instructed import InstructedAdapter
from sie_server.adapters.shared import latent
from tiny_families import WIDTH, Family, write_family

GRIT: dict[str, Any] = {"query_prompt_end": "<|embed|>\n", "doc_prompt_end": "<|embed|>\n"}
NVIDIA: dict[str, Any] = {"query_prompt_end": "\nQuery: ", "start_token_counts": False, "end_token": "</s>"}
QUERY, DOCUMENT = "<|user|>\nfind it\n<|embed|>\n", "<|embed|>\n"
TASK = "Instruct: find it\nQuery: "
TEXTS = ["a cat", "the cat sat on a mat, and so on", "x", "far longer " * 20, "it says <|embed|>\n itself"]
BODY = {"num_hidden_layers": 3, "num_key_value_heads": 2, "sliding_window": 8}  # narrower than the texts
HEADS, LATENTS, HEAD = 4, 6, 10


def write_grit(folder: Path) -> Path:
    return write_family(folder, Family("mistral", BODY, seed=51, prefix="model."))


def write_nvidia(folder: Path) -> Path:
    """The layout of NV-Embed-v2: a nested configuration, the body and its latent attention each under a name."""
    write_family(folder, Family("mistral", BODY, seed=52))
    draw = torch.Generator().manual_seed(7)

    def random(*shape: int) -> torch.Tensor:
        return 0.4 * torch.randn(*shape, generator=draw)

    shapes = {
        "latents": (LATENTS, WIDTH),
        "cross_attend_blocks.0.norm.weight": (WIDTH,),
        "cross_attend_blocks.0.norm.bias": (WIDTH,),
        "cross_attend_blocks.0.norm_context.weight": (WIDTH,),
        "cross_attend_blocks.0.norm_context.bias": (WIDTH,),
        "cross_attend_blocks.0.fn.to_q.weight": (HEADS * HEAD, WIDTH),
        "cross_attend_blocks.0.fn.to_kv.weight": (2 * HEADS * HEAD, WIDTH),
        "cross_attend_blocks.0.fn.to_out.weight": (WIDTH, HEADS * HEAD),
        "cross_attend_blocks.1.norm.weight": (WIDTH,),
        "cross_attend_blocks.1.norm.bias": (WIDTH,),
        "cross_attend_blocks.1.fn.net.0.weight": (8 * WIDTH, WIDTH),
        "cross_attend_blocks.1.fn.net.0.bias": (8 * WIDTH,),
        "cross_attend_blocks.1.fn.net.2.weight": (WIDTH, 4 * WIDTH),
        "cross_attend_blocks.1.fn.net.2.bias": (WIDTH,),
    }
    body = {f"embedding_model.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    head = {f"latent_attention_model.{name}": random(*shape) for name, shape in shapes.items()}
    save_file(body | head, folder / "model.safetensors", metadata={"format": "pt"})
    own = json.loads((folder / "config.json").read_text())
    latents = {"num_cross_heads": HEADS, "model_type": "latent_attention"}
    nested = {"model_type": "nvembed", "text_config": own | {"model_type": "bidir_mistral"}}
    (folder / "config.json").write_text(json.dumps(nested | {"latent_attention_config": latents}))
    return folder


def adapter(folder: Path, dim: int = WIDTH, max_length: int | None = None, **options: Any) -> InstructedAdapter:
    spec = ModelSpec("org/tiny", WeightsSource(path=str(folder)), {"dense": dim}, options, max_length)
    made = InstructedAdapter(spec)
    made.load("cpu")
    return made


def encode(loaded: InstructedAdapter, texts: Sequence[str], *, is_query: bool) -> Array:
    return np.asarray(loaded.run(loaded.prepare(texts, is_query=is_query), threads=1)["dense"])


def both_ways(folder: Path, ids: Sequence[int]) -> torch.Tensor:
    """transformers' Mistral without its causal mask: every token may look at every other one."""
    config = json.loads((folder / "config.json").read_text())
    own = MistralConfig(**{**config.get("text_config", config), "model_type": "mistral", "sliding_window": None})
    own._attn_implementation = "eager"
    model = MistralModel(own).eval()
    tensors = load_file(folder / "model.safetensors")
    named = {name.removeprefix("model.").removeprefix("embedding_model."): tensor for name, tensor in tensors.items()}
    model.load_state_dict({name: each for name, each in named.items() if "latent" not in name})
    mask = torch.zeros(1, 1, len(ids), len(ids))
    with torch.inference_mode():
        hidden: torch.Tensor = model(input_ids=torch.tensor([ids]), attention_mask=mask).last_hidden_state[0]
    return hidden


def latent_attention(folder: Path, hidden: torch.Tensor) -> torch.Tensor:
    """As the paper and the published class have it: heads, a softmax over the latents, a gated inner layer."""
    named = {
        name.removeprefix("latent_attention_model."): tensor
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    across, inner = "cross_attend_blocks.0.", "cross_attend_blocks.1."

    def norm(states: torch.Tensor, name: str) -> torch.Tensor:
        return functional.layer_norm(states, (WIDTH,), named[f"{name}.weight"], named[f"{name}.bias"])

    def heads(states: torch.Tensor) -> torch.Tensor:
        return states.view(len(states), HEADS, HEAD).transpose(0, 1)

    context = norm(named["latents"], across + "norm_context")
    queries = heads(norm(hidden, across + "norm") @ named[across + "fn.to_q.weight"].t())
    keys, values = (heads(each) for each in (context @ named[across + "fn.to_kv.weight"].t()).chunk(2, -1))
    found = functional.scaled_dot_product_attention(queries, keys, values).transpose(0, 1).reshape(len(hidden), -1)
    seen = hidden + found @ named[across + "fn.to_out.weight"].t()
    wide = norm(seen, inner + "norm") @ named[inner + "fn.net.0.weight"].t() + named[inner + "fn.net.0.bias"]
    value, gate = wide.chunk(2, -1)
    return (
        seen + (value * functional.gelu(gate)) @ named[inner + "fn.net.2.weight"].t() + named[inner + "fn.net.2.bias"]
    )


def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def unit(vectors: list[torch.Tensor]) -> Array:
    return np.stack([(each / each.norm()).numpy() for each in vectors])


@pytest.fixture(scope="module")
def grit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_grit(tmp_path_factory.mktemp("grit") / "model")


@pytest.fixture(scope="module")
def nvidia(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nvidia(tmp_path_factory.mktemp("nvidia") / "model")


@pytest.mark.parametrize(("prompt", "is_query"), [(QUERY, True), (DOCUMENT, False)])
def test_gritlm_takes_the_mean_of_the_tokens_behind_the_prompt(grit: Path, prompt: str, is_query: bool) -> None:
    """The recipe of the package gritlm: the prompt alone is tokenised, and so many tokens are left out."""
    expected = []
    for text in TEXTS:
        ids = tokenizer(grit).encode(prompt + text).ids
        left_out = len(tokenizer(grit).encode(prompt).ids)
        expected.append(both_ways(grit, ids)[left_out:].mean(0))
    found = encode(adapter(grit, **GRIT), [prompt + text for text in TEXTS], is_query=is_query)
    np.testing.assert_allclose(found, unit(expected), atol=1e-5)


def test_nv_embed_attends_to_its_latents_and_leaves_out_as_many_tokens_as_its_instruction_has(nvidia: Path) -> None:
    """The published code counts the instruction without the start token, but leaves out from the start token on."""
    own = tokenizer(nvidia)
    (end,) = own.encode("</s>", add_special_tokens=False).ids
    loaded = adapter(nvidia, **NVIDIA)
    for prompt, is_query in ((TASK, True), ("", False)):
        left_out = len(own.encode(prompt, add_special_tokens=False).ids)
        hidden = [both_ways(nvidia, [*own.encode(prompt + text).ids, end]) for text in TEXTS]
        expected = unit([latent_attention(nvidia, each)[left_out:].mean(0) for each in hidden])
        found = encode(loaded, [prompt + text for text in TEXTS], is_query=is_query)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_what_a_document_says_is_no_prompt_where_documents_have_none(nvidia: Path) -> None:
    (prepared,) = adapter(nvidia, **NVIDIA).prepare([f"it says{TASK}and more"])
    assert prepared.payload.unpooled == 0


def test_the_instruction_is_read_though_it_is_no_part_of_the_mean(grit: Path) -> None:
    one, other = encode(adapter(grit, **GRIT), [QUERY + "a cat", DOCUMENT + "a cat"], is_query=True)
    assert np.abs(one - other).max() > 0.01


def test_a_vector_does_not_depend_on_its_batch(nvidia: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, texts = adapter(nvidia, **NVIDIA), [TASK + text for text in TEXTS]
    alone = np.concatenate([encode(loaded, [text], is_query=True) for text in texts])
    monkeypatch.setattr(latent, "TOKENS_AT_ONCE", 7)
    np.testing.assert_allclose(encode(loaded, texts, is_query=True), alone, atol=1e-5)


@pytest.mark.parametrize("text", [QUERY, QUERY[: len(QUERY) // 2], QUERY + "a cat"])
def test_a_text_of_which_nothing_is_left_behind_its_prompt_still_has_a_vector(grit: Path, text: str) -> None:
    length = 5 if text.endswith("cat") else None  # nothing but the prompt fits
    (found,) = encode(adapter(grit, max_length=length, **GRIT), [text], is_query=True)
    ids = tokenizer(grit).encode(text).ids[:length]
    np.testing.assert_allclose(found, unit([both_ways(grit, ids).mean(0)])[0], atol=1e-5)


def test_tokens_can_be_counted_and_read_back(grit: Path) -> None:
    loaded = adapter(grit, **GRIT)
    (prepared,) = loaded.prepare([QUERY + "a cat"], is_query=True)
    assert loaded.tokens_of(QUERY + "a cat") == prepared.tokens
    assert loaded.texts_of([prepared.payload.ids.tolist()]) == [QUERY + "a cat"]
    with pytest.raises(UnsupportedInputError):
        loaded.prepare([("a", "b")])  # type: ignore[list-item]


def damaged(folder: Path, copy: Path, change: Any) -> Path:
    copy.mkdir()
    for file in folder.glob("*.*"):
        (copy / file.name).write_bytes(file.read_bytes())
    tensors = load_file(copy / "model.safetensors")
    change(tensors)
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


HEAD_NAME = "latent_attention_model.cross_attend_blocks"


@pytest.mark.parametrize(
    ("name", "shape", "named"),
    [
        ("latent_attention_model.latents", (6, 5), "the latents have shape"),
        (f"{HEAD_NAME}.0.fn.to_q.weight", (41, WIDTH), "41 components of latent attention are no 4 heads"),
        (f"{HEAD_NAME}.0.fn.to_kv.weight", (79, WIDTH), r"to_kv\.weight' has shape"),
        (f"{HEAD_NAME}.1.fn.net.0.bias", (3,), r"net\.0\.bias' has shape"),
        (f"{HEAD_NAME}.1.norm.bias", None, r"1\.norm\.bias' is missing"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    nvidia: Path, tmp_path: Path, name: str, shape: tuple[int, ...] | None, named: str
) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        del tensors[name]
        if shape is not None:
            tensors[name] = torch.zeros(shape)

    with pytest.raises(LoadError, match=named):
        adapter(damaged(nvidia, tmp_path / "model", change), **NVIDIA)


def test_another_architecture_or_width_is_refused(grit: Path, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="32 components, the catalogue says 31"):
        adapter(grit, dim=31)
    folder = write_family(tmp_path / "model", Family("qwen2", {"num_hidden_layers": 1, "num_key_value_heads": 1}))
    with pytest.raises(LoadError, match="model_type 'qwen2'; this adapter runs 'mistral', 'nvembed' only"):
        adapter(folder)
