"""The tokenizer of CLIP: from `tokenizer.json`, or from the two older files that some models ship instead."""

from pathlib import Path
from typing import Final

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from sie_server.adapters.base import LoadError
from sie_server.adapters.shared.tokenize import open_tokenizer
from sie_server.core.lifecycle import ErrorClass

START: Final = "<|startoftext|>"
END: Final = "<|endoftext|>"
_WORDS: Final = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def open_clip_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model's folder; it neither pads nor cuts.

    Raises:
        LoadError: NOT_FOUND when there are no files of a tokenizer, UNKNOWN when they cannot be read.
    """
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    if (folder / "tokenizer.json").is_file() or not (vocabulary.is_file() and merges.is_file()):
        return open_tokenizer(folder)
    try:
        pieces = models.BPE.from_file(str(vocabulary), str(merges), unk_token=END, end_of_word_suffix="</w>")
    except Exception as error:  # the library has no narrower class
        raise LoadError(ErrorClass.UNKNOWN, f"vocab.json and merges.txt cannot be read: {error}") from error
    tokenizer = Tokenizer(pieces)
    start, end = tokenizer.token_to_id(START), tokenizer.token_to_id(END)
    if start is None or end is None:
        raise LoadError(ErrorClass.UNKNOWN, f"vocab.json has no {START} or no {END}, which CLIP puts around texts")
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.add_special_tokens([START, END])
    around = [(START, start), (END, end)]
    tokenizer.post_processor = processors.TemplateProcessing(f"{START} $A {END}", special_tokens=around)
    return tokenizer
