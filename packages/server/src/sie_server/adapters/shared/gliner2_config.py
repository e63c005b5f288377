"""What the configuration of a GLiNER2 model says, and what of it is computed here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sie_server.adapters.shared.checkpoint import expect, read_numbers

PLAIN, ATTENTIVE = "count_lstm", "count_lstm_v2"
# Words that are read at once where the model does not say: what its package cuts long texts into.
WINDOW_WORDS: Final = 384


@dataclass(frozen=True, slots=True)
class Gliner2Config:
    """A piece has at most `max_width` words; `counting` is the layer that makes of labels what pieces must be like."""

    max_width: int
    max_words: int
    counting: str


def read_gliner2_config(config: Mapping[str, Any]) -> Gliner2Config:
    """Read and check.

    Raises:
        LoadError: DEPENDENCY for a variety that is not computed here, UNKNOWN when something is missing.
    """
    expect(config, "model_type", "extractor", default="extractor")
    expect(config, "architecture", "span", None)
    expect(config, "token_pooling", "first", default="first")
    expect(config, "counting_layer", PLAIN, ATTENTIVE, default=PLAIN)

    def read() -> Gliner2Config:
        head = config.get("span_head") or {}
        return Gliner2Config(
            max_width=int(head["max_width"] if "max_width" in head else config["max_width"]),
            max_words=int(config.get("max_len") or WINDOW_WORDS),
            counting=str(config.get("counting_layer", PLAIN)),
        )

    return read_numbers("GLiNER2", read)
