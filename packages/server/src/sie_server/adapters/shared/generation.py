"""Texts that a model writes token by token: the best next token each time, or the best of several beams.

The rules are those of transformers' `generate` without chance (forced first and last tokens, n-grams that may not be
repeated, words that are never written, length penalty, early stopping), and so are the tokens. Unlike it, it pauses
after every token, and it tells how sure the model was of each.
"""

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Protocol

import torch

from sie_server.adapters.base import LoadError, UnsupportedInputError
from sie_server.core.lifecycle import ErrorClass

NEVER: Final = -1e9  # the score of what cannot be; finite, so that sums stay in order


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """How a model writes.

    `first` and `last` are forced at those places, None: free. No `repeats` tokens in a row are written twice, 0: any.
    `early_stopping` and `length_penalty` decide when beams have gone on for long enough, and which is the best.
    """

    ends: tuple[int, ...]
    pad: int
    start: int | None = None
    first: int | None = None
    last: int | None = None
    repeats: int = 0
    never: tuple[int, ...] = ()
    early_stopping: bool | str = False
    length_penalty: float = 1.0


@dataclass(frozen=True, slots=True)
class Length:
    """How much may be written: so many tokens, as the best of so many beams."""

    tokens: int
    beams: int = 1


@dataclass(frozen=True, slots=True)
class Generated:
    """What was written behind a prompt, without the token that ends it; `logprobs` are natural logarithms."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]


def probability(logprobs: Sequence[float], *, whole: bool = False) -> float:
    """The geometric mean of tokens' probabilities, or with `whole` their product; 0 of none.

    What is no number stays none, so that whoever checks an answer sees it.
    """
    if not logprobs:
        return 0.0
    found = math.exp(sum(logprobs) / (1 if whole else len(logprobs)))
    return 1.0 if found > 1 else found


class Writer(Protocol):
    """A model that goes on from what it has read before."""

    def logits(self, ids: torch.Tensor) -> torch.Tensor:
        """[rows, new tokens] to float32 [rows, vocabulary]: what comes behind the last."""

    def reorder_cache(self, rows: torch.Tensor) -> None:
        """From now on each row goes on from what this one of the old rows has read; all of one prompt."""


class Search(Protocol):
    """Which tokens come next, of several rows; `ids` [rows, tokens] are those up to now, prompts included."""

    @property
    def ids(self) -> torch.Tensor:
        """Of all rows."""

    def take(self, logits: torch.Tensor) -> torch.Tensor | None:
        """Add a token to each row; returns which of the old rows each goes on from, None: each from itself."""

    def is_over(self) -> bool:
        """True when no row goes on."""

    def written(self) -> list[Generated]:
        """The best text of each prompt."""


def write(
    writer: Writer, prompts: torch.Tensor, config: GenerationConfig, length: Length
) -> Generator[None, None, list[Generated]]:
    """Go on from prompts [prompts, tokens]; the writer has `length.beams` rows for each. Pauses before every token."""
    search: Search = (GreedySearch if length.beams == 1 else BeamSearch)(prompts, config, length)
    fed = search.ids
    while True:
        rows = search.take(writer.logits(fed))
        if search.is_over():
            return search.written()
        if rows is not None:
            writer.reorder_cache(rows)
        fed = search.ids[:, -1:]
        yield


class GreedySearch:
    """The most probable token each time. A row that has ended is filled up, and changes no other."""

    def __init__(self, prompts: torch.Tensor, config: GenerationConfig, length: Length) -> None:
        self._config = config
        self._prompt = prompts.shape[1]
        self._longest = self._prompt + length.tokens
        self._ids = prompts.new_full((len(prompts), self._longest), config.pad)
        self._ids[:, : self._prompt] = prompts
        self._logprobs = torch.zeros(self._ids.shape, device=prompts.device)
        self._at = self._prompt
        self._ended = torch.zeros(len(prompts), dtype=torch.bool, device=prompts.device)
        self._ends = torch.tensor(config.ends, device=prompts.device)

    @property
    def ids(self) -> torch.Tensor:
        """Of all rows."""
        return self._ids[:, : self._at]

    def take(self, logits: torch.Tensor) -> None:
        """Add a token to each row that has not ended."""
        tokens = processed_logits(logits, self.ids, self._config, self._longest).argmax(dim=-1)
        self._logprobs[:, self._at] = logits.log_softmax(dim=-1).gather(1, tokens[:, None])[:, 0]
        self._ids[:, self._at] = torch.where(self._ended, self._config.pad, tokens)
        self._ended |= torch.isin(tokens, self._ends)
        self._at += 1

    def is_over(self) -> bool:
        """True when all rows have ended, or are full."""
        return self._at == self._longest or bool(self._ended.all())

    def written(self) -> list[Generated]:
        """What stands behind each prompt."""
        ids, logprobs = (all_of[:, self._prompt : self._at].tolist() for all_of in (self._ids, self._logprobs))
        return [_until_end(*row, self._config) for row in zip(ids, logprobs, strict=True)]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Texts of each prompt: [prompts, some, tokens], and the same of how sure their tokens are; scores [prompts, some].

    `lengths` are those of what was written. Of beams that go on scores are sums, of those that have ended means.
    """

    ids: torch.Tensor
    logprobs: torch.Tensor
    scores: torch.Tensor
    lengths: torch.Tensor

    def of(self, places: torch.Tensor) -> "Candidates":
        """Those at places [prompts, fewer]."""
        deep = places[..., None].expand(-1, -1, self.ids.shape[-1])
        return Candidates(
            self.ids.gather(1, deep),
            self.logprobs.gather(1, deep),
            self.scores.gather(1, places),
            self.lengths.gather(1, places),
        )

    def joined(self, others: "Candidates") -> "Candidates":
        """These, and behind them the others."""
        return Candidates(
            torch.cat([self.ids, others.ids], dim=1),
            torch.cat([self.logprobs, others.logprobs], dim=1),
            torch.cat([self.scores, others.scores], dim=1),
            torch.cat([self.lengths, others.lengths], dim=1),
        )


