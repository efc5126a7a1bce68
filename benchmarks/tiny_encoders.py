"""Checkpoints of every family of encoders: random weights of two layers, and the tokenizer class of the published ones.

    make_encoder("siglip", Path("folder"))

Tokenizers are trained on a few sentences, so that words are read as the real ones read them: by the same algorithm,
special tokens, padding and case.
"""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers as T
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SENTENCES = (
    "a red car drives past the blue house at night",
    "two dogs run on a beach near the sea",
    "people sit under trees in the summer and a child throws a ball",
    "a photo of a man who opens the door of a train",
)
CHINESE = ("一辆红色的汽车在夜里驶过房子", "两只狗在海边的沙滩上奔跑")

_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
_VISION = {**_TEXT, "image_size": 64, "patch_size": 16}
_SQUARE = {
    "size": {"height": 64, "width": 64},
    "do_resize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 2,
}
_CROPPED = {
    **_SQUARE,
    "size": {"shortest_edge": 64},
    "do_center_crop": True,
    "crop_size": {"height": 64, "width": 64},
    "resample": 3,
}


@dataclass(frozen=True, slots=True)
class TinyFamily:
    """A row of the conformance table."""

    name: str
    published: str
    """A published checkpoint of the same classes."""
    processor: str
    """Class of its image processor in `transformers`, the variant without torchvision."""
    make: Callable[[Path], None]


def make_encoder(name: str, folder: Path, *, seed: int = 0) -> Path:
    """Write the checkpoint of a row of `FAMILIES` and return its folder."""
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    FAMILIES[name].make(folder)
    return folder


# ---------------------------------------------------------------- tokenizers


@cache
def _byte_level(end_of_word: str) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a byte-level BPE."""
    suffix: dict[str, Any] = {"end_of_word_suffix": end_of_word} if end_of_word else {}
    tokenizer = Tokenizer(models.BPE(**suffix))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(False, use_regex=False)]
        if end_of_word
        else [pre_tokenizers.ByteLevel(False)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=3000, initial_alphabet=alphabet, show_progress=False, **suffix
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    values = json.loads(tokenizer.to_str())["model"]
    vocabulary = dict(values["vocab"])
    for letter in sorted(alphabet):  # a letter at the end of a word is a piece of its own
        vocabulary.setdefault(letter + end_of_word, len(vocabulary))
    return vocabulary, [(left, right) for left, right in values["merges"]]


def _clip_tokenizer() -> Any:
    vocabulary, merges = _byte_level("</w>")
    vocabulary = {
        **vocabulary,
        "<|startoftext|>": len(vocabulary),
        "<|endoftext|>": len(vocabulary) + 1,
    }
    return T.CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=16)


def _qwen_tokenizer() -> Any:
    vocabulary, merges = _byte_level("")
    special = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
    vocabulary = {**vocabulary, "<|endoftext|>": len(vocabulary)}
    return T.Qwen2Tokenizer(vocab=vocabulary, merges=merges, extra_special_tokens=special)


def _gemma_tokenizer(kind: Any, **options: Any) -> Any:
    """A BPE with bytes for what is unknown, as of Gemma."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    pieces = special + [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.ByteFallback()
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=pieces, show_progress=False)
    tokenizer.train_from_iterator([word for text in SENTENCES for word in _words(text)], trainer)
    values = json.loads(tokenizer.to_str())["model"]
    return kind(vocab=values["vocab"], merges=[tuple(pair) for pair in values["merges"]], **options)


def _words(text: str) -> list[str]:
    return [part for word in text.split() for part in (word, f" {word}")]


def _roberta_tokenizer() -> Any:
    pieces = sorted({f"▁{word}" for text in SENTENCES for word in text.split()})
    letters = ["▁", *sorted(set("".join(SENTENCES)) - {" "})]
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    vocabulary = [(each, 0.0) for each in special]
    vocabulary += [(each, -3.0) for each in pieces] + [(each, -9.0) for each in letters]
    return T.XLMRobertaTokenizer(vocab=vocabulary, model_max_length=512)


def _bert_tokenizer(texts: tuple[str, ...] = SENTENCES) -> Any:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = {word for text in SENTENCES for word in text.split()}
    signs = {sign for text in texts for sign in text if not sign.isascii()}
    vocabulary = {piece: number for number, piece in enumerate([*special, *sorted(words | signs)])}
    return T.BertTokenizer(vocab=vocabulary, model_max_length=512)


