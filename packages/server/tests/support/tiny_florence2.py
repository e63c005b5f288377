"""Writes a small seeded Florence-2 in both layouts, and answers for it with transformers and its processor: the oracle.

The published layout has its tensors' names from transformers' own conversion script, read backwards.
"""

import io
import json
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from tiny_vision import save_shaken

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the oracle's own
    from transformers import Florence2Config, Florence2ForConditionalGeneration, PreTrainedTokenizerFast
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.florence2.processing_florence2 import Florence2PostProcessor, Florence2Processor

SIDE, PLACES = 64, 5  # of an image: pixels, and what the model makes of it: 2 x 2 squares and their mean
POSITIONS = 80
BOS, PAD, EOS, UNK = range(4)
LOCS: Final = [f"<loc_{at}>" for at in range(1000)]
BEFORE: Final = ["<od>", "</od>", "<ocr>", "</ocr>"]
BEHIND: Final = re.findall(
    r"\S+",
    "<cap> </cap> <ncap> </ncap> <dcap> </dcap> <grounding> </grounding> <seg> </seg> <sep> <region_cap> </region_cap>"
    " <region_to_desciption> </region_to_desciption> <proposal> </proposal> <poly> </poly> <and>",
)
WRITING: Final = {
    "bos_token_id": BOS,
    "pad_token_id": PAD,
    "eos_token_id": EOS,
    "decoder_start_token_id": EOS,
    "forced_bos_token_id": BOS,
    "forced_eos_token_id": EOS,
    "no_repeat_ngram_size": 3,
    "early_stopping": True,
    "num_beams": 3,
}
NOTHING: Final = ["it", "the image", "a"]
FINE: Final = 10**5  # parts of a pixel that the oracle cuts places at, where transformers cuts them at whole ones


def base_tokenizer() -> Tokenizer:
    """Bytes as tokens, as BART's tokenizer would have them; it knows nothing of places."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {word: at for at, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", *letters, "ca", "cat"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("c", "a"), ("ca", "t")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(each, normalized=False) for each in ("<s>", "<pad>", "</s>", "<unk>")])
    around = [("<s>", BOS), ("</s>", EOS)]
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=around)
    return tokenizer


def write_florence2(folder: Path) -> Path:
    """A folder as transformers writes it: an image token, and words filled up to a round number."""
    tokenizer = base_tokenizer()
    for each in (*BEFORE, *LOCS, *BEHIND, "<image>"):
        tokenizer.add_special_tokens([AddedToken(each, normalized=False)])
    size = tokenizer.get_vocab_size()
    config = Florence2Config(
        vision_config={
            "depths": [1, 1, 1, 1],
            "embed_dim": [8, 8, 16, 16],
            "num_heads": [2, 2, 4, 4],
            "num_groups": [2, 2, 4, 4],
            "window_size": 3,
            "projection_dim": 32,
            "max_position_embeddings": 4,
            "max_temporal_embeddings": 6,
        },
        text_config={
            "model_type": "bart",
            "vocab_size": -(-size // 64) * 64,
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "max_position_embeddings": POSITIONS,
            "pad_token_id": PAD,
            "bos_token_id": BOS,
            "eos_token_id": EOS,
            "decoder_start_token_id": EOS,
        },
        image_token_id=tokenizer.token_to_id("<image>"),
    )
    torch.manual_seed(3)
    model = Florence2ForConditionalGeneration(config)
    for key, value in WRITING.items():
        setattr(model.generation_config, key, value)
    save_shaken(folder, model, tokenizer)
    _processor().save_pretrained(folder)
    return folder


def write_published(native: Path, folder: Path) -> Path:
    """The same model in the published layout: without an image token, and its tokenizer without places."""
    folder.mkdir()
    tokenizer, model = base_tokenizer(), Florence2ForConditionalGeneration.from_pretrained(native)
    tokenizer.save(str(folder / "tokenizer.json"))
    vocabulary = tokenizer.get_vocab_size() + len(BEFORE) + len(LOCS) + len(BEHIND)
    tensors = {published_name(name): each for name, each in model.state_dict().items()}
    tensors["image_projection"] = tensors["image_projection"].T
    words = tensors["language_model.model.shared.weight"][:vocabulary]
    tied = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "shared.weight")
    kept = {name: each.contiguous() for name, each in tensors.items() if not name.endswith((*tied, "lm_head.weight"))}
    kept["language_model.model.encoder.embed_tokens.weight"] = words.contiguous()  # one name of several, as files have
    kept["language_model.final_logits_bias"] = torch.zeros(1, vocabulary)
    save_file(kept, folder / "model.safetensors")
    own = json.loads((native / "config.json").read_text())
    vision, text = own["vision_config"], own["text_config"]
    moved = {"embed_dim", "max_position_embeddings", "max_temporal_embeddings", "model_type"}
    config = {
        "model_type": "florence2",
        "auto_map": {"AutoConfig": "configuration_florence2.Florence2Config"},
        "projection_dim": vision["projection_dim"],
        "vocab_size": vocabulary,
        "text_config": {**text, **WRITING, "model_type": "florence2_language", "vocab_size": vocabulary},
        "vision_config": {
            **{key: value for key, value in vision.items() if key not in moved},
            "model_type": "davit",
            "dim_embed": vision["embed_dim"],
            "visual_temporal_embedding": {
                "type": "COSINE",
                "max_temporal_embeddings": vision["max_temporal_embeddings"],
            },
            "image_pos_embed": {"type": "learned_abs_2d", "max_pos_embeddings": vision["max_position_embeddings"]},
            "image_feature_source": ["spatial_avg_pool", "temporal_avg_pool"],
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text((native / "preprocessor_config.json").read_text())
    return folder


def published_shape() -> Any:
    """The configuration of Florence-2-base, as far as its images go."""
    return Florence2Config()


def published_name(name: str) -> str:
    """The published name of a tensor of transformers."""
    name = name.removeprefix("model.")
    name = name.replace("multi_modal_projector.", "").replace("image_projection.weight", "image_projection")
    name = name.replace("image_position_embed.", "image_pos_embed.")
    if name.startswith("language_model."):
        return name.replace("language_model.", "language_model.model.", 1)
    if name.startswith("lm_head."):
        return f"language_model.{name}"
    name = re.sub(r"(convs\.\d+)\.conv\.", r"\1.proj.", name)
    name = re.sub(r"_block\.(conv[12])\.", r"_block.\1.fn.dw.", name)
    name = re.sub(r"_block\.(window|channel)_attn\.", r"_block.\1_attn.fn.", name)
    name = name.replace("spatial_block.norm1.", "spatial_block.window_attn.norm.")
    name = name.replace("channel_block.norm1.", "channel_block.channel_attn.norm.")
    return name.replace("_block.ffn.", "_block.ffn.fn.net.").replace("_block.norm2.", "_block.ffn.norm.")


class FinePlaces(Florence2PostProcessor):  # type: ignore[misc] # transformers has no types
    """transformers' own, which cuts places at whole pixels, made to cut them at small parts of one."""

    def dequantize(self, locations: torch.Tensor, size: tuple[int, int]) -> Any:
        """Places in pixels, with fractions."""
        cut = super().dequantize(locations.double(), (size[0] * FINE, size[1] * FINE))
        return cut.double() / FINE