class BeamSearch:
    """Several texts of each prompt at once; those that end are kept apart, the best so many of them.

    It goes on while a text that has not ended may still become better than the worst of those that have.
    """

    def __init__(self, prompts: torch.Tensor, config: GenerationConfig, length: Length) -> None:
        self._config, self._beams = config, length.beams
        self._prompt, self._at = prompts.shape[1], prompts.shape[1]
        self._longest = self._prompt + length.tokens
        shape, device = (len(prompts), length.beams), prompts.device
        ids = prompts.new_full((*shape, self._longest), config.pad)
        ids[:, :, : self._prompt] = prompts[:, None]
        scores = torch.full(shape, NEVER, device=device)
        zeros = torch.zeros(ids.shape, device=device)
        self._ended = Candidates(ids, zeros, scores, torch.zeros(shape, dtype=torch.long, device=device))
        self._open = replace(self._ended, scores=scores.clone())
        self._open.scores[:, 0] = 0  # all are alike: only the first goes on
        self._ends = torch.tensor(config.ends, device=device)
        self._has_ended = torch.zeros(shape, dtype=torch.bool, device=device)
        self._may_improve = torch.ones((shape[0], 1), dtype=torch.bool, device=device)
        self._is_full = False

    @property
    def ids(self) -> torch.Tensor:
        """Of all beams of all prompts."""
        return self._open.ids[:, :, : self._at].flatten(0, 1)

    def take(self, logits: torch.Tensor) -> torch.Tensor:
        """Go on with the best; returns which of the old rows each goes on from."""
        prompts, words = len(self._open.scores), logits.shape[-1]
        sure = logits.log_softmax(dim=-1)
        scores = processed_logits(sure, self.ids, self._config, self._longest).view(prompts, self._beams, words)
        scores = (scores + self._open.scores[..., None]).flatten(1)
        # Enough that as many go on as there are beams, even if each beam's best are all tokens that end it.
        kept = max(2, 1 + len(self._config.ends)) * self._beams
        best, places = scores.topk(kept, dim=1)
        beams, tokens = places // words, places % words
        new = replace(self._open.of(beams), scores=best)
        new.ids[:, :, self._at] = tokens
        new.logprobs[:, :, self._at] = sure.view(prompts, -1).gather(1, places)
        self._at += 1
        new.lengths.fill_(self._at - self._prompt)
        ends = torch.isin(tokens, self._ends) | (self._at == self._longest)
        self._is_full = bool(ends.all())
        places = (new.scores + ends * NEVER).topk(self._beams, dim=1).indices
        self._keep_ended(new, ends)
        going = replace(new, scores=new.scores + ends * NEVER)
        self._open = going.of(places)
        self._judge()
        rows = beams.gather(1, places) + torch.arange(prompts, device=beams.device)[:, None] * self._beams
        return rows.flatten()

    def is_over(self) -> bool:
        """True when no prompt's texts can become better, or may become longer."""
        all_ended = self._config.early_stopping is True and bool(self._has_ended.all())
        return self._is_full or all_ended or not bool(self._may_improve.any())

    def written(self) -> list[Generated]:
        """The best text of each prompt."""
        lengths, start = self._ended.lengths[:, 0].tolist(), self._prompt
        ids, logprobs = self._ended.ids[:, 0].tolist(), self._ended.logprobs[:, 0].tolist()
        return [
            _until_end(own[start : start + length], sure[start : start + length], self._config)
            for own, sure, length in zip(ids, logprobs, lengths, strict=True)
        ]

    def _keep_ended(self, new: Candidates, ends: torch.Tensor) -> None:
        """Of those that just ended keep what is among the best; of the spare candidates none counts."""
        counts = ends.clone()
        counts[:, self._beams :] = False
        scores = new.scores / (self._at - self._prompt) ** self._config.length_penalty
        if self._config.early_stopping is True:
            scores = scores + self._has_ended.all(dim=1, keepdim=True) * NEVER
        scores = scores + ~self._may_improve * NEVER + ~counts * NEVER
        merged = self._ended.joined(replace(new, scores=scores))
        places = merged.scores.topk(self._beams, dim=1).indices
        self._ended = merged.of(places)
        self._has_ended = torch.cat([self._has_ended, counts], dim=1).gather(1, places)

    def _judge(self) -> None:
        """See whose best open text may still become better than its worst that has ended."""
        config = self._config
        never = config.early_stopping == "never" and config.length_penalty > 0
        length = (self._longest if never else self._at) - self._prompt
        best = self._open.scores[:, :1] / length**config.length_penalty
        worst = torch.where(self._has_ended, self._ended.scores.amin(dim=1, keepdim=True), NEVER)
        self._may_improve &= (best > worst).any(dim=1, keepdim=True)


