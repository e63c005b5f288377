import warnings
from typing import Any

import numpy as np
import pytest
import torch

from sie_server.adapters.base import LoadError
from sie_server.adapters.shared.classifier_heads import OF_TEXTS, OF_TOKENS, read_head
from sie_server.core.lifecycle import ErrorClass

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the oracle's own
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoModelForTokenClassification

WIDTH, LABELS = 32, 3
COMMON = {
    "vocab_size": 20,
    "hidden_size": WIDTH,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "initializer_range": 0.4,
    "num_labels": LABELS,
    "pad_token_id": 0,
}
DISTIL = {"dim": WIDTH, "n_layers": 1, "n_heads": 4, "hidden_dim": 48}
VARIETIES: list[tuple[str, dict[str, Any]]] = [
    ("bert", {}),
    ("deberta-v2", {"pooler_hidden_act": "gelu", "pooler_hidden_size": WIDTH}),
    ("distilbert", DISTIL),
    ("gte", {"type_vocab_size": 1}),
    ("modernbert", {"classifier_pooling": "cls"}),
    ("modernbert", {"classifier_pooling": "mean", "classifier_bias": True, "classifier_activation": "relu"}),
    ("mpnet", {}),
    ("roberta", {}),
    ("xlm-roberta", {}),
]


def model_of(auto: Any, model_type: str, own: dict[str, Any]) -> Any:
    torch.manual_seed(3)
    special = {"cls_token_id": 1, "bos_token_id": 1, "eos_token_id": 2, "sep_token_id": 2}
    config = AutoConfig.for_model(model_type, **{**COMMON, **special, **own})
    model = auto.from_config(config, attn_implementation="eager").eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.4)  # zero by default, which would hide a forgotten bias
    return model


@pytest.mark.parametrize(("model_type", "own"), VARIETIES)
@torch.inference_mode()
def test_logits_of_texts_equal_those_of_transformers(model_type: str, own: dict[str, Any]) -> None:
    model = model_of(AutoModelForSequenceClassification, model_type, own)
    ids = torch.tensor([[1, 7, 9, 11, 2], [1, 8, 8, 5, 2]])
    hidden = model.base_model(input_ids=ids)[0]
    states = hidden.mean(1) if own.get("classifier_pooling") == "mean" else hidden[:, 0]
    head = read_head(model.state_dict(), model.config.to_dict(), WIDTH, "cpu")
    assert head.labels == LABELS
    np.testing.assert_allclose(head.logits(states), model(input_ids=ids).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("model_type", "own"), VARIETIES)
@torch.inference_mode()
def test_logits_of_tokens_equal_those_of_transformers(model_type: str, own: dict[str, Any]) -> None:
    model = model_of(AutoModelForTokenClassification, model_type, own)
    ids = torch.tensor([[1, 7, 9, 11, 2]])
    head = read_head(model.state_dict(), model.config.to_dict(), WIDTH, "cpu", OF_TOKENS)
    hidden = model.base_model(input_ids=ids)[0]
    np.testing.assert_allclose(head.logits(hidden), model(input_ids=ids).logits, rtol=1e-5, atol=1e-5)


def test_every_head_of_texts_is_also_one_of_tokens_but_that_behind_a_decoder() -> None:
    assert set(OF_TOKENS) == {*(name for name, _ in VARIETIES), "new"}  # which is what gte called itself
    assert (OF_TEXTS["new"], OF_TOKENS["new"]) == (OF_TEXTS["gte"], OF_TOKENS["gte"])
    assert set(OF_TEXTS) == {*OF_TOKENS, "bart"}  # that one is compared in test_nli


@pytest.mark.parametrize(
    ("tensors", "config", "error_class", "named"),
    [
        ({}, {"model_type": "t5"}, ErrorClass.DEPENDENCY, "model_type 't5'"),
        ({}, {"model_type": "bert"}, ErrorClass.UNKNOWN, "'pooler.dense.weight' is missing"),
        (
            {"pooler.dense.weight": torch.zeros(WIDTH, WIDTH)},
            {"model_type": "bert"},
            ErrorClass.UNKNOWN,
            "'pooler.dense.bias' is missing",
        ),
        (
            {"head.dense.weight": torch.zeros(WIDTH, WIDTH)},
            {"model_type": "modernbert", "classifier_activation": "swish"},
            ErrorClass.DEPENDENCY,
            "activation 'swish'",
        ),
    ],
)
def test_a_head_that_cannot_be_read_says_why(
    tensors: dict[str, torch.Tensor], config: dict[str, Any], error_class: ErrorClass, named: str
) -> None:
    with pytest.raises(LoadError, match=named) as refused:
        read_head(tensors, config, WIDTH, "cpu")
    assert refused.value.error_class is error_class