def _chinese_tokenizer() -> Any:
    return _bert_tokenizer(SENTENCES + CHINESE)


def _write_sentencepiece(folder: Path) -> None:
    """Write ``spiece.model``, all that the published tokenizer of SigLIP consists of, and its configuration."""
    import sentencepiece

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 50),
        model_writer=written,
        vocab_size=160,
        model_type="bpe",  # the published one is a unigram model, which needs far more text to learn words
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "spiece.model").write_bytes(written.getvalue())
    values = {
        "tokenizer_class": "SiglipTokenizer",
        "model_max_length": 16,
        "model_input_names": ["input_ids"],
        "eos_token": "</s>",
        "pad_token": "</s>",
        "unk_token": "<unk>",
        "do_lower_case": True,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(values))


# ---------------------------------------------------------------- families


def _save(folder: Path, model: Any, tokenizer: Any, processor: Mapping[str, Any]) -> None:
    model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))


def _sizes(tokenizer: Any, **more: Any) -> dict[str, Any]:
    """Sizes of a text tower for a tokenizer."""
    special = {
        name: getattr(tokenizer, name)
        for name in ("bos_token_id", "eos_token_id", "pad_token_id")
        if getattr(tokenizer, name, None) is not None
    }
    return {**_TEXT, "vocab_size": len(tokenizer), "max_position_embeddings": 16, **special, **more}


def _clip_like(
    model: str, config: str, tokenizer: Callable[[], Any], **more: Any
) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        words = tokenizer()
        sizes = _sizes(words, **more)
        configuration = getattr(T, config)(
            text_config=sizes, vision_config=_VISION, projection_dim=24
        )
        _save(folder, getattr(T, model)(configuration), words, _CROPPED)

    return make


def _siglip(folder: Path) -> None:
    _write_sentencepiece(folder)
    tokenizer = T.SiglipTokenizer.from_pretrained(folder)
    sizes = _sizes(tokenizer, projection_size=32)
    model = T.SiglipModel(T.SiglipConfig(text_config=sizes, vision_config=_VISION))
    _save(folder, model, None, _SQUARE)


def _siglip2(folder: Path) -> None:
    """The form of the published fixed sizes: SigLIP's classes with Gemma's tokenizer, which keeps capitals."""
    tokenizer = _gemma_tokenizer(
        T.GemmaTokenizer,
        padding_side="right",
        add_bos_token=False,
        add_eos_token=True,
        model_max_length=16,
    )
    sizes = _sizes(tokenizer, projection_size=32)
    _save(
        folder,
        T.SiglipModel(T.SiglipConfig(text_config=sizes, vision_config=_VISION)),
        tokenizer,
        _SQUARE,
    )


def _naflex(folder: Path) -> None:
    tokenizer = _gemma_tokenizer(T.Siglip2Tokenizer, padding_side="right", model_max_length=16)
    text = _sizes(tokenizer, projection_size=32)
    vision = {**_TEXT, "patch_size": 8, "num_patches": 16}
    processor = {**_SQUARE, "patch_size": 8, "max_num_patches": 24}
    del processor["size"]
    _save(
        folder,
        T.Siglip2Model(T.Siglip2Config(text_config=text, vision_config=vision)),
        tokenizer,
        processor,
    )


def _altclip(folder: Path) -> None:
    tokenizer = _roberta_tokenizer()
    text = _sizes(tokenizer, max_position_embeddings=34, project_dim=20)
    config = T.AltCLIPConfig(text_config=text, vision_config=_VISION, projection_dim=24)
    _save(folder, T.AltCLIPModel(config), tokenizer, _CROPPED)


def _align(folder: Path) -> None:
    tokenizer = _bert_tokenizer()
    vision = {
        "image_size": 64,
        "width_coefficient": 0.25,  # of 320 channels: the width of the joint space
        "depth_coefficient": 0.3,
        "depth_divisor": 8,
        "hidden_dim": 32,
    }
    config = T.AlignConfig(text_config=_sizes(tokenizer), vision_config=vision, projection_dim=80)
    processor = {**_CROPPED, "size": {"height": 72, "width": 72}, "resample": 2}
    processor |= {"do_normalize": False, "rescale_factor": 1 / 127.5, "rescale_offset": True}
    model = T.AlignModel(config)
    for weights in model.vision_model.parameters():
        if weights.ndim == 4:  # the default makes each layer's output a fraction of its input
            torch.nn.init.kaiming_normal_(weights)
    _save(folder, model, tokenizer, {**processor, "include_top": False})


