"""Families of encoders: what each class of `transformers` asks for beyond "image in, vector out".

    family_of("siglip").padding        # "max_length"
    refusal("blip-2")                # a sentence, or None

One row per ``model_type`` of a config.json. A new family is one row here, and one in `benchmarks.tiny_encoders`.
`scanonce.models.encoders.known` names published checkpoints of them.
"""

from dataclasses import dataclass
from typing import Literal

TextState = Literal["pooled", "first"]


@dataclass(frozen=True, slots=True)
class Family:
    """How the models of one ``model_type`` are used."""

    name: str
    """Name for people."""
    padding: Literal["longest", "max_length"] = "longest"
    """``max_length`` if the text tower was trained on texts of full length and reads a fixed position."""
    masks_padding: bool = True
    """Whether the text tower takes the attention mask of the tokenizer."""
    is_lower_case: bool = False
    """Trained on lower-cased texts. Applied if the tokenizer has no setting of its own for it."""
    text_state: TextState = "pooled"
    """Text feature before the projection: the pooled output of the tower, or the state of its first token."""
    model_class: str | None = None
    """Class in `transformers` that the weights belong to; None: the one that AutoModel chooses."""
    patches: Literal["naflex", "gemma", "qwen"] | None = None
    """Rule of `models.encoders.patches` for its images; None: images of one size."""
    is_joint: bool = False
    """One model for images and texts, with prompts (`models.encoders.joint`), and vectors that may be shortened."""
    is_video: bool = False
    """Reads runs of frames (`models.encoders.video`), not single ones."""
    pools_mean: bool = False
    """Of a joint model: the vector is the mean over all tokens; else that of the last one."""
    allows_float16: bool = True
    """False if its activations exceed the range of float16."""


_DEFAULT = Family("a dual encoder")

_FAMILIES = {
    "clip": Family("CLIP"),
    "metaclip_2": Family("MetaCLIP 2"),
    "altclip": Family("AltCLIP", text_state="first"),
    # read at the last position, which is padding; published tokenizers return no mask
    "siglip": Family("SigLIP", padding="max_length", masks_padding=False, is_lower_case=True),
    "siglip2": Family(
        "SigLIP 2 NaFlex",
        padding="max_length",
        masks_padding=False,
        is_lower_case=True,
        patches="naflex",
    ),
    "chinese_clip": Family("Chinese-CLIP", text_state="first"),
    "align": Family("ALIGN", text_state="first"),
    # without padding transformers makes no mask for its text tower, whose attention then looks ahead (5.23)
    "aimv2": Family("AIMv2", padding="max_length"),
    "tipsv2": Family("TIPSv2", is_lower_case=True),
    # BlipModel has no published weights; those for retrieval are of this class
    "blip": Family("BLIP", text_state="first", model_class="BlipForImageTextRetrieval"),
    "vision-text-dual-encoder": Family("VisionTextDualEncoder"),
    "clipseg": Family("CLIPSeg"),
    "groupvit": Family("GroupViT"),
    "xclip": Family("X-CLIP", is_video=True),
    # trained on lower-cased texts of full length
    "videoprism": Family("VideoPrism", padding="max_length", is_lower_case=True, is_video=True),
    "embedding_gemma2": Family(
        "EmbeddingGemma 2", patches="gemma", is_joint=True, pools_mean=True, allows_float16=False
    ),
    "qwen3_vl": Family("Qwen3-VL-Embedding", is_joint=True, patches="qwen"),
}

_TORCHVISION = (
    "needs timm and torchvision, which are not part of this installation. The nearest that works: "
    '"google/videoprism-lvt-base-f16r288"'
)
_OWN_CODE = (
    "exists only as code that comes with its weights, and code of a checkpoint is never run here. "
)
_REFUSED = {
    "clap": "CLAP compares texts with sounds, not with images. Use a CLIP or SigLIP checkpoint",
    "pe_audio": "PE-AV compares texts with sounds, not with images. Use a CLIP or SigLIP checkpoint",
    "pe_video": f"PE-AV {_TORCHVISION}",
    "pe_audio_video": f"PE-AV {_TORCHVISION}",
    "jina_clip": f'jina-clip {_OWN_CODE}The nearest that works: "google/siglip2-base-patch16-224"',
    "blip-2": 'BLIP-2 writes texts and has no vectors for search. Use "Salesforce/blip-itm-base-coco"',
}
_NEAREST = (
    ("internvideo", '"google/videoprism-lvt-base-f16r288"'),
    ("languagebind", '"google/videoprism-lvt-base-f16r288"'),
    ("videoclip-xl", '"google/videoprism-lvt-base-f16r288"'),
    ("cosmos-embed", '"google/videoprism-lvt-base-f16r288"'),
    ("jina-embeddings-v4", '"Qwen/Qwen3-VL-Embedding-2B"'),
    ("gme-", '"Qwen/Qwen3-VL-Embedding-2B"'),
    ("gve", '"Qwen/Qwen3-VL-Embedding-2B"'),
)
"""Parts of names of checkpoints that bring their own code, with the nearest that works."""


def family_of(model_type: str) -> Family:
    """Return the family of a ``model_type``; for an unknown one, the rules of CLIP."""
    return _FAMILIES.get(model_type, _DEFAULT)


def known_families() -> dict[str, Family]:
    """Return all families by their ``model_type``."""
    return dict(_FAMILIES)


def refusal(model_type: str, *, name: str = "", has_own_code: bool = False) -> str | None:
    """Return the sentence that refuses a checkpoint; None if nothing speaks against trying it.

    Args:
        model_type: as in its config.json.
        name: hub id or folder.
        has_own_code: whether its config.json names code of its own.
    """
    if sentence := _REFUSED.get(model_type):
        return sentence
    if model_type in _FAMILIES or not has_own_code:
        return None
    lowered = name.lower()
    nearest = next(
        (nearest for part, nearest in _NEAREST if part in lowered),
        '"google/siglip2-base-patch16-224"',
    )
    return f'"{model_type}" {_OWN_CODE}The nearest that works: {nearest}'


def open_clip_refusal(folder: str) -> str:
    """Return the sentence that refuses a checkpoint in the format of the package open_clip."""
    return (
        f"{folder} is in the format of open_clip (PE-Core, MobileCLIP2, EVA-CLIP, DFN, ViTamin ...), which is not "
        "supported: that package needs torchvision, whose wheels on PyPI are built for CUDA and do not load beside a "
        'CPU build of torch. The nearest that works: "google/siglip2-base-patch16-224"'
    )
