"""Fine-tuning: gradients of a batch in parts and over processes, resumption after a kill, and the checkpoint."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from typer.testing import CliRunner

from scanonce.models.clip4clip.head_files import read_head
from scanonce.models.encoders.load import load_encoder
from scanonce.models.settings import ModelSettings
from scanonce.storage.errors import ConfigError
from scanonce.storage.records import Span
from scanonce.training.clip.batches import Batches, augment, hold_out
from scanonce.training.clip.captions import CaptionedPart, CaptionedVideos
from scanonce.training.clip.contrast import Embedded, add_gradients, info_nce, right_pairs
from scanonce.training.clip.recipe import MAX_LOG_SCALE, HeadName
from scanonce.training.clip.run import ClipRun, score_all
from scanonce.training.loop import train
from scanonce.training.processes import OneProcess, SeveralProcesses
from scanonce.ui.cli import app
from tests.checkpoints import make_clip, make_siglip
from tests.toy_clips import (
    CPU,
    FILMS,
    RECIPE,
    RESUMED,
    SHARED_HEADS,
    SIDE,
    caption,
    draw,
    first_gradients,
    new_run,
    toy_clips,
    without_dropout,
)
from tests.training_kit import ROOT, assert_equal, assert_near, copy_weights, run_until_killed
from tests.training_kit import one_thread as one_thread


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("tiny"))


def changed_weights(run: ClipRun) -> set[str]:
    """Names of the weights that a step changes."""
    before = copy_weights(run.model)
    run.step()
    after = run.model.state_dict()
    return {name for name, each in before.items() if not torch.equal(each, after[name])}


# --- Loss and gradients ---


def test_the_loss_is_the_mean_cross_entropy_of_both_directions() -> None:
    scores = torch.tensor([[2.0, 0.0], [1.0, 3.0]], dtype=torch.float64)
    rows = np.log1p(np.exp(-2)) + np.log1p(np.exp(-2))
    columns = np.log1p(np.exp(-1)) + np.log1p(np.exp(-3))
    assert info_nce(scores, torch.eye(2, dtype=torch.bool)).item() == pytest.approx(
        (rows + columns) / 4
    )


def test_a_caption_that_another_clip_has_too_is_no_negative_of_it() -> None:
    captions = [("A dog runs.", "a dog"), ("two cats",), ("a  dog runs", "a park")]
    right = right_pairs(["a dog", "two cats", "a dog runs"], captions)
    assert right.tolist() == [[True, False, False], [False, True, False], [True, False, True]]
    alike = torch.zeros(2, 2)
    assert info_nce(alike, torch.ones(2, 2, dtype=torch.bool)).item() == pytest.approx(np.log(2))


@pytest.mark.parametrize("head", ["mean", "lstm", "tight"])
def test_parts_of_a_batch_give_the_gradients_of_the_whole(tiny: Path, head: HeadName) -> None:
    recipe = replace(RECIPE, head=head, batch=16)
    whole = new_run(tiny, recipe)
    parts = new_run(tiny, replace(recipe, batch=4, accumulate=4))
    for run in (whole, parts):
        without_dropout(run.model)
    if head == "tight":
        parts.model.texts_at_once = lambda num_videos: 5  # type: ignore[method-assign]
    expected = first_gradients(whole)
    assert ("module.logit_scale" in expected) == (head != "tight")
    assert_near(first_gradients(parts), expected)


def test_dropout_is_the_same_both_times_a_part_is_embedded() -> None:
    """With other random numbers than those of the loss the gradient would be wrong by more than rounding."""
    layer = torch.nn.Linear(6, 4, bias=False)
    inputs = torch.randn(2, 3, 6)
    seen: list[torch.Tensor] = []

    def embed(part: torch.Tensor) -> Embedded:
        kept = torch.nn.functional.dropout(part, 0.5)
        seen.append(kept)
        return Embedded(layer(kept), layer(kept.flip(0)))

    before = torch.get_rng_state()
    add_gradients(
        list(inputs),
        embed,
        lambda texts, videos, _: texts @ videos.T,
        torch.nn.Parameter(torch.tensor(1.0)),
        torch.eye(6, dtype=torch.bool),
        OneProcess(CPU),
    )
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[3])
    assert not torch.equal(seen[0] == 0, seen[1] == 0)
    assert torch.equal(before, torch.get_rng_state())


def test_checkpointing_changes_no_gradient(tiny: Path) -> None:
    expected = first_gradients(new_run(tiny))
    assert_near(first_gradients(new_run(tiny, replace(RECIPE, checkpointing=True))), expected)


# --- Steps ---


def test_a_run_learns_which_caption_belongs_to_which_clip(tiny: Path) -> None:
    recipe = replace(RECIPE, batch=16, epochs=90, encoder_lr=2e-3, validate_every=45)
    run = new_run(tiny, recipe, toy_clips())
    before = run.validate()
    assert before is not None
    while not run.is_done:
        run.step()
        assert run.model.log_scale.item() <= MAX_LOG_SCALE
        if run.is_validation_due:
            run.validate()
    assert run.best is not None
    assert before.videos["R@1"] < 0.2
    assert run.best.videos["R@1"] > 0.8
    with torch.no_grad():
        for parameter in run.model.parameters():  # later weights than the best do not matter
            parameter.zero_()
    scores = score_all(run.take_kept(), toy_clips(), OneProcess(CPU), 5)
    assert scores is not None
    again = (scores.argmax(axis=1) == np.repeat(np.arange(16), 2)).mean()
    assert again == pytest.approx(run.best.videos["R@1"])


def test_the_temperature_is_clamped(tiny: Path) -> None:
    run = new_run(tiny)
    with torch.no_grad():
        run.model.log_scale.fill_(5.0)
    run.step()
    assert run.model.log_scale.item() == pytest.approx(MAX_LOG_SCALE)


def test_learning_rates_rise_then_fall_to_nothing(tiny: Path) -> None:
    run = new_run(
        tiny, replace(RECIPE, head="lstm", epochs=10, warm_up=0.2, lr=1e-3, encoder_lr=1e-5)
    )
    rates = []
    while not run.is_done:
        run.step()
        rates.append(run.rates)
    heads = [rate["head"] for rate in rates]
    assert len(heads) == 20
    assert heads[:4] == sorted(heads[:4])
    assert heads[3:] == sorted(heads[3:], reverse=True)
    assert 9e-4 < heads[3] <= 1e-3
    assert heads[-1] < 1e-5
    assert all(rate["encoder"] == pytest.approx(rate["head"] / 100) for rate in rates)


def test_frozen_layers_stay_and_others_do_not(tiny: Path) -> None:
    changed = changed_weights(new_run(tiny, replace(RECIPE, freeze_layers=1)))
    frozen = ("embeddings", "pre_layrnorm", "layers.0.")
    assert not [name for name in changed if any(part in name for part in frozen)]
    for part in (
        "vision_model.encoder.layers.1.",
        "text_model.encoder.layers.1.",
        "projection",
        "logit_scale",
    ):
        assert [name for name in changed if part in name], part
    with pytest.raises(ConfigError, match="0 to 2"):
        new_run(tiny, replace(RECIPE, freeze_layers=3))


def test_an_encoder_without_a_learning_rate_stays_and_its_head_learns(tmp_path: Path) -> None:
    tiny = make_siglip(tmp_path / "siglip")
    recipe = replace(RECIPE, head="transformer", encoder_lr=0.0, accumulate=2, batch=4)
    changed = changed_weights(new_run(tiny, recipe))
    assert changed
    assert all(name.startswith("head.") for name in changed)


def test_a_loss_that_is_no_number_ends_the_run(tiny: Path) -> None:
    run = new_run(tiny)
    with torch.no_grad():
        run.model.module.text_projection.weight.fill_(float("inf"))
    with pytest.raises(ConfigError, match="learning rates"):
        run.step()


# --- Batches ---


def test_an_epoch_has_each_clip_once_and_the_next_epoch_other_captions() -> None:
    batches = Batches(toy_clips(), batch=8, seed=3, augment=False)

    def texts(epoch: int) -> list[str]:
        steps = range(2 * epoch, 2 * epoch + 2)
        shares = [batches.share(step, index=0, count=1, num_parts=1) for step in steps]
        return [text for share in shares for text in share.parts[0].texts]

    first, second = texts(0), texts(1)
    assert {text.split(maxsplit=1)[1] for text in first} == {caption(film)[2:] for film in FILMS}
    assert not set(first) & set(second)
    assert {*first, *second} == {text for each in toy_clips().captions for text in each}
    assert [text[4:] for text in first] != [text[4:] for text in second]
    assert texts(0) == first


def test_shares_of_processes_are_the_batch_of_one() -> None:
    batches = Batches(toy_clips(), batch=16, seed=0, augment=True)
    whole = batches.share(5, index=0, count=1, num_parts=1)
    halves = [batches.share(5, index=index, count=2, num_parts=2) for index in range(2)]
    parts = [part for half in halves for part in half.parts]
    assert len(parts) == 4
    assert tuple(text for part in parts for text in part.texts) == whole.parts[0].texts
    joined = np.concatenate([part.frames for part in parts])
    np.testing.assert_array_equal(joined, whole.parts[0].frames)
    other = Batches(toy_clips(), batch=16, seed=1, augment=True)
    assert other.share(5, index=0, count=1, num_parts=1).parts[0].texts != whole.parts[0].texts


def test_augmenting_keeps_the_order_of_frames_and_half_of_them() -> None:
    frames = (
        np.zeros((6, SIDE, SIDE, 3), np.uint8)
        + 20 * np.arange(6, dtype=np.uint8)[:, None, None, None]
    )
    counts = set()
    for seed in range(30):
        result = augment(frames, np.random.default_rng(seed))
        counts.add(len(result))
        levels = result[:, 0, 0, 0].astype(int)
        assert (np.diff(levels) > 0).all()
        assert result.shape[1:] == frames.shape[1:]
    assert counts == {3, 4, 5, 6}


def test_a_batch_larger_than_all_clips_is_refused() -> None:
    with pytest.raises(ConfigError, match="a batch of 17 clips"):
        Batches(toy_clips(), batch=17, seed=0, augment=False)


# --- Resumption ---


def test_a_killed_run_is_resumed_to_the_weights_of_an_uninterrupted_one(
    tiny: Path, tmp_path: Path
) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.toy_clips import train_and_die\n"
        "train_and_die(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    state = tmp_path / "state.pt"
    run_until_killed(code, tiny, state)
    resumed = new_run(tiny, RESUMED, toy_clips())
    resumed.resume(state)
    assert resumed.at.step == 6
    train(resumed, state)
    straight = new_run(tiny, RESUMED, toy_clips())
    train(straight, tmp_path / "other.pt")
    assert resumed.at.step == straight.at.step == 12
    assert_equal(resumed.model.state_dict(), straight.model.state_dict())
    assert resumed.best == straight.best
    assert_equal(resumed.take_kept().state_dict(), straight.take_kept().state_dict())


def test_the_state_of_another_run_is_refused_with_what_differs(tiny: Path, tmp_path: Path) -> None:
    run = new_run(tiny)
    run.step()
    run.save(tmp_path / "state.pt")
    same = new_run(tiny, replace(RECIPE, batch=4, accumulate=2, checkpointing=True))
    same.resume(tmp_path / "state.pt")  # these do not change the result
    with pytest.raises(ConfigError, match=r"lr was 0\.003, is 0\.1"):
        new_run(tiny, replace(RECIPE, lr=0.1)).resume(tmp_path / "state.pt")
    (tmp_path / "state.pt").write_bytes(b"no state")
    with pytest.raises(ConfigError, match="is not the state of a run"):
        new_run(tiny).resume(tmp_path / "state.pt")


# --- From captions to a checkpoint ---


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the toy clips as videos, with captions.csv; one video is missing and one is damaged."""
    folder = tmp_path_factory.mktemp("films")
    lines = ["video,caption"]
    for number, film in enumerate(FILMS):
        _write_film(folder / f"{number}.mp4", draw(film))
        lines += [f"{number}.mp4,{caption(film)}", f"{number}.mp4,the {caption(film)[2:]}"]
    (folder / "broken.mp4").write_bytes(b"no video")
    lines += ["gone.mp4,a red house", "broken.mp4,a blue house"]
    (folder / "captions.csv").write_text("\n".join(lines))
    return folder