def _tipsv2(folder: Path) -> None:
    tokenizer = _gemma_tokenizer(T.Tipsv2Tokenizer, model_max_length=16)
    text = {name: value for name, value in _sizes(tokenizer).items() if "bos" not in name}
    vision = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 16,
    }
    model = T.Tipsv2Model(T.Tipsv2Config(text_config=text, vision_config=vision))
    _save(folder, model, tokenizer, {**_SQUARE, "do_normalize": False})


def _blip(folder: Path) -> None:
    tokenizer = _bert_tokenizer()
    text = _sizes(tokenizer, encoder_hidden_size=32)
    config = T.BlipConfig(text_config=text, vision_config=_VISION, image_text_hidden_size=24)
    _save(folder, T.BlipForImageTextRetrieval(config), tokenizer, {**_SQUARE, "resample": 3})


def _dual(folder: Path) -> None:
    tokenizer = _bert_tokenizer()
    config = T.VisionTextDualEncoderConfig.from_vision_text_configs(
        T.CLIPVisionConfig(**_VISION), T.BertConfig(**_sizes(tokenizer)), projection_dim=24
    )
    _save(folder, T.VisionTextDualEncoderModel(config), tokenizer, _CROPPED)


def _xclip(folder: Path) -> None:
    tokenizer = _clip_tokenizer()
    vision = {**_VISION, "num_frames": 8, "mit_hidden_size": 24, "mit_intermediate_size": 64}
    vision |= {"mit_num_attention_heads": 2, "mit_num_hidden_layers": 1}
    config = T.XCLIPConfig(
        text_config=_sizes(tokenizer),
        vision_config=vision,
        projection_dim=24,
        prompt_layers=1,
        prompt_num_attention_heads=2,
    )
    _save(folder, T.XCLIPModel(config), tokenizer, _CROPPED)


def _videoprism(folder: Path) -> None:
    pieces = [
        (f"▁{word}", -3.0) for word in sorted({w for text in SENTENCES for w in text.split()})
    ]
    letters = [(letter, -9.0) for letter in ["▁", *sorted(set("".join(SENTENCES)) - {" "})]]
    special = [(each, 0.0) for each in ("<pad>", "</s>", "<unk>")]
    tokenizer = T.VideoPrismTokenizer(
        vocab=special + pieces + letters, extra_ids=0, model_max_length=16
    )
    text = {name: value for name, value in _sizes(tokenizer).items() if "bos" not in name}
    vision: dict[str, Any] = {
        **_TEXT,
        "image_size": 36,
        "tubelet_size": [1, 18, 18],
        "num_frames": 16,
    }
    vision |= {"num_spatial_layers": 1, "num_temporal_layers": 1, "num_auxiliary_layers": 1}
    del vision["num_hidden_layers"]
    model = T.VideoPrismClipModel(T.VideoPrismConfig(text_config=text, vision_config=vision))
    processor = {**_SQUARE, "size": {"height": 36, "width": 36}, "do_normalize": False}
    _save(folder, model, tokenizer, {})
    (folder / "preprocessor_config.json").rename(folder / "video_preprocessor_config.json")
    (folder / "video_preprocessor_config.json").write_text(json.dumps(processor))


