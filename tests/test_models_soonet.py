"""SOONet: names and shapes, masks, scanning in pieces, ranking, boundaries, checkpoints."""

import dataclasses
import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from scanonce.models.soonet.checkpoint import (
    PUBLISHED,
    fingerprint_soonet,
    read_soonet,
    write_soonet,
)
from scanonce.models.soonet.network import Soonet, SoonetConfig
from scanonce.models.soonet.parts import legacy_labels
from scanonce.models.soonet.query import (
    SelectedAnchors,
    clamp_spans,
    preselect,
    rank,
    refine,
    score_anchors,
    second_stage,
    sigmoid,
    spans_of_offsets,
)
from scanonce.storage.errors import LocaliserError

SMALL = SoonetConfig(
    hidden_dim=16,
    snippet_length=2,
    num_scales=3,
    fps=2.0,
    window=4,
    num_heads=2,
    max_positions=8,
    frame_dim=16,
    text_dim=16,
)
LEGACY = dataclasses.replace(SMALL, legacy_mask=True)
PROJECTED = dataclasses.replace(SMALL, frame_dim=10, text_dim=12, text_features="joint")


def soonet(config: SoonetConfig = SMALL) -> Soonet:
    """A model in which every branch matters: norms, which start at zero, are drawn too."""
    torch.manual_seed(0)
    model = Soonet(config)
    for name, weight in model.named_parameters():
        if "norm" in name or name.endswith("_bias"):
            torch.nn.init.normal_(weight, std=0.7)
    return model.eval()


