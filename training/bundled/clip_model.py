"""The bundled encoder: its recipe, its tokenizer and network before training, its files, and its held-out figure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    AutoTokenizer,
    CLIPConfig,
    CLIPModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from scanonce.models.encoders.preprocess import Preprocessing, write_preprocessing
from scanonce.training.bundled.clip_examples import ExamplePlan, squeeze
from scanonce.training.world.drawing import Painter
from scanonce.training.world.scene import (
    FILM_SIZE,
    HAPPENINGS,
    SceneSpec,
    random_scene,
    view_at,
)
from scanonce.training.world.words import Caption, image_caption, true_facts

PAD, BOS, UNK, EOS = "<pad>", "<bos>", "<unk>", "<eos>"
# In this order EOS has id 3. With id 2 CLIPTextModel would follow its oldest rule, and pool at the highest id of a
# text instead of at EOS.
SPECIAL_TOKENS = (PAD, BOS, UNK, EOS)

PIXEL_MEAN = PIXEL_STD = 0.5
"""Pixels from 0 to 1 are normalised to -1 to 1."""

ACTIVATION = "gelu_pytorch_tanh"
"""One operation forwards and one backwards; CLIP's "quick_gelu" is four, a third of the time of a step."""

HELD_OUT_IMAGES = 400


@dataclass(frozen=True)
class BundledClipRecipe:
    """Everything that decides the result, with the values of the bundled checkpoint."""

    seed: int = 0
    image_size: int = 96
    patch_size: int = 16
    embed_dim: int = 128
    vision_width: int = 128
    vision_layers: int = 5
    text_width: int = 128
    text_layers: int = 3
    vocab_size: int = 768
    max_tokens: int = 48
    num_images: int = 36_000
    """Images rendered for phase one; each is used many times."""
    num_scenes: int = 4_000
    """Scenes rendered for phase two."""
    frames_per_scene: int = 4
    batch_images: int = 128
    batch_scenes: int = 24
    image_steps: int = 3_000
    scene_steps: int = 1_500
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    warm_up_steps: int = 100
    facts_weight: float = 0.5
    """Weight of the auxiliary loss, which reads the facts from both embeddings."""

    @property
    def examples(self) -> ExamplePlan:
        """Examples to be rendered."""
        return ExamplePlan(
            seed=self.seed,
            image_size=self.image_size,
            num_images=self.num_images,
            num_scenes=self.num_scenes,
            frames_per_scene=self.frames_per_scene,
        )


# --- Tokenizer and model ---


def build_tokenizer(texts: Iterator[str], recipe: BundledClipRecipe) -> PreTrainedTokenizerFast:
    """Train a lower-casing byte-level BPE: it has tokens for any text, and splits unknown words into pieces."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNK))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocab_size,
        min_frequency=20,  # no tokens for the random words of `clip_examples`
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in (BOS, EOS)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}", special_tokens=ends
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        unk_token=UNK,
        eos_token=EOS,
        model_max_length=recipe.max_tokens,
    )


def build_model(recipe: BundledClipRecipe, tokenizer: PreTrainedTokenizerBase) -> CLIPModel:
    """Build an untrained CLIP of the recipe's sizes, float32."""
    ids = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }

    def tower(width: int, layers: int) -> dict[str, Any]:
        return {
            "hidden_size": width,
            "hidden_act": ACTIVATION,
            "intermediate_size": 4 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": width // 32,
            "projection_dim": recipe.embed_dim,
        }

    config = CLIPConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "max_position_embeddings": recipe.max_tokens,
            **tower(recipe.text_width, recipe.text_layers),
            **ids,
        },
        vision_config={
            "image_size": recipe.image_size,
            "patch_size": recipe.patch_size,
            **tower(recipe.vision_width, recipe.vision_layers),
        },
        projection_dim=recipe.embed_dim,
        **ids,
    )
    torch.manual_seed(recipe.seed)
    # Over a few dozen tokens the backward pass of eager attention is several times as fast on a CPU as that of the
    # fused kernel. It is a choice of this process, not of the checkpoint.
    return CLIPModel._from_config(config, attn_implementation="eager")


