"""Writes small seeded checkpoints of every architecture, and answers for them with transformers: the oracle."""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from sie_protocol.arrays import Array

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the oracle's own
    from transformers import (
        AutoConfig,
        AutoModel,
        BartConfig,
        DebertaV2Config,
        DistilBertConfig,
        Gemma3TextConfig,
        GemmaConfig,
        GteConfig,
        JinaEmbeddingsV3Config,
        LlamaConfig,
        MistralConfig,
        ModernBertConfig,
        MPNetConfig,
        NomicBertConfig,
        Qwen2Config,
        Qwen3Config,
        RobertaConfig,
        XLMRobertaConfig,
    )

WIDTH = 32
LETTERS = "abcdefghijklmnopqrstuvwxyz ,.:-_"
COMMON = {"hidden_size": WIDTH, "num_attention_heads": 4, "intermediate_size": 48, "initializer_range": 0.2}
MAX_LENGTH = 512
ORACLE = "oracle.json"  # the configuration that transformers reads


@dataclass(frozen=True, slots=True)
class Family:
    """How one kind of checkpoint is written. `config` goes over the common part of its configuration.

    `legacy_config` makes of it what transformers still reads, `published_config` what only the publisher's code read;
    with `own_names`, tensors have the names that transformers has for them in memory, not those of published files.
    """

    model_type: str
    config: Mapping[str, Any] = field(default_factory=dict)
    pooling: str = "mean"
    normalize: bool = True
    seed: int = 0
    prefix: str = ""
    legacy_config: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    published_config: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    own_names: bool = False


def modernbert_of_old(config: dict[str, Any]) -> dict[str, Any]:
    """As transformers 4 wrote it: the two thetas and the rhythm of layers at the top."""
    rope = config.pop("rope_parameters")
    kinds = config.pop("layer_types")
    return config | {
        "global_rope_theta": rope["full_attention"]["rope_theta"],
        "local_rope_theta": rope["sliding_attention"]["rope_theta"],
        "global_attn_every_n_layers": kinds.index("full_attention", 1),
    }


def decoder_of_old(config: dict[str, Any]) -> dict[str, Any]:
    """As transformers 4 wrote it: theta at the top, no list of layers."""
    rope = config.pop("rope_parameters")
    config.pop("layer_types", None)
    return config | {"rope_theta": rope["rope_theta"], "rope_scaling": None}


def alibaba(config: dict[str, Any]) -> dict[str, Any]:
    """As Alibaba published it: another name for the architecture, and positions stretched in a way of its own.

    That way is the linear one of transformers on a longer base: see `stretched`.
    """
    rope, width = config.pop("rope_parameters"), config["hidden_size"] // config["num_attention_heads"]
    own = {"model_type": "new", "position_embedding_type": "rope", "layer_norm_type": "layer_norm", "pack_qkv": True}
    factor = rope.get("factor", 1.0) ** (width / 2)
    scaling = {"type": "ntk", "factor": factor} if factor > 1 else None
    return config | own | {"rope_theta": rope["rope_theta"] / factor, "rope_scaling": scaling}


def stretched(base: float, factor: float, head_width: int) -> dict[str, Any]:
    """What `alibaba` turns into a base and `ntk` scaling by this factor."""
    return {"rope_type": "linear", "rope_theta": base * factor, "factor": factor ** (2 / head_width)}


def nvidia(config: dict[str, Any]) -> dict[str, Any]:
    """As NVIDIA published it: a name for a Llama that looks both ways, and positions as transformers 4 wrote them."""
    rope = config.pop("rope_parameters")
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    del config["is_causal"]
    return config | {"model_type": "llama_bidirec", "rope_theta": rope["rope_theta"], "rope_scaling": scaling}


def nomic(config: dict[str, Any]) -> dict[str, Any]:
    """As Nomic published it: the keys of GPT-2, and more positions than it was trained on."""
    names = {
        "num_hidden_layers": "n_layer",
        "hidden_size": "n_embd",
        "num_attention_heads": "n_head",
        "intermediate_size": "n_inner",
        "layer_norm_eps": "layer_norm_epsilon",
    }
    rope, trained = config.pop("rope_parameters"), config.pop("max_position_embeddings")
    renamed = {names.get(key, key): value for key, value in config.items() if key != "hidden_act"}
    flags = {"prenorm": False, "parallel_block": False, "rotary_emb_interleaved": False, "rotary_emb_fraction": 1.0}
    numbers = {"n_positions": 4 * trained, "max_trained_positions": trained, "rotary_emb_base": rope["rope_theta"]}
    return renamed | flags | numbers | {"activation_function": "swiglu", "rotary_scaling_factor": None}


