"""Families that read images, each beside transformers' model and processor, which take images in batches."""

import json
import warnings
from collections.abc import Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from family_kit import (
    LABELS,
    Answer,
    Family,
    Reference,
    Size,
    Work,
    fast,
    images_in_batches,
    pictures,
    tokenizer,
    vector,
    written,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the library's own
    from transformers import (
        AutoTokenizer,
        BertConfig,
        CLIPConfig,
        CLIPModel,
        ColQwen2Config,
        ColQwen2ForRetrieval,
        ColQwen2Processor,
        DonutSwinConfig,
        Florence2Config,
        Florence2ForConditionalGeneration,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        MBartConfig,
        Owlv2Config,
        Owlv2ForObjectDetection,
        Qwen2VLConfig,
        SiglipConfig,
        SiglipModel,
        SwinConfig,
        VisionEncoderDecoderConfig,
        VisionEncoderDecoderModel,
    )
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.donut.image_processing_pil_donut import DonutImageProcessorPil
    from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil
    from transformers.models.grounding_dino.processing_grounding_dino import GroundingDinoProcessor
    from transformers.models.owlv2.image_processing_pil_owlv2 import Owlv2ImageProcessorPil
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

IMAGES: Final = 8  # of a batch
CLIP_ENDS: Final = ("<|startoftext|>", "<|endoftext|>")
TEXT_TOKENS: Final = 16  # of a detector's label
BOS, PAD, EOS, UNK = range(4)
BART_WORDS: Final = 51_289  # of Florence-2's vocabulary
WRITTEN: Final = 24  # tokens that a model writes about an image
CORD: Final = "<s_cord-v2>"
BOXES: Final = 0.25


def _clip_words(folder: Path) -> tuple[int, dict[str, int]]:
    """A tokenizer in the style of CLIP, whose last token ends a text: its size, and its special ids."""
    own = tokenizer(*CLIP_ENDS)
    size = own.get_vocab_size()
    around = [(each, own.token_to_id(each)) for each in CLIP_ENDS]
    template = f"{CLIP_ENDS[0]} $A {CLIP_ENDS[1]}"
    own.post_processor = processors.TemplateProcessing(single=template, pair=f"{template} $B", special_tokens=around)
    own.save(str(folder / "tokenizer.json"))
    return size, {"bos_token_id": size - 2, "eos_token_id": size - 1, "pad_token_id": 0}


def _tower(size: Size, **more: Any) -> dict[str, Any]:
    return {**size.shape, **more}


def _write_clip(folder: Path, size: Size) -> None:
    torch.manual_seed(0)
    folder.mkdir()
    (words, ids), side = _clip_words(folder), size.side // 2
    text = _tower(size, vocab_size=words, projection_dim=size.width, **ids)
    vision = _tower(size, image_size=side, patch_size=32, projection_dim=size.width)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=size.width)).save_pretrained(folder)
    steps = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    steps.save_pretrained(folder)


def _write_siglip(folder: Path, size: Size) -> None:
    torch.manual_seed(0)
    folder.mkdir()
    (words, ids), side = _clip_words(folder), size.side // 2
    text = _tower(size, vocab_size=words, projection_size=size.width, **ids)
    config = SiglipConfig(text_config=text, vision_config=_tower(size, image_size=side, patch_size=16))
    SiglipModel(config).save_pretrained(folder)
    half = [0.5] * 3
    steps = SiglipImageProcessorPil(size={"height": side, "width": side}, image_mean=half, image_std=half)
    steps.save_pretrained(folder)


def _images_reference(model_class: Any, steps_class: Any, folder: Path, work: Work) -> Reference:
    model, steps = model_class.from_pretrained(folder).eval(), steps_class.from_pretrained(folder)

    def read(batch: list[Any]) -> list[Any]:
        found = model.get_image_features(steps(batch, return_tensors="pt")["pixel_values"])
        features = found if isinstance(found, torch.Tensor) else found.pooler_output
        return list(torch.nn.functional.normalize(features, dim=-1).numpy())

    return Reference(lambda: images_in_batches(work.images, read, IMAGES), partial(vector, "dense"))