def save_checkpoint(model: CLIPModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write model (float16), tokenizer and preprocessing as an ordinary CLIP folder."""
    folder.mkdir(parents=True, exist_ok=True)
    halved = CLIPModel(model.config).half()
    halved.load_state_dict(model.state_dict())
    halved.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    side = model.config.vision_config.image_size
    steps = Preprocessing(
        short_side=None,
        exact_size=(side, side),  # unlike CLIP's own, whole frames without a crop: see `squeeze`
        crop=None,
        resample="bicubic",
        mean=(PIXEL_MEAN,) * 3,
        std=(PIXEL_STD,) * 3,
    )
    write_preprocessing(steps, folder)


def embed_frames(model: CLIPModel, pixels: torch.Tensor) -> torch.Tensor:
    """Unit embeddings [N, D] of normalised pixels [N, 3, S, S]."""
    return F.normalize(model.get_image_features(pixels).pooler_output.float(), dim=-1)


def embed_texts(model: CLIPModel, tokens: torch.Tensor, pad_id: int) -> torch.Tensor:
    """Unit embeddings [N, D] of token ids [N, L], padded on the right."""
    output = model.get_text_features(tokens, attention_mask=(tokens != pad_id).long())
    return F.normalize(output.pooler_output.float(), dim=-1)


# --- Held-out figure ---


@dataclass(frozen=True)
class HeldOutImages:
    """Stills of pairs that training never draws, each with its full caption."""

    scenes: list[SceneSpec]
    captions: list[Caption]
    frames: NDArray[np.uint8]
    """[N, S, S, 3], the start of each scene."""

    @classmethod
    def draw(
        cls, num_images: int, seed: int, image_size: int, *, draw_size: tuple[int, int] = FILM_SIZE
    ) -> HeldOutImages:
        """Draw images, by default at a film's size, and resize them as a search does; up to 0.1 s each."""
        rng = np.random.default_rng((seed, 37))
        scenes = [
            random_scene(rng, held_out=True, happening=HAPPENINGS[0]) for _ in range(num_images)
        ]
        captions = [image_caption(true_facts(scene, 0.0), rng, full=True) for scene in scenes]
        painter = Painter(draw_size, keep_backdrops=100)
        stills = (painter.paint(view_at(scene, 0.0)) for scene in scenes)
        return cls(scenes, captions, np.stack([squeeze(still, image_size) for still in stills]))

    @torch.inference_mode()
    def top1(self, model: CLIPModel, tokenizer: PreTrainedTokenizerBase) -> float:
        """Share of captions whose nearest image has every attribute that the caption names, in [0, 1].

        Args:
            model: model in evaluation mode.
            tokenizer: tokenizer of the model.
        """
        pixels = torch.from_numpy(self.frames).permute(0, 3, 1, 2).float().div(255)
        captions = [caption.text for caption in self.captions]
        encoded = tokenizer(captions, padding=True, truncation=True, return_tensors="pt")
        images = embed_frames(model, (pixels - PIXEL_MEAN) / PIXEL_STD)
        texts = embed_texts(model, encoded["input_ids"], tokenizer.pad_token_id)
        nearest = (texts @ images.T).argmax(dim=1).tolist()
        facts = [true_facts(scene, 0.0) for scene in self.scenes]
        hits = [c.facts <= facts[n] for c, n in zip(self.captions, nearest, strict=True)]
        return float(np.mean(hits))


def held_out_top1(
    encoder_folder: Path, *, num_images: int = HELD_OUT_IMAGES, seed: int = 0
) -> float:
    """Caption-to-image top-1 of a saved checkpoint, on pairs never seen in training; see `HeldOutImages.top1`.

    Args:
        encoder_folder: folder written by `save_checkpoint`.
        num_images: images among which each caption must find its own.
        seed: seed of images and captions.
    """
    model = CLIPModel.from_pretrained(encoder_folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(encoder_folder)
    images = HeldOutImages.draw(num_images, seed, model.config.vision_config.image_size)
    return images.top1(model, tokenizer)