def _write_film(path: Path, frames: NDArray[np.uint8]) -> None:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=1, options={"preset": "ultrafast", "qp": "0"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())


def arguments(films: Path, tiny: Path, out: Path, *more: str) -> list[str]:
    given = ["train", "clip", str(films / "captions.csv"), str(out), "--encoder", str(tiny)]
    given += ["--work", str(films / "work"), *OPTIONS.split()]
    return [*given, *more]


OPTIONS = (
    "--head transformer --max-frames 3 --encoder-lr 1e-3 --lr 1e-3 --epochs 2 --validation-share 0.25 "
    "--precision float32"
)


@pytest.fixture(scope="module")
def tuned(films: Path, tiny: Path) -> tuple[Path, str]:
    """The checkpoint folder of the command, and its output."""
    out = films / "tuned"
    result = CliRunner().invoke(app, arguments(films, tiny, out, "--batch", "6"))
    assert result.exit_code == 0, result.output
    return out, result.output


def test_the_result_is_an_encoder_with_a_head(
    tuned: tuple[Path, str], tiny: Path, films: Path
) -> None:
    out, output = tuned
    settings = ModelSettings(device="cpu", dtype="float32")
    before, after = load_encoder(str(tiny), settings), load_encoder(str(out), settings)
    assert after.dim == before.dim
    assert after.preprocessing == before.preprocessing
    texts = ["a red car", "a blue house at night"]
    assert np.abs(after.encode_texts(texts) - before.encode_texts(texts)).max() > 1e-3
    frames = draw(FILMS[0])
    assert np.abs(after.encode_frames(frames) - before.encode_frames(frames)).max() > 1e-3
    head = read_head(out)
    assert head is not None
    assert (head.config.kind, head.config.max_frames) == ("transformer", 3)
    names = {path.name for path in out.iterdir()}
    assert names >= {"config.json", "tokenizer.json", "curves.png", "curves.csv", "README.md"}
    card = (out / "README.md").read_text()
    assert "12 clips with 24 captions" in card
    assert "captions to clips, after" in card
    assert "1 videos are missing, with 1 captions: gone.mp4" in output
    assert "broken.mp4" in output
    assert not (films / "work" / "state.pt").exists()