def _write_colqwen2(folder: Path, size: Size) -> None:
    torch.manual_seed(0)
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
    own = tokenizer(*special, "<|video_pad|>")
    own.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
    tokens = fast(own, {"pad_token": special[0], "eos_token": special[2], "unk_token": "[UNK]"})
    images = Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": size.side**2}, patch_size=14)
    heads = max(1, size.width // 64)
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]}
    vision = {"depth": size.layers, "embed_dim": size.width, "num_heads": heads, "mlp_ratio": 4, "patch_size": 14}
    ids = {f"{name}_token_id": tokens.convert_tokens_to_ids(f"<|{name}_pad|>") for name in ("image", "video")}
    ends = {f"vision_{end}_token_id": tokens.convert_tokens_to_ids(f"<|vision_{end}|>") for end in ("start", "end")}
    text = {**size.shape, "vocab_size": len(tokens), "rope_parameters": rope, "num_attention_heads": heads}
    text |= {"num_key_value_heads": heads, "max_position_embeddings": 4096}
    vlm = Qwen2VLConfig(text_config=text, vision_config={**vision, "hidden_size": size.width}, **ids, **ends)
    ColQwen2ForRetrieval(ColQwen2Config(vlm_config=vlm, embedding_dim=128)).save_pretrained(folder)
    ColQwen2Processor(images, tokens).save_pretrained(folder)
    own.save(str(folder / "tokenizer.json"))


def _colqwen2(folder: Path, work: Work) -> Reference:
    said = json.loads((folder / "processor_config.json").read_text())["image_processor"]
    processor = ColQwen2Processor(Qwen2VLImageProcessorPil(**said), AutoTokenizer.from_pretrained(folder))
    model = ColQwen2ForRetrieval.from_pretrained(folder).eval()

    def read(batch: list[Any]) -> list[Any]:
        given = processor.process_images(images=batch)
        image = given["input_ids"] == processor.image_token_id
        # Positions along three axes, as when the model was published; transformers loses them on the way.
        positions, _ = model.vlm.get_rope_index(
            given["input_ids"], image.int(), given["image_grid_thw"], attention_mask=given["attention_mask"]
        )
        given.pop("labels", None)
        found = model(**given, position_ids=positions).embeddings
        return [found[at][given["attention_mask"][at].bool()].numpy() for at in range(len(batch))]

    return Reference(lambda: images_in_batches(work.images, read, IMAGES), partial(vector, "multivector"))


def _writer_tokenizer(marks: list[str], words: int) -> Tokenizer:
    """As BART's numbers: four special tokens first; filled up to a vocabulary of this size."""
    plain = sorted(word for word in tokenizer().get_vocab() if word.isalpha())[: max(0, words - 4 - len(marks))]
    named = ["<s>", "<pad>", "</s>", "<unk>", *plain]
    named += [f"unused-{at}" for at in range(words - len(named) - len(marks))]
    own = Tokenizer(models.WordLevel({word: at for at, word in enumerate(named)}, "<unk>"))
    own.normalizer, own.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    own.add_special_tokens([AddedToken(each, normalized=False) for each in (*named[:4], *marks)])
    around = [("<s>", BOS), ("</s>", EOS)]
    own.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A $B </s>", special_tokens=around
    )
    return own


def _florence_marks() -> list[str]:
    behind = ("cap", "ncap", "dcap", "grounding", "seg", "region_cap", "region_to_desciption", "proposal", "poly")
    pairs = [(f"<{name}>", f"</{name}>") for name in ("od", "ocr", *behind)]
    places = [f"<loc_{at}>" for at in range(1000)]
    return [*chain(*pairs[:2]), *places, *chain(*pairs[2:7]), "<sep>", *chain(*pairs[7:]), "<and>", "<image>"]