def processed_logits(scores: torch.Tensor, ids: torch.Tensor, config: GenerationConfig, longest: int) -> torch.Tensor:
    """Scores [rows, vocabulary] of what comes behind `ids` [rows, tokens], minus infinity where the rules forbid it."""
    length, only = ids.shape[1], None
    if length == 1 and config.first is not None:
        only = config.first
    if length == longest - 1 and config.last is not None:
        only = config.last
    if only is not None:
        forced = torch.full_like(scores, -torch.inf)
        forced[:, only] = 0
        return forced
    if config.never:
        scores = scores.index_fill(1, torch.tensor(config.never, device=scores.device), -torch.inf)
    return _without_repeats(scores, ids, config.repeats)


def _without_repeats(scores: torch.Tensor, ids: torch.Tensor, size: int) -> torch.Tensor:
    if not 0 < size <= ids.shape[1]:
        return scores
    windows = ids.unfold(1, size, 1)
    alike = (windows[..., :-1] == ids[:, None, ids.shape[1] - size + 1 :]).all(dim=-1)
    rows, places = alike.nonzero(as_tuple=True)
    scores = scores.clone()
    scores[rows, windows[rows, places, -1]] = -torch.inf
    return scores


def _until_end(ids: Sequence[int], logprobs: Sequence[float], config: GenerationConfig) -> Generated:
    end = next((at for at, each in enumerate(ids) if each in config.ends), len(ids))
    return Generated(tuple(ids[:end]), tuple(logprobs[:end]))


def length_of(options: Mapping[str, Any], prompt: int, positions: int, default: int) -> Length:
    """How much a request lets a model write that has so many positions, behind a prompt of so many tokens.

    Options: `max_new_tokens` (`default`, or what there is room for), `num_beams` (1).

    Raises:
        UnsupportedInputError: more than there is room for.
    """
    room = positions + 1 - prompt  # the last token is not read again
    asked = options.get("max_new_tokens")
    tokens = min(default, room) if asked is None else int(asked)
    if tokens > room or room < 1:
        raise UnsupportedInputError(
            f"max_new_tokens is {tokens}, but the model can write {max(0, room)} tokens behind a prompt of {prompt}; "
            "ask for fewer"
        )
    return Length(tokens, int(options.get("num_beams", 1)))


def read_generation_config(config: Mapping[str, Any], vocabulary: int) -> GenerationConfig:
    """From generation settings as transformers writes them, in a file of their own or among those of a decoder.

    Raises:
        LoadError: UNKNOWN when there is no token that ends a text, or a setting is none.
    """

    def ids(key: str) -> tuple[int, ...]:
        value = config.get(key)
        found = tuple(value) if isinstance(value, list) else () if value is None else (value,)
        if any(not isinstance(each, int) or not 0 <= each < vocabulary for each in found):
            raise _wrong(key, value)
        return found

    def one(key: str) -> int | None:
        return next(iter(ids(key)), None)

    ends, pad = ids("eos_token_id"), one("pad_token_id")
    if not ends:
        raise LoadError(ErrorClass.UNKNOWN, "the model's generation settings have no eos_token_id, which ends a text")
    number = partial(_number, config)
    early = config.get("early_stopping")
    if early not in (None, True, False, "never"):
        raise _wrong("early_stopping", early)
    return GenerationConfig(
        ends=ends,
        pad=ends[0] if pad is None else pad,
        start=one("decoder_start_token_id"),
        first=one("forced_bos_token_id"),
        last=one("forced_eos_token_id"),
        repeats=int(number("no_repeat_ngram_size", 0)),
        early_stopping=early or False,
        length_penalty=number("length_penalty", 1.0),
    )


def _number(config: Mapping[str, Any], key: str, default: float) -> float:
    value = config.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(key, value)
    return value


def _wrong(key: str, value: object) -> LoadError:
    return LoadError(ErrorClass.UNKNOWN, f"the model's generation settings have {key} {value!r}, which cannot be read")