def test_two_processes_train_like_one_with_twice_the_batch(
    films: Path, tiny: Path, tuned: tuple[Path, str], tmp_path: Path
) -> None:
    code = (
        "import sys; from tests.toy_clips import train_among_several\n"
        "train_among_several(*sys.argv[1:])"
    )
    script = tmp_path / "run.py"
    script.write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(script)]
    command += [str(tmp_path / "gradients.pt"), str(tiny)]
    command += arguments(films, tiny, tmp_path / "two", "--batch", "3")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    two = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("12 clips to train on") == 1  # only one process reports

    gradients = torch.load(tmp_path / "gradients.pt", weights_only=True)
    for head in SHARED_HEADS:
        run = new_run(tiny, replace(RECIPE, head=head, batch=16))
        without_dropout(run.model)
        assert_near(gradients[head], first_gradients(run))
    for file in ("model.safetensors", "head.safetensors"):
        ours, theirs = load_file(tuned[0] / file), load_file(tmp_path / "two" / file)
        start = load_file(tiny / file) if file == "model.safetensors" else {}
        for name, tensor in ours.items():
            # AdamW's first steps have the size of the learning rate, even for tiny gradients
            torch.testing.assert_close(theirs[name], tensor, rtol=0, atol=2e-4, msg=name)
        assert not start or any((ours[name] - start[name]).abs().max() > 2e-3 for name in start)
    assert "2 processes" in (tmp_path / "two" / "README.md").read_text()