def _write_florence2(folder: Path, size: Size) -> None:
    torch.manual_seed(0)
    words = BART_WORDS if size.width > 64 else 4096  # noqa: PLR2004 - of a test's model
    own = _writer_tokenizer(_florence_marks(), words)
    widths = [max(8, size.width // part) for part in (8, 4, 2, 1)]
    heads = [max(1, width // 32) for width in widths]
    vision = {
        "depths": [1, 1, min(9, size.layers), 1],
        "embed_dim": widths,
        "num_heads": heads,
        "num_groups": heads,
        "projection_dim": size.width,
    }
    halves = {
        f"{half}_{key}": value
        for half in ("encoder", "decoder")
        for key, value in (("layers", size.layers), ("attention_heads", size.heads), ("ffn_dim", 4 * size.width))
    }
    ids = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS, "decoder_start_token_id": EOS}
    text = {"model_type": "bart", "vocab_size": words, "d_model": size.width, **halves, **ids}
    config = Florence2Config(vision_config=vision, text_config=text, image_token_id=own.token_to_id("<image>"))
    model = Florence2ForConditionalGeneration(config)
    rules = {**ids, "forced_bos_token_id": BOS, "forced_eos_token_id": EOS, "no_repeat_ngram_size": 3}
    for key, value in rules.items():
        setattr(model.generation_config, key, value)
    model.save_pretrained(folder)
    own.save(str(folder / "tokenizer.json"))
    _florence_steps(size.side).save_pretrained(folder)


def _florence_steps(side: int) -> Any:
    whole = {"height": side, "width": side}
    return CLIPImageProcessorPil(
        do_center_crop=False,
        size=whole,
        crop_size=whole,
        resample=3,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )


def _florence2(folder: Path, work: Work) -> Reference:
    model = Florence2ForConditionalGeneration.from_pretrained(folder).eval()
    steps, own = CLIPImageProcessorPil.from_pretrained(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))
    options, prompt = work.params["options"], own.encode("What does the image describe?").ids

    def read(batch: list[Any]) -> list[Any]:
        pixels = steps(batch, return_tensors="pt")["pixel_values"]
        places = model.get_image_features(pixels[:1]).pooler_output.shape[1] if not known else known[0]
        known[:] = [places]
        ids = torch.tensor([[model.config.image_token_id] * places + prompt] * len(batch))
        how = {"max_new_tokens": options["max_new_tokens"], "num_beams": options["num_beams"], "do_sample": False}
        return list(model.generate(input_ids=ids, pixel_values=pixels, **how).tolist())

    known: list[int] = []
    return Reference(
        lambda: images_in_batches(work.images, read, IMAGES), lambda ids: _written(own, ids[1:], "<CAPTION>")
    )


def _written(own: Tokenizer, ids: list[int], task: str) -> Answer:
    kept = ids[: ids.index(EOS)] if EOS in ids else ids
    text = own.decode([each for each in kept if each not in (BOS, PAD)], skip_special_tokens=False)
    return written({task: text})


def _write_donut(folder: Path, size: Size) -> None:
    torch.manual_seed(0)
    words = BART_WORDS if size.width > 64 else 4096  # noqa: PLR2004 - of a test's model
    own = _writer_tokenizer([CORD, "<s_menu>", "</s_menu>", "<sep/>"], words)
    height, width = size.side, size.side * 3 // 4
    stages = 4 if size.width > 64 else 2  # noqa: PLR2004 - of a test's model
    first = size.width // 2 ** (stages - 1)
    swin = DonutSwinConfig(
        image_size=[height, width],
        patch_size=4,
        embed_dim=first,
        depths=[2] * stages,
        num_heads=[max(1, first * 2**at // 24) for at in range(stages)],
        window_size=7,
    )
    mbart = MBartConfig(
        vocab_size=words,
        d_model=size.width,
        decoder_layers=4,
        decoder_attention_heads=size.heads,
        decoder_ffn_dim=4 * size.width,
        max_position_embeddings=768,
        scale_embedding=True,
        is_decoder=True,
        is_encoder_decoder=False,
        add_cross_attention=True,
        add_final_layer_norm=True,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )
    model = VisionEncoderDecoderModel(VisionEncoderDecoderConfig(encoder=swin.to_dict(), decoder=mbart.to_dict()))
    rules = {"pad_token_id": PAD, "eos_token_id": EOS, "decoder_start_token_id": own.token_to_id(CORD)}
    for key, value in rules.items():
        setattr(model.generation_config, key, value)
    model.save_pretrained(folder)
    own.save(str(folder / "tokenizer.json"))
    DonutImageProcessorPil(size={"height": height, "width": width}).save_pretrained(folder)


def _donut(folder: Path, work: Work) -> Reference:
    model, own = (
        VisionEncoderDecoderModel.from_pretrained(folder).eval(),
        Tokenizer.from_file(str(folder / "tokenizer.json")),
    )
    steps, start = DonutImageProcessorPil.from_pretrained(folder), int(own.token_to_id(CORD) or 0)

    def read(batch: list[Any]) -> list[Any]:
        pixels = steps(batch, return_tensors="pt")["pixel_values"]
        prompt = torch.full((len(batch), 1), start)
        how = {"max_new_tokens": WRITTEN, "do_sample": False, "bad_words_ids": [[UNK]], "use_cache": True}
        return list(model.generate(pixel_values=pixels, decoder_input_ids=prompt, **how).tolist())

    def told(ids: list[int]) -> Answer:
        kept = ids[1 : ids.index(EOS)] if EOS in ids else ids[1:]
        return written(
            {"text_sequence": own.decode([each for each in kept if each != start], skip_special_tokens=False)}
        )

    return Reference(lambda: images_in_batches(work.images, read, IMAGES), told)


def _write_owlv2(folder: Path, size: Size) -> None:
    torch.manual_seed(0)
    folder.mkdir()
    words, ids = _clip_words(folder)
    text = _tower(size, vocab_size=words, **ids)
    vision = _tower(size, image_size=size.side, patch_size=16, hidden_act="quick_gelu")
    text["max_position_embeddings"] = TEXT_TOKENS
    config = Owlv2Config(text_config=text, vision_config=vision, projection_dim=size.width)
    Owlv2ForObjectDetection(config).save_pretrained(folder)
    Owlv2ImageProcessorPil(size={"height": size.side, "width": size.side}).save_pretrained(folder)


def _scores(answer: tuple[Mapping[str, Any], tuple[int, int]]) -> Answer:
    """Of the boxes that lie in the image, at least in part: the worker tells no others."""
    found, (height, width) = answer
    rows = zip(found["scores"].tolist(), found["boxes"].tolist(), strict=True)
    inside = [
        score
        for score, (left, top, right, bottom) in rows
        if min(right, width) > max(left, 0) and min(bottom, height) > max(top, 0)
    ]
    return {f"object {at}": score for at, score in enumerate(sorted(inside, reverse=True))}


def _owlv2(folder: Path, work: Work) -> Reference:
    model, steps = (
        Owlv2ForObjectDetection.from_pretrained(folder).eval(),
        Owlv2ImageProcessorPil.from_pretrained(folder),
    )
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    own.enable_padding(length=TEXT_TOKENS)
    encoded = own.encode_batch(list(LABELS))
    ids, mask = (torch.tensor([getattr(each, of) for each in encoded]) for of in ("ids", "attention_mask"))
    threshold = work.params["options"]["score_threshold"]

    def read(batch: list[Any]) -> list[Any]:
        pixels = steps(batch, return_tensors="pt")["pixel_values"]
        rows = {"input_ids": ids.repeat(len(batch), 1), "attention_mask": mask.repeat(len(batch), 1)}
        outputs = model(pixel_values=pixels, **rows)
        sizes = [(each.height, each.width) for each in batch]
        return list(zip(steps.post_process_object_detection(outputs, threshold, sizes), sizes, strict=True))

    return Reference(lambda: images_in_batches(work.images, read, IMAGES), _scores)


def _write_grounding_dino(folder: Path, size: Size) -> None:
    torch.manual_seed(0)
    own = tokenizer()
    text = BertConfig(**size.shape, vocab_size=own.get_vocab_size())
    image = SwinConfig(
        embed_dim=max(8, size.width // 8), depths=[2, 2, 2, 2], num_heads=[1, 2, 4, 8], out_indices=[2, 3, 4]
    )
    layers, width = max(2, size.layers // 2), min(256, size.width)
    halves = {
        f"{half}_{key}": value
        for half in ("encoder", "decoder")
        for key, value in (("layers", layers), ("attention_heads", 8), ("ffn_dim", 4 * width))
    }
    queries = 300 if size.width > 64 else 24  # noqa: PLR2004 - of a test's model
    config = GroundingDinoConfig(
        backbone_config=image, text_config=text, d_model=width, num_queries=queries, max_text_len=64, **halves
    )
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    own.save(str(folder / "tokenizer.json"))
    fast(own).save_pretrained(folder)
    whole = {"shortest_edge": size.side * 3 // 4, "longest_edge": size.side}
    GroundingDinoImageProcessorPil(size=whole).save_pretrained(folder)


def _grounding_dino(folder: Path, work: Work) -> Reference:
    model = GroundingDinoForObjectDetection.from_pretrained(folder).eval()
    steps, own = GroundingDinoImageProcessorPil.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    processor = GroundingDinoProcessor(steps, own)
    asked = ". ".join(label.lower() for label in LABELS) + "."

    def read(batch: list[Any]) -> list[Any]:
        ids = own([asked] * len(batch), return_tensors="pt")["input_ids"]
        outputs = model(**steps(batch, return_tensors="pt"), input_ids=ids)
        sizes = [(each.height, each.width) for each in batch]
        found = processor.post_process_grounded_object_detection(outputs, ids, BOXES, 0.0, sizes)
        return list(zip(found, sizes, strict=True))

    # One by one, as its authors do: in a batch, what images are filled up with changes what is found.
    return Reference(lambda: images_in_batches(work.images, read, 1), _scores)


def _dense(size: Size) -> dict[str, Any]:
    return {"tasks": {"encode": {"dense": {"dim": size.width}}}, "inputs": {"text": True, "image": True}}


def _finds(**extract: str) -> Any:
    return lambda _: {"tasks": {"extract": extract}, "inputs": {"text": False, "image": True}}


def _captions(beams: int, size: Size) -> Work:
    return pictures(size, "extract", options={"task": "<CAPTION>", "max_new_tokens": WRITTEN, "num_beams": beams})


IMAGE_FAMILIES: Final = (
    Family(
        "clip",
        "vision",
        _write_clip,
        pictures,
        partial(_images_reference, CLIPModel, CLIPImageProcessorPil),
        lambda size: {**_dense(size), "max_sequence_length": 77},
        {"normalize": True},
    ),
    Family(
        "siglip",
        "vision",
        _write_siglip,
        pictures,
        partial(_images_reference, SiglipModel, SiglipImageProcessorPil),
        lambda size: {**_dense(size), "max_sequence_length": 64},
        {"normalize": True},
    ),
    Family(
        "colqwen2",
        "colvision",
        _write_colqwen2,
        pictures,
        _colqwen2,
        lambda _: {
            "tasks": {"encode": {"multivector": {"dim": 128}}},
            "inputs": {"text": True, "image": True},
            "max_sequence_length": 2048,
        },
    ),
    *(
        Family(
            name,
            "florence2",
            _write_florence2,
            partial(_captions, beams),
            _florence2,
            _finds(labels="none", instruction="optional"),
        )
        for name, beams in (("florence-2", 1), ("florence-2, 3 beams", 3))
    ),
    Family(
        "donut",
        "donut",
        _write_donut,
        lambda size: pictures(size, "extract", options={"task": CORD, "max_new_tokens": WRITTEN}),
        _donut,
        _finds(labels="none", instruction="none"),
        {"task": CORD},
    ),
    Family(
        "owlv2",
        "owlv2",
        _write_owlv2,
        lambda size: pictures(size, "extract", labels=list(LABELS), options={"score_threshold": 0.1}),
        _owlv2,
        _finds(labels="required"),
    ),
    Family(
        "grounding-dino",
        "grounding_dino",
        _write_grounding_dino,
        lambda size: pictures(
            size, "extract", labels=list(LABELS), options={"box_threshold": BOXES, "text_threshold": 0.0}
        ),
        _grounding_dino,
        _finds(labels="required"),
    ),
)