def gemma_of_old(config: dict[str, Any]) -> dict[str, Any]:
    """As transformers 4 wrote it: the two thetas and the rhythm of layers at the top."""
    rope, kinds = config.pop("rope_parameters"), config.pop("layer_types")
    return config | {
        "rope_theta": rope["full_attention"]["rope_theta"],
        "rope_local_base_freq": rope["sliding_attention"]["rope_theta"],
        "sliding_window_pattern": kinds.index("full_attention") + 1,
        "rope_scaling": None,
    }


def shake(model: torch.nn.Module) -> None:
    """Give norms and biases values of their own; new ones are all one and zero, which hides how they are used."""
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data.add_(0.3 * torch.randn_like(parameter))


def write_model(folder: Path, model: Any, tokenizer: Tokenizer) -> Path:
    """A shaken model and its tokenizer, as transformers keeps them."""
    shake(model)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def write_family(folder: Path, family: Family) -> Path:
    """A sentence-transformers folder with random weights, norms and biases included."""
    torch.manual_seed(family.seed)
    tokenizer = TOKENIZERS[family.model_type]()
    config = CONFIGS[family.model_type](**{**COMMON, "vocab_size": tokenizer.get_vocab_size(), **family.config})
    model = AutoModel.from_config(config)
    shake(model)
    model.save_pretrained(folder)
    if family.prefix or family.own_names:
        file = folder / "model.safetensors"
        tensors = model.state_dict() if family.own_names else load_file(file)
        save_file({family.prefix + name: tensor for name, tensor in tensors.items()}, file)
    (folder / ORACLE).write_text((folder / "config.json").read_text())
    for change in (family.legacy_config, family.published_config):
        if change is not None:
            written = folder / "config.json"
            written.write_text(json.dumps(change(json.loads(written.read_text()))))
    tokenizer.save(str(folder / "tokenizer.json"))
    kinds = [
        ("Transformer", ""),
        ("Pooling", "1_Pooling"),
        *([("Normalize", "2_Normalize")] if family.normalize else []),
    ]
    modules = [{"idx": at, "path": path, "type": f"x.{kind}"} for at, (kind, path) in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": MAX_LENGTH}))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": family.pooling}))
    return folder


def family_oracle(folder: Path, texts: Sequence[str], family: Family) -> Array:
    """What transformers gives for each text alone, pooled by the book."""
    own = AutoConfig.from_pretrained(folder / ORACLE) if family.published_config else None
    model = AutoModel.from_pretrained(folder, config=own, attn_implementation="eager").eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_LENGTH)
    rows = []
    for text in texts:
        with torch.inference_mode():
            hidden = model(input_ids=torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0]
        vector = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}[family.pooling]
        rows.append((vector / vector.norm() if family.normalize else vector).numpy())
    return np.stack(rows)


