"""CLIP4Clip's heads: arithmetic, initialisation, files, and an index whose clips a head pools."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from scanonce.indexer.reindex import reindex
from scanonce.indexer.settings import IndexerSettings
from scanonce.indexer.verify import Verification, verify
from scanonce.models import vectors as arithmetic
from scanonce.models.clip4clip.apply import spread_evenly
from scanonce.models.clip4clip.build import build_head
from scanonce.models.clip4clip.head_files import head_of, only_reranks, read_head, write_head
from scanonce.models.clip4clip.heads import (
    Head,
    HeadConfig,
    HeadKind,
    SequentialHead,
    embed_frames,
    mean_pool_tensors,
)
from scanonce.models.clip4clip.pooling import MeanPooling, open_pooling
from scanonce.models.encoders.clip import TransformersEncoder
from scanonce.models.encoders.hub import HEAD_FILES, fingerprint_folder, head_digest, weight_files
from scanonce.models.settings import ModelSettings
from scanonce.search.localise import Proposal, Query
from scanonce.search.training_free import TrainingFree
from scanonce.storage.backup.backup import backup, restore
from scanonce.storage.catalog.catalog import SEARCHABLE, Catalog
from scanonce.storage.derived import published_rows
from scanonce.storage.errors import EncoderError, ManifestMismatch
from scanonce.storage.index import Index
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import read_manifest
from scanonce.storage.records import Moment, Span
from scanonce.storage.settings import StorageSettings
from scanonce.storage.stores.features import FeatureStore
from scanonce.storage.vectors.generation import newest_generation
from tests.checkpoints import make_clip
from tests.colours import ColourEncoder, write_film
from tests.indexes import build_index, open_engine, publish_all

Floats = NDArray[np.float64]

SEQUENTIAL: list[HeadKind] = ["transformer", "lstm"]
GREEN = ColourEncoder().encode_texts(["green"])[0]
WITH_PARAMETERS: list[HeadKind] = [*SEQUENTIAL, "tight"]
DIM = 128


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Several threads only slow down such small models."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_head(kind: HeadKind, *, dim: int = DIM, max_frames: int = 7, seed: int = 0) -> Head:
    """A head whose every parameter matters: those initialised with 0 or 1 are drawn too."""
    torch.manual_seed(seed)
    head = build_head(kind, dim, max_frames)
    assert head is not None
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return head.eval()


# ---------------------------------------------------------------- a slow reference


def slow_norm(row: Floats, weights: dict[str, Floats], name: str) -> Floats:
    centred = row - row.mean()
    normed = weights[f"{name}.weight"] * centred / np.sqrt((centred**2).mean())
    result: Floats = normed + weights[f"{name}.bias"]
    return result


def slow_linear(row: Floats, weights: dict[str, Floats], name: str) -> Floats:
    result: Floats = weights[f"{name}.weight"] @ row + weights[f"{name}.bias"]
    return result


def slow_transformer(rows: list[Floats], weights: dict[str, Floats], begin: str) -> list[Floats]:
    """Four blocks over rows that all count, by one query, one head and one key at a time."""
    heads, width = DIM // 64, 64
    for number in range(4):
        block = {
            name.removeprefix(f"{begin}resblocks.{number}."): value
            for name, value in weights.items()
        }
        normed = [slow_norm(row, block, "ln_1") for row in rows]
        triples = [
            block["attn.in_proj_weight"] @ row + block["attn.in_proj_bias"] for row in normed
        ]
        attended = []
        for query in triples:
            parts = []
            for head in range(heads):
                mine = slice(head * width, (head + 1) * width)
                own = query[mine]
                scores = np.array([own @ key[DIM : 2 * DIM][mine] for key in triples]) / np.sqrt(
                    width
                )
                shares = np.exp(scores - scores.max())
                shares /= shares.sum()
                values = [key[2 * DIM :][mine] for key in triples]
                parts.append(sum(s * v for s, v in zip(shares, values, strict=True)))
            attended.append(slow_linear(np.concatenate(parts), block, "attn.out_proj"))
        rows = [row + more for row, more in zip(rows, attended, strict=True)]
        hidden = [slow_linear(slow_norm(row, block, "ln_2"), block, "mlp.c_fc") for row in rows]
        hidden = [each / (1 + np.exp(-1.702 * each)) for each in hidden]
        rows = [
            row + slow_linear(each, block, "mlp.c_proj")
            for row, each in zip(rows, hidden, strict=True)
        ]
    return rows


def slow_lstm(rows: list[Floats], weights: dict[str, Floats]) -> list[Floats]:
    def sigmoid(values: Floats) -> Floats:
        result: Floats = 1 / (1 + np.exp(-values))
        return result

    state, cell, states = np.zeros(DIM), np.zeros(DIM), []
    for row in rows:
        gates = weights["lstm_visual.weight_ih_l0"] @ row + weights["lstm_visual.bias_ih_l0"]
        gates += weights["lstm_visual.weight_hh_l0"] @ state + weights["lstm_visual.bias_hh_l0"]
        into, forget, new, out = np.split(gates, 4)
        cell = sigmoid(forget) * cell + sigmoid(into) * np.tanh(new)
        state = sigmoid(out) * np.tanh(cell)
        states.append(state)
    return states


def slow_head(head: Head, rows: list[Floats]) -> Floats:
    """The embedding of one clip of frames that all count."""
    weights = {name: value.double().numpy() for name, value in head.state_dict().items()}
    if head.config.kind == "lstm":
        added = slow_lstm(rows, weights)
    else:
        positions = weights["frame_position_embeddings.weight"]
        inputs = [row + position for row, position in zip(rows, positions, strict=False)]
        added = slow_transformer(inputs, weights, "transformerClip.")
    units = [
        (row + more) / np.linalg.norm(row + more) for row, more in zip(rows, added, strict=True)
    ]
    mean: Floats = np.mean(units, axis=0)
    result: Floats = mean / np.linalg.norm(mean)
    return result


def clips(lengths: list[int], *, padding: float = 0.0) -> tuple[Tensor, Tensor]:
    """Frames of different norms and their mask; frames that do not count are filled with ``padding``."""
    torch.manual_seed(1)
    frames = torch.full((len(lengths), 7, DIM), padding)
    mask = torch.zeros(len(lengths), 7, dtype=torch.bool)
    for row, length in enumerate(lengths):
        frames[row, :length] = torch.randn(length, DIM) * torch.rand(length, 1) * 3
        mask[row, :length] = True
    return frames, mask


@pytest.mark.parametrize("kind", SEQUENTIAL)
def test_a_head_equals_the_slow_reference(kind: HeadKind) -> None:
    head, lengths = make_head(kind), [7, 1, 4]
    frames, mask = clips(lengths)
    with torch.no_grad():
        embeddings = head(frames, mask)
    assert embeddings.dtype == torch.float32
    for row, length in enumerate(lengths):
        expected = slow_head(head, list(frames[row, :length].double().numpy()))
        np.testing.assert_allclose(embeddings[row], expected, atol=2e-6)
        without = arithmetic.mean_pool(frames[row, :length].numpy())
        assert embeddings[row].numpy() @ without < 0.99, "the head changes the vector"


def test_a_tight_head_scores_every_text_with_every_video() -> None:
    head, lengths = make_head("tight"), [6, 2]
    frames, mask = clips(lengths)
    texts = torch.randn(3, DIM)
    with torch.no_grad():
        scores = head(texts, frames, mask)
    weights = {name: value.double().numpy() for name, value in head.state_dict().items()}
    for query, text in enumerate(texts.double().numpy()):
        for row, length in enumerate(lengths):
            rows = [text, *frames[row, :length].double().numpy()]
            positions = weights["cross.embeddings.position_embeddings.weight"]
            inputs = [one + position for one, position in zip(rows, positions, strict=False)]
            first = slow_transformer(inputs, weights, "cross.transformer.")[0]
            pooled = slow_linear(
                slow_norm(first, weights, "cross.pooler.ln_pool"), weights, "cross.pooler.dense"
            )
            pooled = pooled / (1 + np.exp(-1.702 * pooled))
            expected = slow_linear(pooled, weights, "similarity_dense")
            np.testing.assert_allclose(scores[query, row], expected[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", WITH_PARAMETERS)
def test_frames_that_do_not_count_change_nothing(kind: HeadKind) -> None:
    head, text = make_head(kind), torch.randn(2, DIM)
    lengths = [3, 5]
    with torch.no_grad():
        given = (text,) if kind == "tight" else ()
        zeros = head(*given, *clips(lengths))
        rubbish = head(*given, *clips(lengths, padding=50.0))
        frames, mask = clips(lengths)
        shorter = head(*given, frames[:, :5], mask[:, :5])
    torch.testing.assert_close(zeros, rubbish, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(zeros, shorter, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["mean", *SEQUENTIAL])
def test_a_clip_without_frames_is_zero_and_has_no_gradient(kind: HeadKind) -> None:
    head = None if kind == "mean" else make_head(kind)
    frames, mask = clips([0, 4])
    frames.requires_grad_()
    embeddings = embed_frames(head, frames, mask)
    embeddings.sum().backward()  # type: ignore[no-untyped-call]
    assert not embeddings[0].any()
    assert frames.grad is not None
    assert not frames.grad[0].any()
    assert torch.isfinite(frames.grad).all()
    assert frames.grad[1, :4].any()


def test_mean_pooling_of_tensors_equals_that_of_arrays() -> None:
    frames, mask = clips([7, 2, 0])
    expected = arithmetic.mean_pool(frames.numpy(), mask.numpy())
    np.testing.assert_allclose(mean_pool_tensors(frames, mask), expected, atol=1e-6)


# ---------------------------------------------------------------- initialisation


def tiny_clip(width: int) -> CLIPModel:
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": 2}
    text = {**sizes, "num_hidden_layers": 2, "max_position_embeddings": 11, "vocab_size": 20}
    vision = {**sizes, "num_hidden_layers": 1, "image_size": 32, "patch_size": 16}
    torch.manual_seed(2)
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=32))


@pytest.mark.parametrize("kind", ["transformer", "tight"])
def test_a_new_head_has_the_blocks_and_positions_of_the_text_tower(kind: HeadKind) -> None:
    clip = tiny_clip(32)
    head = build_head(kind, 32, 12, clip.text_model)
    assert head is not None
    assert head.config == HeadConfig(kind, 32, 12, positions=13 if kind == "tight" else 12, heads=2)
    blocks = head.get_submodule("transformerClip" if kind == "transformer" else "cross.transformer")
    tokens, all_count = torch.randn(3, 5, 32), torch.ones(3, 5, dtype=torch.bool)
    blocks.resblocks = blocks.resblocks[:2]  # type: ignore[index]
    with torch.no_grad():
        expected = tokens
        for layer in clip.text_model.encoder.layers:
            expected = layer(expected, attention_mask=None)
        torch.testing.assert_close(blocks(tokens, all_count), expected, atol=1e-3, rtol=1e-3)
    known = clip.text_model.embeddings.position_embedding.weight
    assert torch.equal(head.position_vectors[:11], known)
    assert head.position_vectors[11:].any(), "positions that the tower does not have are drawn"


def test_a_text_tower_of_another_width_is_not_used() -> None:
    head = build_head("transformer", 64, 9, tiny_clip(32).text_model)
    assert head is not None
    assert (head.config.positions, head.config.heads) == (9, 1)
    assert build_head("mean", 64, 9) is None


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("kind", WITH_PARAMETERS)
def test_a_head_reads_back_as_written(kind: HeadKind, tmp_path: Path) -> None:
    head = make_head(kind)
    write_head(head, tmp_path)
    again = read_head(tmp_path)
    assert again is not None
    assert again.config == head.config
    assert not again.training
    for name, value in head.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    write_head(None, tmp_path)
    assert read_head(tmp_path) is None


def test_tensors_of_another_head_are_listed(tmp_path: Path) -> None:
    head = make_head("lstm")
    tensors = dict(head.state_dict())
    tensors["lstm_visual.weight"] = tensors.pop("lstm_visual.weight_ih_l0")
    tensors["lstm_visual.bias_hh_l0"] = torch.zeros(3)
    with pytest.raises(EncoderError) as caught:
        head_of(head.config, tensors, "it")
    assert "missing: lstm_visual.weight_ih_l0" in str(caught.value)
    assert "unknown: lstm_visual.weight\n" in str(caught.value)
    assert "lstm_visual.bias_hh_l0: shape [3], should be [512]" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "max"}, "kind must be"),
        ({"positions": 3}, "positions must be 7 or more"),
        ({"heads": 3}, "heads must divide dim 128"),
        ({"colour": 1}, "colour"),
    ],
)
def test_an_impossible_configuration_is_refused(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    write_head(make_head("transformer"), tmp_path)
    path = tmp_path / "head.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(EncoderError, match=message):
        read_head(tmp_path)


def test_an_encoder_with_another_head_is_another_encoder(tmp_path: Path) -> None:
    folder = make_clip(tmp_path / "clip", safetensors=False)
    plain = fingerprint_folder(folder)
    seen = {plain}
    for seed in range(2):
        write_head(make_head("transformer", dim=24, seed=seed), folder)
        seen.add(fingerprint_folder(folder))
    assert len(seen) == 3
    assert [path.name for path in weight_files(folder)] == ["pytorch_model.bin"]
    encoder = TransformersEncoder("with-head", folder, ModelSettings(device="cpu"))
    assert [path.name for path in encoder.head_files] == list(HEAD_FILES)
    assert not only_reranks(encoder.head_files)
    write_head(make_head("tight", dim=24), folder)
    assert only_reranks(TransformersEncoder("t", folder, ModelSettings(device="cpu")).head_files)
    write_head(make_head("lstm", dim=25), folder)
    with pytest.raises(EncoderError, match="for frames of 25 dimensions, its encoder has 24"):
        TransformersEncoder("wide", folder, ModelSettings(device="cpu"))
    write_head(None, folder)
    assert fingerprint_folder(folder) == plain


# ---------------------------------------------------------------- pooling an index


def test_frames_of_a_long_clip_are_sampled_evenly() -> None:
    assert spread_evenly(10, 17, 7).tolist() == list(range(10, 17))
    assert spread_evenly(0, 100, 4).tolist() == [0, 33, 66, 99]


@pytest.mark.parametrize("kind", SEQUENTIAL)
def test_pooling_many_spans_equals_pooling_each_alone(kind: HeadKind, tmp_path: Path) -> None:
    head = make_head(kind)
    assert isinstance(head, SequentialHead)
    write_head(head, tmp_path)
    pooling = open_pooling(tmp_path, head_digest([tmp_path / name for name in HEAD_FILES]))
    rng = np.random.default_rng(0)
    frames = rng.standard_normal((400, DIM)).astype(np.float16)
    pts = np.arange(0.0, 800.0, 2.0)
    starts = rng.uniform(0, 780, 300)
    lengths = rng.choice(
        [0.5, 4.0, 9.0, 40.0], 300
    )  # of no frame, of some, of more than max_frames
    spans = np.stack([starts, starts + lengths], axis=1)
    pooled = pooling.embed_spans(frames, pts, spans, 0.5)
    for number in range(0, 300, 7):
        start, end = spans[number]
        inside = np.flatnonzero((pts >= start) & (pts < end))
        if not len(inside):
            inside = np.array([np.flatnonzero(pts <= start)[-1]])
        rows = inside[spread_evenly(0, len(inside), 7)]
        alone = torch.from_numpy(frames[rows].astype(np.float32))[None]
        with torch.no_grad():
            expected = head(alone, torch.ones(1, len(rows), dtype=torch.bool))[0]
        np.testing.assert_allclose(pooled[number], expected, atol=1e-5)


class Headed(ColourEncoder):
    """A colour encoder with a head, which pools the frames of clips."""

    def __init__(self, folder: Path, *, seed: int, push: float = -300.0) -> None:
        """Write a random head that also pushes all frames along the last axis, away from their mean."""
        head = make_head("transformer", dim=4, seed=seed)
        with torch.no_grad():
            head.state_dict()["transformerClip.resblocks.3.mlp.c_proj.bias"][3] = push
        write_head(head, folder)
        self.head = head
        self.head_files = tuple(folder / name for name in HEAD_FILES)  # type: ignore[assignment]
        self.fingerprint = str(seed) * 64


class HeadedIndex:
    """Films and an index of them whose encoder has a head."""

    def __init__(self, root: Path) -> None:
        self.films, self.index_dir, self.head = root / "films", root / "index", root / "encoder"

    @property
    def layout(self) -> IndexLayout:
        return IndexLayout.of(self.index_dir)

    def index(self, encoder: ColourEncoder) -> None:
        build_index(self.layout, self.films, encoder=encoder)

    def search(self, encoder: ColourEncoder) -> Moment:
        with open_engine(self.layout, encoder) as engine:
            return engine.search("a green wall").moments[0]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    headed = HeadedIndex(tmp_path_factory.mktemp("headed"))
    write_film(headed.films / "a.mp4", [("red", 4), ("white", 4)])
    write_film(headed.films / "b.mp4", [("green", 5), ("blue", 4)])
    headed.index(Headed(headed.head, seed=1))
    return headed.films.parent


@pytest.fixture
def headed(template: Path, tmp_path: Path) -> HeadedIndex:
    """A copy of the template index; its films stay in the template."""
    shutil.copytree(template / "index", tmp_path / "index")
    headed = HeadedIndex(tmp_path)
    headed.films = template / "films"
    return headed


def assert_sound(layout: IndexLayout) -> Verification:
    """Check all data of an index."""
    found = verify(layout, full=True)
    assert not found.differences
    return found


def test_the_head_of_an_index_pools_its_clips(headed: HeadedIndex) -> None:
    manifest = read_manifest(headed.layout)
    encoder = Headed(headed.head, seed=1)
    assert manifest.head == head_digest(encoder.head_files)
    assert headed.search(encoder).path.name == "b.mp4"
    assert assert_sound(headed.layout).compared == 2
    generation = newest_generation(headed.layout.vectors, dim=4)
    assert generation is not None
    with Index.open(headed.layout, open_pooling) as index:
        index.clips.rebuild(index.catalog, StorageSettings())
        video = index.catalog.videos(states=SEARCHABLE)[0]
        stored = index.features.read(video.uid)
        derived = index.embed_clips(video)
    for span, vector in zip(manifest.grid.spans(video.duration_seconds), derived, strict=True):
        inside = (stored.pts_seconds >= span[0]) & (stored.pts_seconds < span[1])
        frames = stored.frames[inside].astype(np.float32)
        frames = frames[spread_evenly(0, len(frames), 7)]
        with torch.no_grad():
            expected = encoder.head(torch.from_numpy(frames)[None], torch.ones(1, len(frames)) > 0)
        np.testing.assert_allclose(vector, expected[0], atol=1e-5)
        assert vector @ arithmetic.mean_pool(frames) < 0.98
    assert_sound(headed.layout)


def test_frames_decide_the_span_of_a_moment_and_the_head_its_score(headed: HeadedIndex) -> None:
    encoder = Headed(headed.head, seed=1)
    moment = headed.search(encoder)
    assert moment.span.tiou(Span(0.0, 5.0)) > 0.85
    layout = headed.layout
    with Catalog.open(layout.catalog) as catalog:
        (video,) = catalog.videos([moment.video_id])
    stored = FeatureStore(layout.features).read(video.uid)
    bounds = np.array([(moment.span.start_seconds, moment.span.end_seconds)])
    pooling = open_pooling(layout.head, read_manifest(layout).head)
    (pooled,) = pooling.embed_spans(stored.frames, stored.pts_seconds, bounds, stored.fps)
    assert moment.score == pytest.approx(float(pooled @ arithmetic.unit(GREEN)), abs=1e-5)


def test_scores_of_frames_are_normalised_by_the_statistics_of_frames(
    headed: HeadedIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Query] = []

    def locate(self: TrainingFree, query: Query, *_: object, top: int) -> list[Proposal]:
        asked.append(query)
        return locate_really(self, query, *_, top=top)  # type: ignore[arg-type]

    locate_really = TrainingFree.locate
    monkeypatch.setattr(TrainingFree, "locate", locate)
    headed.search(Headed(headed.head, seed=1))
    store, means = FeatureStore(headed.layout.features), []
    grid = read_manifest(headed.layout).grid
    with Catalog.open(headed.layout.catalog) as catalog:
        for video in catalog.videos(states=SEARCHABLE):
            stored, spans = store.read(video.uid), grid.spans(video.duration_seconds)
            pooled = (stored.frames, stored.pts_seconds, spans, stored.fps)
            means.append(MeanPooling().embed_spans(*pooled))
    generation = newest_generation(headed.layout.vectors, dim=4)
    assert generation is not None
    rows = [read() for read in published_rows(generation).values()]
    of_frames = float((np.concatenate(means) @ arithmetic.unit(GREEN)).mean())
    of_clips = float((np.concatenate(rows) @ arithmetic.unit(GREEN)).mean())
    assert asked[0].mean == pytest.approx(of_frames, abs=0.08)
    assert abs(of_frames - of_clips) > 0.15


def test_another_head_is_refused_like_another_encoder(headed: HeadedIndex) -> None:
    with pytest.raises(ManifestMismatch, match="head: the index has"):
        headed.index(Headed(headed.head, seed=2))
    assert_sound(headed.layout)  # the index keeps its own head


def test_backup_and_restore_carry_the_head(headed: HeadedIndex, tmp_path: Path) -> None:
    def complete(layout: IndexLayout) -> None:
        publish_all(layout, StorageSettings())

    target, again = tmp_path / "backup", tmp_path / "again"
    backup(headed.layout, target, complete=complete)
    assert not backup(headed.layout, target, complete=complete).files_copied
    shutil.rmtree(headed.index_dir)
    report = restore(target, again, complete=complete)
    assert not report.damaged
    shutil.rmtree(report.layout.vectors)
    publish_all(report.layout, StorageSettings())  # needs the head
    assert_sound(IndexLayout.of(again))


def test_a_reindexed_index_has_the_head_of_its_new_encoder(headed: HeadedIndex) -> None:
    encoder = Headed(headed.head, seed=3, push=100.0)
    settings = IndexerSettings(decode_workers=1)
    report = reindex(headed.layout, encoder=encoder, settings=settings, storage=StorageSettings())
    assert report.switched
    assert read_manifest(headed.layout).head == head_digest(encoder.head_files)
    assert not (headed.index_dir / "head").exists(), "the head of the old index is removed with it"
    assert_sound(headed.layout)
    assert headed.search(encoder).path.name == "b.mp4"


def test_a_damaged_head_is_an_error_until_the_encoder_restores_it(headed: HeadedIndex) -> None:
    encoder = Headed(headed.head, seed=1)
    (headed.layout.head / "head.safetensors").write_bytes(b"rubbish")
    with pytest.raises(EncoderError, match="missing or damaged"):
        verify(headed.layout, full=True)
    headed.index(encoder)
    assert_sound(headed.layout)
