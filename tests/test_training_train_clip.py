"""Training of the bundled encoder: losses, reproducibility, the checkpoint folder, its held-out figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, PreTrainedTokenizerFast

from scanonce.models.encoders.hub import BUNDLED_FOLDER
from scanonce.training.bundled.clip import (
    BundledClipRun,
    PoolBatches,
    contrastive_loss,
    facts_loss,
    mean_pool,
)
from scanonce.training.bundled.clip_examples import Pool, fact_row, render_pools, squeeze
from scanonce.training.bundled.clip_model import (
    SPECIAL_TOKENS,
    BundledClipRecipe,
    HeldOutImages,
    build_model,
    build_tokenizer,
    embed_texts,
    held_out_top1,
    save_checkpoint,
)
from scanonce.training.loop import Callbacks, Validation, train
from scanonce.training.world.scene import draw_image, is_held_out, random_scene
from scanonce.training.world.words import FACTS
from tests.training_kit import assert_equal
from tests.training_kit import one_thread as one_thread

TINY = BundledClipRecipe(
    image_size=32, embed_dim=32, vision_width=32, vision_layers=1, text_width=32, text_layers=1, vocab_size=400,
    max_tokens=32, num_images=48, num_scenes=12, frames_per_scene=3, batch_images=24, batch_scenes=6, image_steps=20,
    scene_steps=4, warm_up_steps=4, learning_rate=3e-3,
)  # fmt: skip


class Recorder(Callbacks):
    """Keeps steps, losses and validations."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.losses: list[float] = []
        self.validated_steps: list[int] = []

    def stepped(self, run: BundledClipRun) -> None:
        self.steps.append(run.at.step)
        self.losses.append(run.at.losses["train"])

    def validated(self, run: BundledClipRun, found: Validation) -> None:
        assert 0 <= found.selection_metric <= 1
        self.validated_steps.append(found.step)


@pytest.fixture(scope="module")
def pools() -> tuple[Pool, Pool]:
    return render_pools(TINY.examples, workers=1)


@pytest.fixture(scope="module")
def tokenizer(pools: tuple[Pool, Pool]) -> PreTrainedTokenizerFast:
    return build_tokenizer((text for each in pools[0].captions for text in each), TINY)


def test_examples_are_of_pairs_that_are_not_held_out(pools: tuple[Pool, Pool]) -> None:
    for pool in pools:
        for row in pool.facts:
            facts = dict(FACTS[i].split(":") for i in np.flatnonzero(row))
            assert not is_held_out(facts["thing"], facts["colour"])


def test_captions_of_examples_name_only_true_facts(pools: tuple[Pool, Pool]) -> None:
    for pool in pools:
        assert not (pool.named & ~pool.facts[:, None]).any()


def test_a_training_run_lowers_the_loss_and_validates_at_the_end(
    pools: tuple[Pool, Pool], tokenizer: PreTrainedTokenizerFast
) -> None:
    held_out = HeldOutImages.draw(4, 1, TINY.image_size, draw_size=(320, 180))
    recorder = Recorder()
    train(BundledClipRun(TINY, *pools, tokenizer, held_out=held_out), callbacks=recorder)
    assert recorder.steps == list(range(1, 25))
    assert recorder.losses[19] < 0.9 * recorder.losses[0]  # the last of phase one, and the first
    assert recorder.validated_steps == [24]


@pytest.fixture(scope="module")
def run(pools: tuple[Pool, Pool], tokenizer: PreTrainedTokenizerFast) -> BundledClipRun:
    """A run at its end."""
    run = BundledClipRun(TINY, *pools, tokenizer)
    train(run)
    run.model.eval()
    return run


def test_two_runs_with_the_same_seed_have_equal_weights(
    run: BundledClipRun, pools: tuple[Pool, Pool], tokenizer: PreTrainedTokenizerFast
) -> None:
    second = BundledClipRun(TINY, *pools, tokenizer)
    train(second)
    assert_equal(second.model.state_dict(), run.model.state_dict())


def test_a_run_out_of_time_ends_early(
    pools: tuple[Pool, Pool], tokenizer: PreTrainedTokenizerFast
) -> None:
    recorder = Recorder()
    train(BundledClipRun(TINY, *pools, tokenizer, cap_seconds=1e-6), callbacks=recorder)
    assert not recorder.steps


