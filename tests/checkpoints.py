"""Small checkpoints with random weights, in exactly the format of published ones, and their tokenizers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPConfig,
    CLIPModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
)

WORDS = ["a", "red", "blue", "car", "house", "at", "night", "drives", "past", "the"]

CLIP_PROCESSOR = {
    "crop_size": {"height": 64, "width": 64},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "CLIPImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 64},
}

SIGLIP_PROCESSOR = {
    "do_convert_rgb": None,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "SiglipImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 64, "width": 64},
}

_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
    "vocab_size": len(WORDS) + 4,
    "bos_token_id": 1,
    "eos_token_id": 3,
    "pad_token_id": 0,
}
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 64,
    "patch_size": 16,
}


def make_clip(folder: Path, *, seed: int = 0, safetensors: bool = True) -> Path:
    """Write a CLIP of two layers; in PyTorch's own format if ``safetensors`` is false."""
    torch.manual_seed(seed)
    model = CLIPModel(CLIPConfig(text_config=_TEXT, vision_config=_VISION, projection_dim=24))
    _save(folder, model, CLIP_PROCESSOR)
    if not safetensors:
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    return folder


def make_siglip(folder: Path, *, seed: int = 0) -> Path:
    """Write a SigLIP of two layers."""
    torch.manual_seed(seed)
    text = {**_TEXT, "projection_size": 32}
    _save(
        folder, SiglipModel(SiglipConfig(text_config=text, vision_config=_VISION)), SIGLIP_PROCESSOR
    )
    return folder


def _save(folder: Path, model: torch.nn.Module, processor: Mapping[str, object]) -> None:
    model.save_pretrained(folder)  # type: ignore[operator]
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    words = ["<pad>", "<s>", "<unk>", "</s>", *WORDS]
    write_tokenizer(folder, words, pad="<pad>", unknown="<unk>")


def write_tokenizer(folder: Path, words: Sequence[str], *, pad: str, unknown: str) -> None:
    """Write a tokenizer of whole words, whose ids are their positions; a text becomes ``<s> ... </s>``."""
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        special_tokens=[("<s>", vocabulary["<s>"]), ("</s>", vocabulary["</s>"])],
    )
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": pad, "unk_token": unknown}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