def frames_of(num_frames: int, dim: int = 16, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((num_frames, dim)).astype(np.float32)


def text_of(dim: int = 16) -> NDArray[np.float32]:
    return np.random.default_rng(9).standard_normal(dim).astype(np.float32)


def contexts_of(model: Soonet, frames: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Contexts of real anchors by scale, from one pass over the whole video."""
    with torch.inference_mode():
        levels = model.contexts(torch.from_numpy(frames)[None])
    counts = [-(-len(frames) // length) for length in model.config.grid.lengths]
    return [level[0, :count].numpy() for level, count in zip(levels, counts, strict=True)]


def scanned_contexts(
    model: Soonet, frames: NDArray[np.float32], chunk_windows: int
) -> NDArray[np.float32]:
    """Contexts of all anchors, from a scan in pieces."""
    scanned = model.scan(frames, dtype=np.float32, chunk_windows=chunk_windows)
    contexts: NDArray[np.float32] = scanned.vectors[:, :16] * scanned.norms[:, None]
    return contexts


def contents_of(model: Soonet, frames: NDArray[np.float32]) -> list[torch.Tensor]:
    """Contents of real anchors by scale, ``[N_i, a_i, D]``."""
    levels = []
    for length in model.config.grid.lengths:
        padded = np.pad(frames, ((0, -len(frames) % length), (0, 0)))
        with torch.inference_mode():
            levels.append(
                model.contents(torch.from_numpy(padded).reshape(-1, length, padded.shape[1]))
            )
    return levels


# ------------------------------------------------ names and shapes


def published_names() -> dict[str, tuple[int, ...]]:
    dim = 512
    names: dict[str, tuple[int, ...]] = {}

    def linear(name: str, inputs: int = dim, outputs: int = dim) -> None:
        names[f"{name}.weight"] = (outputs, inputs)
        names[f"{name}.bias"] = (outputs,)

    def norm(name: str) -> None:
        names[f"{name}.weight"] = names[f"{name}.bias"] = (dim,)

    names["video_encoder.patch_embed.proj.weight"] = (dim, dim, 10)
    names["video_encoder.patch_embed.proj.bias"] = (dim,)
    norm("video_encoder.patch_embed.norm")
    for block in (f"video_encoder.layers.{i}.blocks.{j}" for i in range(4) for j in range(2)):
        norm(f"{block}.norm1")
        norm(f"{block}.norm2")
        names[f"{block}.attn.logit_scale"] = (8, 1, 1)
        names[f"{block}.attn.q_bias"] = names[f"{block}.attn.v_bias"] = (dim,)
        names[f"{block}.attn.relative_coords_table"] = (1, 127, 1)
        names[f"{block}.attn.relative_position_index"] = (64, 64)
        linear(f"{block}.attn.cpb_mlp.0", 1, 512)
        names[f"{block}.attn.cpb_mlp.2.weight"] = (8, 512)
        names[f"{block}.attn.qkv.weight"] = (3 * dim, dim)
        linear(f"{block}.attn.proj")
        linear(f"{block}.mlp.fc1", dim, 2 * dim)
        linear(f"{block}.mlp.fc2", 2 * dim, dim)
    for head in ("q2v_stage1.fc", "v2q_stage1.fc", "q2v_stage2.qfc", "v2q_stage2.fc"):
        linear(head)
    names["q2v_stage2.encoder.posemb.embed.weight"] = (400, dim)
    for each in ("to_q", "to_k", "to_v"):
        linear(f"q2v_stage2.encoder.encoder.{each}")
    for each in ("fc_ctx", "fc_q", "fc_ctn"):
        linear(f"regressor.{each}")
    linear("regressor.attn.fc1", dim, 256)
    linear("regressor.attn.fc2", 256, 1)
    linear("regressor.predictor.0", 1024, dim)
    linear("regressor.predictor.2", dim, 2)
    return names


def test_tensors_are_the_185_published_ones() -> None:
    with torch.device("meta"):
        model = Soonet(PUBLISHED)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes == published_names()
    assert len(shapes) == 185
    assert sum(weight.numel() for weight in model.parameters()) == 22_970_947


def test_only_other_widths_have_input_projections() -> None:
    more = soonet(PROJECTED).state_dict().keys() - soonet().state_dict().keys()
    assert more == {"input_frames.weight", "input_text.weight", "input_text.bias"}


def test_position_tables_are_those_of_swin_v2() -> None:
    attention: Any = soonet(dataclasses.replace(SMALL, window=64)).video_encoder.layers[0]
    attention = attention.blocks[0].attn
    table = attention.relative_coords_table.flatten().tolist()
    assert table[63] == 0.0
    assert table[-1] == pytest.approx(math.log2(9) / 3)
    assert table[0] == -table[-1]
    assert attention.relative_position_index[5, 2] == 3 + 63  # query - key


@pytest.mark.parametrize(
    "changes",
    [
        {"window": 5},
        {"hidden_dim": 15},
        {"num_heads": 0},
        {"stage2_pool": "sum"},
        {"text_features": "words"},
        {"max_positions": 7},
        {"fps": 0.0},
    ],
)
def test_impossible_configurations_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"got|positions"):
        dataclasses.replace(SMALL, **changes)


# ------------------------------------------------ masks


def labels_by_the_rule(num_tokens: int) -> list[int]:
    """The labels of the published code, written out for windows of 64 tokens."""
    padded = math.ceil(num_tokens / 64) * 64
    pad = padded - num_tokens
    c = 160 - num_tokens
    cut = max(0, padded - c) if c > 0 else min(padded, -c)
    if pad in (0, 32):
        rule = {1: range(padded - 64, padded - 32), 2: range(padded - 32, padded)}
    elif pad > 32:
        rule = {
            1: range(cut, padded - 64),
            2: range(padded - 64, padded - 32),
            3: range(padded - 32, padded),
        }
    else:
        rule = {
            1: range(padded - 64, cut),
            2: range(cut, padded - 32),
            3: range(padded - 32, padded),
        }
    return [max((n for n, span in rule.items() if at in span), default=0) for at in range(padded)]


def test_legacy_labels_follow_the_rule_for_every_length() -> None:
    for num_tokens in range(1, 401):
        assert legacy_labels(num_tokens).tolist() == labels_by_the_rule(num_tokens), num_tokens


@pytest.mark.parametrize("num_frames", [1, 3, 8, 31, 33, 64, 100])
def test_padding_changes_nothing_with_the_corrected_mask(num_frames: int) -> None:
    model = soonet()
    frames = frames_of(num_frames)
    longer = np.pad(frames, ((0, 70), (0, 0)))
    with torch.inference_mode():
        padded = model.contexts(torch.from_numpy(longer)[None], torch.tensor([num_frames]))
    for real, level in zip(contexts_of(model, frames), padded, strict=True):
        assert torch.isfinite(level).all()  # also in windows that are only padding
        np.testing.assert_allclose(level[0, : len(real)].numpy(), real, atol=1e-5)


def test_videos_of_different_lengths_do_not_affect_each_other_in_a_batch() -> None:
    model = soonet()
    short, long = frames_of(21), frames_of(60, seed=1)
    batch = torch.from_numpy(np.stack([np.pad(short, ((0, 39), (0, 0))), long]))
    with torch.inference_mode():
        both = model.contexts(batch, torch.tensor([21, 60]))
    for number, frames in enumerate((short, long)):
        for real, level in zip(contexts_of(model, frames), both, strict=True):
            np.testing.assert_allclose(level[number, : len(real)].numpy(), real, atol=1e-5)


def test_the_legacy_mask_differs_from_the_corrected_one() -> None:
    frames = frames_of(100)
    right, legacy = contexts_of(soonet(), frames), contexts_of(soonet(LEGACY), frames)
    assert not np.allclose(right[0][-1], legacy[0][-1], atol=1e-3)


# ------------------------------------------------ scanning


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 420), st.booleans(), st.integers(1, 3))
def test_scanning_in_pieces_equals_scanning_the_whole(
    num_frames: int, legacy: bool, windows: int
) -> None:
    model = soonet(LEGACY if legacy else SMALL)
    frames = frames_of(num_frames)
    whole = np.concatenate(contexts_of(model, frames))
    np.testing.assert_allclose(scanned_contexts(model, frames, windows), whole, atol=2e-5)


def test_a_shorter_overlap_would_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    model = soonet()
    frames = frames_of(1000)
    monkeypatch.setattr("scanonce.models.soonet.network._OVERLAP_WINDOWS", 1)
    whole = np.concatenate(contexts_of(model, frames))
    assert not np.allclose(scanned_contexts(model, frames, 1), whole, atol=1e-4)


def test_vectors_are_unit_context_and_mean_unit_content() -> None:
    model = soonet()
    frames = frames_of(53)
    scanned = model.scan(frames, dtype=np.float32)
    contexts = np.concatenate(contexts_of(model, frames))
    means = torch.cat([F.normalize(c, dim=-1).mean(1) for c in contents_of(model, frames)])
    assert scanned.vectors.shape == (sum(model.config.grid.counts(53 / 2)), 32)
    np.testing.assert_allclose(scanned.norms, np.linalg.norm(contexts, axis=1), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(scanned.vectors[:, :16], axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(scanned.vectors[:, 16:], means.numpy(), atol=1e-6)


def test_contents_do_not_depend_on_how_many_frames_are_projected_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frames = frames_of(53)
    whole = soonet().scan(frames, dtype=np.float32)
    monkeypatch.setattr("scanonce.models.soonet.network._PROJECTION_FRAMES", 8)
    np.testing.assert_allclose(
        soonet().scan(frames, dtype=np.float32).vectors, whole.vectors, atol=1e-6
    )


@pytest.mark.parametrize("config", [SMALL, LEGACY, PROJECTED])
def test_videos_without_and_with_one_frame(config: SoonetConfig) -> None:
    model = soonet(config)
    nothing = model.scan(frames_of(0, config.frame_dim))
    assert nothing.vectors.shape == (0, 32)
    assert nothing.vectors.dtype == np.float16
    one = model.scan(frames_of(1, config.frame_dim))
    assert one.vectors.shape == (3, 32)
    assert np.isfinite(one.vectors).all()
    assert (one.norms > 0).all()


def test_a_model_in_training_scans_as_in_evaluation() -> None:
    frames = frames_of(40)
    quiet, noisy = soonet(), soonet().train()
    np.testing.assert_array_equal(quiet.scan(frames).vectors, noisy.scan(frames).vectors)


def test_gradients_reach_every_weight() -> None:
    model = soonet(PROJECTED)
    frames, texts = torch.from_numpy(frames_of(32, 10))[None], torch.from_numpy(text_of(12))[None]
    contexts = model.contexts(frames)[1][0]  # [8, D]
    contents = model.contents(frames.reshape(8, 4, 10))
    total = model.query_vectors(texts)[0] @ torch.cat(
        [F.normalize(contexts, dim=-1), F.normalize(contents, dim=-1).mean(1)], dim=-1
    ).sum(0)
    total = total + model.regress(texts[0], contexts, contents).sum()
    total = total + model.contexts(frames)[2].sum()
    total.backward()  # type: ignore[no-untyped-call]
    without = {name for name, weight in model.named_parameters() if weight.grad is None}
    assert without == {f"v2q_stage{n}.fc.{kind}" for n in (1, 2) for kind in ("weight", "bias")}


# ------------------------------------------------ ranking


@pytest.mark.parametrize("config", [SMALL, LEGACY, PROJECTED])
def test_one_product_is_both_stages(config: SoonetConfig) -> None:
    model = soonet(config)
    frames, text = frames_of(77, config.frame_dim), text_of(config.text_dim)
    scanned = model.scan(frames, dtype=np.float32)
    scores = score_anchors(model.query_vector(text), scanned.vectors)

    query = model.input_text(torch.from_numpy(text))
    first = F.normalize(model.q2v_stage1.fc(query), dim=0)
    second = F.normalize(model.q2v_stage2.qfc(query), dim=0)
    s1 = F.normalize(torch.from_numpy(np.concatenate(contexts_of(model, frames))), dim=1) @ first
    s2 = torch.cat([(F.normalize(c, dim=-1) @ second).mean(1) for c in contents_of(model, frames)])
    np.testing.assert_allclose(scores, (s1 + s2).detach().numpy(), atol=1e-6)


def test_scores_of_stored_vectors_are_close_in_half_precision_also_when_memory_mapped() -> None:
    model = soonet()
    scanned = model.scan(frames_of(1100), dtype=np.float32)
    query = model.query_vector(text_of())
    exact = score_anchors(query, scanned.vectors)
    halves = scanned.vectors.astype(np.float16)
    halves.flags.writeable = False
    np.testing.assert_allclose(score_anchors(query, halves), exact, atol=2e-3)
    assert score_anchors(query, halves[:0]).shape == (0,)


@given(st.lists(st.integers(-3, 3), max_size=30), st.integers(0, 40))
def test_rank_returns_the_best_and_of_equal_scores_the_first(values: list[int], limit: int) -> None:
    vectors = np.array(values, np.float32)[:, None] * np.ones((1, 2), np.float32)
    best = rank(np.array([0.5, 0.5], np.float32), vectors, limit)
    expected = sorted(range(len(values)), key=lambda row: (-values[row], row))[:limit]
    assert best.rows.tolist() == expected
    assert best.scores.tolist() == [values[row] for row in expected]


def test_only_the_best_of_each_scale_are_preselected() -> None:
    first_stage = np.array([0.1, 0.4, 0.3, 0.2, 0.9], np.float32)
    assert preselect(first_stage, [3, 2], 1).tolist() == [1, 4]
    assert preselect(first_stage, [3, 2], 2).tolist() == [1, 2, 3, 4]
    vectors = np.stack([first_stage, 1 - first_stage], axis=1)
    best = rank(np.ones(2, np.float32), vectors, 9, counts=[3, 2], per_scale=1)
    assert sorted(best.rows.tolist()) == [1, 4]


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_second_stage_of_candidates_is_that_of_their_contents(pool: Any) -> None:
    model = soonet(dataclasses.replace(SMALL, stage2_pool=pool))
    frames = frames_of(45)
    query = model.query_vector(text_of())
    rows = np.array([30, 3, 0, 38, 22, 23])
    found = second_stage(model, query, rows, lambda a, b: frames[a:b], 22.5)
    second = torch.from_numpy(query[16:])
    cosines = [F.normalize(c, dim=-1) @ second for c in contents_of(model, frames)]
    pooled = torch.cat([c.amax(1) if pool == "max" else c.mean(1) for c in cosines])
    np.testing.assert_allclose(found, pooled.numpy()[rows], atol=1e-6)
    if pool == "max":
        scanned = model.scan(frames, dtype=np.float32)
        assert scanned.vectors.shape[1] == 16
        s1 = score_anchors(query, scanned.vectors)
        np.testing.assert_allclose(s1, scanned.vectors @ query[:16], atol=1e-6)


def test_the_published_score_is_the_sigmoid() -> None:
    assert sigmoid([-2.0, 0.0, 2.0]).round(2).tolist() == [0.12, 0.5, 0.88]


# ------------------------------------------------ boundaries


@pytest.mark.parametrize("config", [SMALL, PROJECTED])
def test_boundaries_are_those_of_the_regressor_anchor_by_anchor(config: SoonetConfig) -> None:
    model = soonet(config)
    frames, text = frames_of(45, config.frame_dim), text_of(config.text_dim)
    scanned = model.scan(frames, dtype=np.float32)
    rows = np.array([34, 3, 4, 0, 40, 22, 3])
    # in two parts, as if they came from two videos
    parts = [
        SelectedAnchors(
            part,
            scanned.vectors[part],
            scanned.norms[part],
            lambda first, last: frames[first:last],
            22.5,
        )
        for part in (rows[:3], rows[3:])
    ]
    spans = np.concatenate(refine(model, text, parts, raw=True))
    grid = config.grid
    contexts = np.concatenate(contexts_of(model, frames))
    contents = [each for level in contents_of(model, frames) for each in level]
    for row, span in zip(rows.tolist(), spans, strict=True):
        with torch.inference_mode():
            offsets = model.regress(
                torch.from_numpy(text), torch.from_numpy(contexts[[row]]), contents[row][None]
            )[0]
        anchor = grid.span_of(row, 22.5)
        length = anchor.duration_seconds
        start = max(0.0, anchor.start_seconds + float(offsets[0]) * length)
        assert span == pytest.approx(
            [start, anchor.end_seconds + float(offsets[1]) * length], abs=1e-5
        )


def test_no_anchors_have_no_boundaries() -> None:
    nothing = SelectedAnchors(
        np.empty(0, np.int64),
        np.empty((0, 32), np.float16),
        np.empty(0, np.float32),
        lambda first, last: frames_of(last - first),
        5.0,
    )
    assert refine(soonet(), text_of(), []) == []
    (spans,) = refine(soonet(), text_of(), [nothing])
    assert spans.shape == (0, 2)


def test_spans_are_put_in_order_and_inside_the_video_unless_raw() -> None:
    anchors = np.array([[0.0, 4.0], [4.0, 8.0], [8.0, 10.0]])
    offsets = np.array([[-1.0, 0.5], [1.0, -1.0], [0.0, 1.0]], np.float32)
    raw = spans_of_offsets(anchors, offsets, 10.0, raw=True)
    assert raw.tolist() == [[0.0, 6.0], [8.0, 4.0], [8.0, 12.0]]
    assert spans_of_offsets(anchors, offsets, 10.0).tolist() == [[0, 6], [4, 8], [8, 10]]
    assert clamp_spans(np.array([[-3.0, 2.0]]), 1.0).tolist() == [[0.0, 1.0]]


# ------------------------------------------------ checkpoints


@pytest.mark.parametrize("config", [SMALL, PROJECTED])
def test_a_model_reads_back_as_written(config: SoonetConfig, tmp_path: Path) -> None:
    model = soonet(config)
    write_soonet(model, tmp_path / "a")
    again = read_soonet(tmp_path / "a")
    assert again.config == config
    assert not again.training
    frames = frames_of(30, config.frame_dim)
    np.testing.assert_array_equal(model.scan(frames).vectors, again.scan(frames).vectors)
    write_soonet(again, tmp_path / "b")
    assert fingerprint_soonet(tmp_path / "a") == fingerprint_soonet(tmp_path / "b")


def test_half_precision_on_disk_is_read_as_float32(tmp_path: Path) -> None:
    write_soonet(soonet().half(), tmp_path)
    assert {weight.dtype for weight in read_soonet(tmp_path).parameters()} == {torch.float32}


def test_the_fingerprint_knows_weights_and_configuration(tmp_path: Path) -> None:
    model = soonet()
    write_soonet(model, tmp_path / "a")
    write_soonet(soonet(dataclasses.replace(SMALL, clip_weight=0.5)), tmp_path / "b")
    model.regressor.fc_q.bias.data += 1
    write_soonet(model, tmp_path / "c")
    assert len({fingerprint_soonet(tmp_path / name) for name in "abc"}) == 3


def test_a_published_file_is_read_with_its_configuration(tmp_path: Path) -> None:
    path = tmp_path / "soonet.pth"
    model = soonet()
    torch.save({"step": 7, "r1-0.5": 0.1, "model": model.state_dict(), "optimizer": {}}, path)
    again = read_soonet(path, SMALL)
    np.testing.assert_array_equal(
        again.regressor.fc_q.weight.detach().numpy(), model.regressor.fc_q.weight.detach().numpy()
    )
    assert len(fingerprint_soonet(path)) == 64
    with pytest.raises(LocaliserError, match="not those of its configuration"):
        read_soonet(path)  # the published sizes differ


def test_wrong_tensors_are_named(tmp_path: Path) -> None:
    write_soonet(soonet(), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["extra"] = tensors.pop("regressor.fc_q.bias")
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(LocaliserError, match=r"missing: regressor\.fc_q\.bias; unknown: extra\."):
        read_soonet(tmp_path)


def test_a_configuration_with_unknown_keys_or_values_is_refused(tmp_path: Path) -> None:
    write_soonet(soonet(), tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    for change in ({"colour": "red"}, {"window": 3}, {"hidden_dim": "many"}):
        (tmp_path / "config.json").write_text(json.dumps(values | change))
        with pytest.raises(LocaliserError, match="Allowed keys"):
            read_soonet(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no checkpoint"])
def test_errors_of_unreadable_files_name_the_next_step(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "soonet.pth").write_bytes(content)
    for path in (tmp_path / "soonet.pth", tmp_path / "missing.pth"):
        with pytest.raises(LocaliserError, match="cannot be read as the weights"):
            read_soonet(path)
    with pytest.raises(LocaliserError, match="is not a localiser"):
        read_soonet(tmp_path)
    with pytest.raises(LocaliserError, match=r"cannot be read .*published"):
        fingerprint_soonet(tmp_path / "missing.pth")


def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    torch.save({"weights": {}}, tmp_path / "other.pth")
    with pytest.raises(LocaliserError, match='under the key "model"'):
        read_soonet(tmp_path / "other.pth")


def test_lengths_of_anchors_double() -> None:
    assert all(b == 2 * a for a, b in pairwise(PUBLISHED.grid.lengths))