def test_the_saved_folder_loads_as_any_clip_does(
    tmp_path: Path, run: BundledClipRun, tokenizer: PreTrainedTokenizerFast
) -> None:
    save_checkpoint(run.model, tokenizer, tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    again = AutoTokenizer.from_pretrained(tmp_path)
    texts = ["a red car on the beach", "two dogs"]
    tokens = again(texts, padding=True, return_tensors="pt")["input_ids"]
    torch.testing.assert_close(
        embed_texts(loaded, tokens, again.pad_token_id),
        embed_texts(run.model, tokens, tokenizer.pad_token_id),
        atol=1e-2,
        rtol=0,
    )


def test_the_saved_preprocessing_resizes_whole_frames(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(iter(["a red car"]), TINY)
    save_checkpoint(build_model(TINY, tokenizer), tokenizer, tmp_path)
    image = Image.fromarray(draw_image(random_scene(np.random.default_rng(0))))
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    pixels = processor(image, return_tensors="np")["pixel_values"][0]  # [3, S, S]
    expected = squeeze(image, TINY.image_size).astype(np.float32).transpose(2, 0, 1) / 127.5 - 1
    np.testing.assert_allclose(pixels, expected, atol=1e-4)


def test_the_tokenizer_ends_every_text_and_knows_every_character(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    ids = [tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS]
    assert ids == [0, 1, 2, 3]
    for text in ("a red car", "A RED CAR", "Überraschung 漢字 🚗", "", "red " * 200):
        tokens = tokenizer(text, truncation=True)["input_ids"]
        assert tokens[0] == tokenizer.bos_token_id
        assert tokens.count(tokenizer.eos_token_id) == 1
        assert tokens[-1] == tokenizer.eos_token_id
        assert len(tokens) <= TINY.max_tokens
        assert tokenizer.unk_token_id not in tokens
    assert tokenizer("A Red CAR")["input_ids"] == tokenizer("a red car")["input_ids"]


def test_padding_does_not_change_a_text(tokenizer: PreTrainedTokenizerFast) -> None:
    model = build_model(TINY, tokenizer).eval()
    ids = tokenizer(["a red car", "three blue dogs in the snow at night"], padding=True)
    padded = torch.tensor(ids["input_ids"])
    alone = torch.tensor(tokenizer(["a red car"])["input_ids"])
    torch.testing.assert_close(
        embed_texts(model, padded, 0)[:1], embed_texts(model, alone, 0), atol=1e-5, rtol=0
    )


def test_mean_pool_is_the_unit_mean_of_the_frames_that_count() -> None:
    frames = torch.nn.functional.normalize(torch.randn(2, 3, 8), dim=-1)
    mask = torch.tensor([[True, True, False], [False, True, False]])
    pooled = mean_pool(frames, mask)
    expected = frames[0, :2].mean(dim=0)
    torch.testing.assert_close(pooled[0], expected / expected.norm())
    torch.testing.assert_close(pooled[1], frames[1, 1])


def named(*facts: str) -> torch.Tensor:
    return torch.from_numpy(fact_row(frozenset(facts)).astype(np.float32))


def test_a_caption_true_of_two_images_is_a_positive_of_both() -> None:
    captions = torch.stack([named("thing:car"), named("thing:dog", "colour:red")])
    images = torch.stack([named("thing:car"), named("thing:dog", "colour:red")])
    both_cars = torch.stack([named("thing:car", "colour:red"), named("thing:car", "colour:blue")])
    apart = torch.tensor([[20.0, -20.0], [-20.0, 20.0]])
    assert contrastive_loss(apart, captions, images) < 1e-3
    alike = torch.stack([named("thing:car"), named("thing:car")])
    even = contrastive_loss(torch.zeros(2, 2), alike, both_cars)
    assert even == pytest.approx(np.log(2), abs=1e-6)
    assert contrastive_loss(apart, alike, both_cars) > even


def test_open_questions_add_no_loss() -> None:
    facts = named("thing:car")[None]
    right = 30 * facts
    assert facts_loss(right, facts) < 1e-6
    only_elsewhere = right + 30 * named("light:night")[None]
    assert facts_loss(only_elsewhere, facts) < 1e-6
    assert facts_loss(30 * named("thing:dog")[None], facts) > 1


def test_batches_hold_no_example_twice_and_count_some_frames(
    pools: tuple[Pool, Pool], tokenizer: PreTrainedTokenizerFast
) -> None:
    batch = PoolBatches(pools[1], tokenizer, TINY).draw(12)
    assert batch.pixels.shape == (12, 3, 3, 32, 32)
    assert batch.pixels.abs().max() <= 1
    assert (batch.mask.sum(dim=1) >= 2).all()
    assert (batch.facts >= batch.named).all()


def test_the_bundled_checkpoint_finds_pairs_it_was_not_trained_on() -> None:
    assert held_out_top1(BUNDLED_FOLDER, num_images=60, seed=11) >= 0.9


def test_the_bundled_checkpoint_is_small() -> None:
    assert (BUNDLED_FOLDER / "model.safetensors").stat().st_size <= 8_000_000