def _embedding_gemma(folder: Path) -> None:
    special = {"boi_token": "<boi>", "eoi_token": "<eoi>", "image_token": "<image>"}
    tokenizer = _gemma_tokenizer(
        T.GemmaTokenizer, extra_special_tokens=special, add_bos_token=True, add_eos_token=True
    )
    text = _sizes(tokenizer, max_position_embeddings=4096, embedding_dim=32, head_dim=16)
    text |= {
        "hidden_size_per_layer_input": 16,
        "num_key_value_heads": 1,
        "global_head_dim": 16,
        "sliding_window": 64,
    }
    vision: dict[str, Any] = {**_TEXT, "patch_size": 8, "pooling_kernel_size": 2, "head_dim": 16}
    vision |= {
        "num_key_value_heads": 2,
        "position_embedding_size": 256,
        "model_type": "gemma4_vision",
    }
    config = T.EmbeddingGemma2Config(
        text_config=text,
        vision_config=vision,
        **{f"{name}_id": tokenizer.convert_tokens_to_ids(each) for name, each in special.items()},
    )
    processor = {**_SQUARE, "do_normalize": False, "image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    processor |= {"patch_size": 8, "pooling_kernel_size": 2, "max_soft_tokens": 70, "resample": 3}
    del processor["size"]
    _save(folder, T.EmbeddingGemma2Model(config), tokenizer, processor)


def _qwen(folder: Path) -> None:
    tokenizer = _qwen_tokenizer()
    text = _sizes(tokenizer, max_position_embeddings=4096, num_key_value_heads=1, head_dim=16)
    text |= {
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e4,
            "mrope_section": [4, 2, 2],
            "mrope_interleaved": True,
        }
    }
    vision: dict[str, Any] = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": 8,
    }
    vision |= {
        "out_hidden_size": 32,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0],
    }
    names = ("image_token", "vision_start_token", "vision_end_token")
    pieces = ("<|image_pad|>", "<|vision_start|>", "<|vision_end|>")
    special = {
        f"{name}_id": tokenizer.convert_tokens_to_ids(each)
        for name, each in zip(names, pieces, strict=True)
    }
    config = T.Qwen3VLConfig(text_config=text, vision_config=vision, **special)
    processor = {**_SQUARE, "size": {"shortest_edge": 256, "longest_edge": 1 << 20}, "resample": 3}
    processor |= {"patch_size": 8, "merge_size": 2, "temporal_patch_size": 2}
    # published as a model that writes texts, with its embeddings inside
    _save(folder, T.Qwen3VLForConditionalGeneration(config), tokenizer, processor)


def _rows(*rows: TinyFamily) -> dict[str, TinyFamily]:
    return {row.name: row for row in rows}


_CLIP_PROCESSOR = "CLIPImageProcessorPil"
FAMILIES = _rows(
    TinyFamily(
        "clip",
        "openai/clip-vit-base-patch32",
        _CLIP_PROCESSOR,
        _clip_like("CLIPModel", "CLIPConfig", _clip_tokenizer),
    ),
    TinyFamily(
        "metaclip2",
        "facebook/metaclip-2-worldwide-b32",
        _CLIP_PROCESSOR,
        _clip_like("MetaClip2Model", "MetaClip2Config", _roberta_tokenizer),
    ),
    TinyFamily("altclip", "BAAI/AltCLIP", _CLIP_PROCESSOR, _altclip),
    TinyFamily("siglip", "google/siglip-base-patch16-224", "SiglipImageProcessorPil", _siglip),
    TinyFamily("siglip2", "google/siglip2-base-patch16-224", "SiglipImageProcessorPil", _siglip2),
    TinyFamily("naflex", "google/siglip2-base-patch16-naflex", "Siglip2ImageProcessorPil", _naflex),
    TinyFamily(
        "chinese-clip",
        "OFA-Sys/chinese-clip-vit-base-patch16",
        "ChineseCLIPImageProcessorPil",
        _clip_like("ChineseCLIPModel", "ChineseCLIPConfig", _chinese_tokenizer),
    ),
    TinyFamily("align", "kakaobrain/align-base", "EfficientNetImageProcessorPil", _align),
    TinyFamily(
        "aimv2",
        "apple/aimv2-large-patch14-224-lit",
        _CLIP_PROCESSOR,
        _clip_like("Aimv2Model", "Aimv2Config", _clip_tokenizer),
    ),
    TinyFamily("tipsv2", "google/tipsv2-b14", "", _tipsv2),
    TinyFamily("blip", "Salesforce/blip-itm-base-coco", "BlipImageProcessorPil", _blip),
    TinyFamily("vision-text-dual-encoder", "clip-italian/clip-italian", _CLIP_PROCESSOR, _dual),
    TinyFamily("xclip", "microsoft/xclip-base-patch32", _CLIP_PROCESSOR, _xclip),
    TinyFamily("videoprism", "google/videoprism-lvt-base-f16r288", "", _videoprism),
    TinyFamily(
        "embeddinggemma2", "google/embeddinggemma-2", "Gemma4ImageProcessorPil", _embedding_gemma
    ),
    TinyFamily(
        "qwen3-vl-embedding", "Qwen/Qwen3-VL-Embedding-2B", "Qwen2VLImageProcessorPil", _qwen
    ),
)
"""All families by the name of their row."""
