"""Published encoders worth knowing: languages, size and width, and which one fits a language and a machine.

    recommend("de", has_gpu=False).name      # "google/siglip2-base-patch16-224"
    is_here("openai/clip-vit-base-patch32")  # whether its weights are on this machine

Sizes are about those of the weights that are downloaded, from their numbers of parameters; widths are those of the
joint space.
"""

from dataclasses import dataclass

from scanonce.models.encoders.hub import BUNDLED_NAME, find_cached
from scanonce.models.offline_weights import CONCEPTS_NAME, IMAGENET, SENTENCES, are_installed

MANY = "100+"
"""Languages of an encoder that was trained on web pages of the whole world."""


@dataclass(frozen=True, slots=True)
class KnownEncoder:
    """A published encoder."""

    name: str
    """Hub id, ``bundled`` or ``concepts``."""
    family: str
    """Its ``model_type`` (`models.encoders.families`); ``concepts`` is a family of its own."""
    languages: str
    """Codes of ISO 639-1, or ``100+``."""
    megabytes: int
    dim: int
    remark: str = ""

    def speaks(self, language: str) -> bool:
        """Whether it was trained on a language, given by its code of two letters."""
        return self.languages == MANY or language in self.languages.split(", ")


KNOWN = (
    KnownEncoder(BUNDLED_NAME, "clip", "en", 3, 128, "only the cartoon world of the demo"),
    KnownEncoder(CONCEPTS_NAME, "concepts", "en", 108, 384, "real videos without the hub: objects, animals, scenes"),
    KnownEncoder("openai/clip-vit-base-patch32", "clip", "en", 605, 512, "the default; the published SOONet reads it"),
    KnownEncoder("openai/clip-vit-large-patch14", "clip", "en", 1711, 768),
    KnownEncoder("google/siglip-base-patch16-224", "siglip", "en", 813, 768),
    KnownEncoder("google/siglip2-base-patch16-224", "siglip", MANY, 1500, 768),
    KnownEncoder("google/siglip2-base-patch16-naflex", "siglip2", MANY, 1500, 768, "keeps the shape of the picture"),
    KnownEncoder("google/siglip2-so400m-patch14-384", "siglip", MANY, 4544, 1152, "for a GPU"),
    KnownEncoder("facebook/metaclip-2-worldwide-b32", "metaclip_2", MANY, 2400, 512),
    KnownEncoder("OFA-Sys/chinese-clip-vit-base-patch16", "chinese_clip", "zh", 753, 512),
    KnownEncoder("BAAI/AltCLIP", "altclip", "en, zh", 3460, 768),
    KnownEncoder("kakaobrain/align-base", "align", "en", 690, 640),
    KnownEncoder("apple/aimv2-large-patch14-224-lit", "aimv2", "en", 1760, 768),
    KnownEncoder("google/tipsv2-b14", "tipsv2", "en", 790, 768),
    KnownEncoder("Salesforce/blip-itm-base-coco", "blip", "en", 895, 256),
    KnownEncoder("clip-italian/clip-italian", "vision-text-dual-encoder", "it", 790, 512),
    KnownEncoder("microsoft/xclip-base-patch32", "xclip", "en", 790, 512, "reads 8 frames at once: motion"),
    KnownEncoder("google/videoprism-lvt-base-f16r288", "videoprism", "en", 990, 768, "reads 16 frames at once: motion"),
    KnownEncoder("google/embeddinggemma-2", "embedding_gemma2", MANY, 1500, 768, "@512, @256 or @128: smaller indexes"),
    KnownEncoder("Qwen/Qwen3-VL-Embedding-2B", "qwen3_vl", MANY, 4300, 2048, "for a GPU; @64 to @1024: smaller index"),
)  # fmt: skip
"""Encoders that load here, those for English first."""

_ENGLISH = {False: "openai/clip-vit-base-patch32", True: "google/siglip2-so400m-patch14-384"}
_CHINESE = {
    False: "OFA-Sys/chinese-clip-vit-base-patch16",
    True: "google/siglip2-so400m-patch14-384",
}
_OTHER = {False: "google/siglip2-base-patch16-224", True: "google/siglip2-so400m-patch14-384"}


def recommend(language: str, *, has_gpu: bool) -> KnownEncoder:
    """Return the encoder to begin with.

    Args:
        language: of the queries, a code of two letters.
        has_gpu: whether the machine has one that torch uses; without it, large models take weeks.
    """
    choices = {"en": _ENGLISH, "zh": _CHINESE}.get(language, _OTHER)
    return next(each for each in KNOWN if each.name == choices[has_gpu])


def is_here(name: str) -> bool:
    """Whether the weights of an encoder are on this machine. Nothing is downloaded."""
    if name == BUNDLED_NAME:
        return True
    if name == CONCEPTS_NAME:
        return are_installed(IMAGENET, SENTENCES)
    return find_cached(name) is not None