def _unigram() -> Tokenizer:
    """`<s> x </s>`, as XLM-RoBERTa has it: padding is token 1."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [*((each, 0.0) for each in special), ("▁", -2.0), *((each, -3.0) for each in LETTERS if each != " ")]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return tokenizer


def byte_tokenizer(template: str, *special: str) -> Tokenizer:
    """Every byte is a token; the template adds special ones, after a step of its own as published files have it."""
    vocabulary = {each: at for at, each in enumerate([*special, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special))
    used = [(each, vocabulary[each]) for each in special if each in template]
    ends = processors.TemplateProcessing(template, special_tokens=used)
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), ends])
    return tokenizer


TOKENIZERS: Mapping[str, Callable[[], Tokenizer]] = {
    "distilbert": lambda: byte_tokenizer("[CLS] $A [SEP]", "[PAD]", "[CLS]", "[SEP]"),
    "xlm-roberta": _unigram,
    "jina_embeddings_v3": _unigram,
    "roberta": lambda: byte_tokenizer("<s> $A </s>", "<s>", "<pad>", "</s>"),
    "deberta-v2": lambda: byte_tokenizer("[CLS] $A [SEP]", "[PAD]", "[CLS]", "[SEP]"),
    "modernbert": lambda: byte_tokenizer("[CLS] $A [SEP]", "[PAD]", "[CLS]", "[SEP]"),
    "bart": lambda: byte_tokenizer("<s> $A </s>", "<s>", "<pad>", "</s>"),
    "gemma": lambda: byte_tokenizer("<bos> $A", "<pad>", "<eos>", "<bos>", "<unk>"),
    "gemma3_text": lambda: byte_tokenizer("<bos> $A <eos>", "<pad>", "<eos>", "<bos>", "<unk>"),
    "gte": lambda: byte_tokenizer("[CLS] $A [SEP]", "[PAD]", "[CLS]", "[SEP]"),
    "mpnet": lambda: byte_tokenizer("<s> $A </s>", "<s>", "<pad>", "</s>"),
    "nomic_bert": lambda: byte_tokenizer("[CLS] $A [SEP]", "[PAD]", "[CLS]", "[SEP]"),
    "qwen2": lambda: byte_tokenizer("$A <|endoftext|>", "<|endoftext|>"),
    "qwen3": lambda: byte_tokenizer("$A <|endoftext|>", "<|endoftext|>"),
    "llama": lambda: byte_tokenizer("<s> $A", "<unk>", "<s>", "</s>"),
    "mistral": lambda: byte_tokenizer("<s> $A", "<unk>", "<s>", "</s>"),
}


def _roberta(**values: Any) -> Any:
    return RobertaConfig(**{"max_position_embeddings": MAX_LENGTH + 2, "type_vocab_size": 1, **values})


def _mpnet(**values: Any) -> Any:
    return MPNetConfig(**{"max_position_embeddings": MAX_LENGTH + 2, **values})


def _distilbert(**values: Any) -> Any:
    return DistilBertConfig(
        vocab_size=values["vocab_size"],
        dim=values["hidden_size"],
        n_layers=values["num_hidden_layers"],
        n_heads=values["num_attention_heads"],
        hidden_dim=values["intermediate_size"],
        max_position_embeddings=MAX_LENGTH,
        initializer_range=values["initializer_range"],
    )


def _xlm_roberta(**values: Any) -> Any:
    return XLMRobertaConfig(
        **{"max_position_embeddings": MAX_LENGTH + 2, "type_vocab_size": 1, "layer_norm_eps": 1e-5, **values}
    )


def _deberta(**values: Any) -> Any:
    published = {
        "relative_attention": True,
        "position_biased_input": False,
        "position_buckets": 32,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": "p2c|c2p",
        "max_position_embeddings": MAX_LENGTH,
        "type_vocab_size": 0,
    }
    return DebertaV2Config(**{**published, **values})


def _bart(**values: Any) -> Any:
    sizes = {"d_model": values["hidden_size"], "max_position_embeddings": MAX_LENGTH, "init_std": 0.2}
    own = {
        f"{half}_{key}": value
        for half in ("encoder", "decoder")
        for key, value in (("layers", values["num_hidden_layers"]), ("attention_heads", 4), ("ffn_dim", 48))
    }
    common = {"hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "initializer_range"}
    return BartConfig(**{**own, **sizes, **{key: value for key, value in values.items() if key not in common}})


def _modernbert(**values: Any) -> Any:
    ids = {"pad_token_id": 0, "bos_token_id": 1, "cls_token_id": 1, "eos_token_id": 2, "sep_token_id": 2}
    return ModernBertConfig(**{**ids, **values})


CONFIGS: Mapping[str, Callable[..., Any]] = {
    "distilbert": _distilbert,
    "xlm-roberta": _xlm_roberta,
    "roberta": _roberta,
    "deberta-v2": _deberta,
    "modernbert": _modernbert,
    "bart": _bart,
    "gemma": GemmaConfig,
    "gemma3_text": Gemma3TextConfig,
    "gte": GteConfig,
    "jina_embeddings_v3": JinaEmbeddingsV3Config,
    "mpnet": _mpnet,
    "nomic_bert": NomicBertConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "llama": LlamaConfig,
    "mistral": MistralConfig,
}