@dataclass(frozen=True, slots=True)
class FlorenceOracle:
    """transformers' own model and processor."""

    model: Any
    processor: Any
    tokenizer: Tokenizer

    def ids(self, image: bytes, prompt: str, **wanted: Any) -> list[int]:
        """What is written about one image, behind the token that everything starts with."""
        found = self._generated(image, prompt, wanted).sequences
        ids: list[int] = found[0].tolist()[1:]
        return ids[: ids.index(EOS) + 1] if EOS in ids else ids

    def logprobs(self, image: bytes, prompt: str, **wanted: Any) -> list[float]:
        """The natural logarithms of the probabilities of the same, without beams."""
        found = self._generated(image, prompt, wanted)
        sure = torch.stack(found.logits, dim=1)[0].log_softmax(dim=-1)
        return [float(sure[at, token]) for at, token in enumerate(found.sequences[0, 1:].tolist())]

    def _generated(self, image: bytes, prompt: str, wanted: dict[str, Any]) -> Any:
        pixels = self.processor.image_processor(_opened(image), return_tensors="pt")["pixel_values"]
        ids = [self.model.config.image_token_id] * PLACES + self.tokenizer.encode(prompt).ids
        how = {"num_beams": 1, "do_sample": False, "output_logits": True, "return_dict_in_generate": True, **wanted}
        if how["num_beams"] == 1:
            how["early_stopping"] = False  # of beams only
        with torch.inference_mode():
            return self.model.generate(input_ids=torch.tensor([ids]), pixel_values=pixels, **how)

    def prompt(self, task: str, said: str = "") -> str:
        """The sentence that stands for a task."""
        [prompt] = self.processor._construct_prompts(task + said)
        return str(prompt)

    def answer(self, text: str, task: str, size: tuple[int, int]) -> Any:
        """What its processor makes of a text about an image of this width and height."""
        return self.processor.post_process_generation(text=text, task=task, image_size=size)[task]


def florence_oracle(folder: Path) -> FlorenceOracle:
    """transformers, for a folder of `write_florence2`."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    more = {"image_token": "<image>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special, extra_special_tokens=more)
    images = _processor()
    images.image_seq_length = PLACES
    kinds = ("pure_text", "description_with_bboxes", "description_with_polygons", "polygons", "bboxes")
    config = {
        "ocr": {"area_threshold": 0.0},
        "phrase_grounding": {"banned_grounding_tokens": NOTHING},
        "description_with_bboxes_or_polygons": {},
        **{kind: {} for kind in kinds},
    }
    processor = Florence2Processor(images, fast, post_processor_config=config)
    processor.post_processor = FinePlaces(config, fast)
    model = Florence2ForConditionalGeneration.from_pretrained(folder).eval()
    return FlorenceOracle(model, processor, tokenizer)


def _processor() -> Any:
    size = {"height": SIDE, "width": SIDE}
    return CLIPImageProcessorPil(
        do_center_crop=False,
        size=size,
        crop_size=size,
        resample=3,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )


def _opened(image: bytes) -> Image.Image:
    return Image.open(io.BytesIO(image)).convert("RGB")