def test_errors_are_reported_before_anything_is_done(
    films: Path,
    tiny: Path,
    tuned: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def error_of(*given: str) -> str:
        result = CliRunner().invoke(app, list(given))
        assert isinstance(result.exception, ConfigError), result.output
        return str(result.exception)

    fresh = str(tmp_path / "out")
    (tmp_path / "bad.csv").write_text("video,caption\n0.mp4,\n")
    bad = arguments(films, tiny, Path(fresh))
    bad[2] = str(tmp_path / "bad.csv")
    assert "line 2" in error_of(*bad)
    assert "not empty" in error_of(*arguments(films, tiny, tuned[0]))
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "state.pt").touch()
    begun = arguments(films, tiny, Path(fresh), "--work", str(tmp_path / "work"))
    assert "continue it with --resume" in error_of(*begun)
    assert "nothing else to train" in error_of(
        *arguments(films, tiny, Path(fresh), "--head", "mean", "--encoder-lr", "0")
    )
    few = arguments(films, tiny, Path(fresh), "--batch", "13")
    assert "there are 12" in error_of(*few)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tensorboard" else found(name)
    )
    assert 'pip install -e ".[train]"' in error_of(*arguments(films, tiny, Path(fresh)))
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ConfigError, match=r"needs Accelerate: pip install"):
        SeveralProcesses("cpu")
    assert not Path(fresh).exists()


def test_all_parts_of_a_video_are_held_out_or_none() -> None:
    parts = [CaptionedPart(Path(f"{n % 10}.mp4"), Span(n, n + 1.0), ("a car",)) for n in range(30)]
    kept, held = hold_out(CaptionedVideos(tuple(parts), ()), 0.2, seed=1)
    assert sorted([*kept.parts, *held.parts], key=parts.index) == parts
    assert len({part.video for part in held.parts}) == 2
    assert not {part.video for part in held.parts} & {part.video for part in kept.parts}
    assert hold_out(CaptionedVideos(tuple(parts), ()), 0.0, seed=1)[1].parts == ()
