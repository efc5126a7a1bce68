"""The words and vectors of lines are compared with the lines, and made again."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from scanonce.indexer.repair import RepairReport, repair
from scanonce.indexer.verify import Verification, verify
from scanonce.models.tracks.meaning import TextModel
from scanonce.models.vectors import unit
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.catalog.passages import Passages
from scanonce.storage.catalog.words import matching
from scanonce.storage.layout import IndexLayout
from scanonce.storage.records import Line
from tests.catalogs import sql
from tests.colours import ColourEncoder, write_film
from tests.indexes import SETTINGS, STORAGE, build_index, random_localiser

TALK = ("we met on Discord", "and turned left at the bridge")


class Letters:
    """A text model that counts letters."""

    fingerprint, dim = "letters", 26

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        counts = [[text.count(chr(97 + k)) for k in range(26)] for text in texts]
        rows = np.array(counts, np.float32)
        return unit(rows)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index with lines, made once under the path that tests use."""
    work = tmp_path_factory.mktemp("verify-lines") / "work"
    layout = IndexLayout(work / "index")
    for name, colour in (("a", "red"), ("b", "blue")):
        write_film(work / "films" / f"{name}.mp4", [(colour, 4)])
    build_index(layout, work / "films")
    with Catalog.open(layout.catalog) as catalog:
        for video in catalog.videos():
            lines = [Line(video.video_id, "said", k, k + 1.0, text) for k, text in enumerate(TALK)]
            passages = Passages(Letters().embed(TALK), np.array([1, 1]))
            catalog.lines.put(
                video.video_id, "said", lines, source="m", embedder="letters", passages=passages
            )
            catalog.lines.put(video.video_id, "written", [], source="m")
    shutil.copytree(work, work.with_name("template"))
    return work.with_name("template")


@pytest.fixture
def layout(template: Path) -> IndexLayout:
    work = template.with_name("work")
    shutil.rmtree(work)
    shutil.copytree(template, work)
    return IndexLayout.of(work / "index")


def mend(layout: IndexLayout, model: TextModel | None = None) -> RepairReport:
    return repair(
        layout,
        settings=SETTINGS,
        storage=STORAGE,
        load_encoder=ColourEncoder,
        load_localiser=lambda: random_localiser(layout.root / "none", 1, std=None),
        text_model=lambda: model,
    )


def kinds(found: Verification) -> list[str]:
    return [each.kind for each in found.differences]


def found_words(layout: IndexLayout, word: str) -> int:
    with Catalog.open(layout.catalog, read_only=True) as catalog:
        return len(catalog.lines.find(matching([word]), limit=10))


def num_vectors(layout: IndexLayout) -> list[int]:
    with Catalog.open(layout.catalog, read_only=True) as catalog:
        return [len(each.passages.vectors) for each in catalog.lines.vectors("letters")]


def test_lines_that_are_whole_have_no_difference(layout: IndexLayout) -> None:
    before = layout.catalog.read_bytes()
    assert verify(layout).differences == ()
    assert layout.catalog.read_bytes() == before


WORDS = {
    "a line is missing in the index": "DELETE FROM line_words_docsize WHERE id = 1",
    "words of no line": "INSERT INTO line_words (rowid, words) VALUES (99, 'nothing')",
    "a line that was changed": "UPDATE lines SET text = 'something else' WHERE id = 2",
    "a damaged block": "UPDATE line_words_data SET block = zeroblob(20) WHERE id > 10",
    "no blocks": "DELETE FROM line_words_data",
    "a damaged structure": "UPDATE line_words_data SET block = x'ff' WHERE id = 10",
    "words of no path": "INSERT INTO file_words (rowid, path) VALUES (99, '/films/none.mp4')",
}


@pytest.mark.parametrize("how", WORDS)
def test_words_that_do_not_agree_with_the_lines_are_made_again(
    layout: IndexLayout, how: str
) -> None:
    sql(layout.catalog, WORDS[how])
    found = verify(layout)
    assert [(each.kind, each.subject, each.remedy) for each in found.differences] == [
        ("words damaged", layout.catalog, "repair")
    ]
    assert mend(layout).left == ()
    assert verify(layout).differences == ()
    changed = "something" if "changed" in how else "bridge"
    assert found_words(layout, changed) == (1 if "changed" in how else 2)


VECTORS = {
    "damaged": "UPDATE tracks SET passages = x'0102' WHERE id = 1",
    "missing": "UPDATE tracks SET passages = NULL WHERE id = 1",
    "of fewer lines": "DELETE FROM line_words; DELETE FROM lines WHERE id = 1",
    "of no text model": "UPDATE tracks SET embedder = NULL WHERE id = 1",
    "of a track without lines": (
        "UPDATE tracks SET embedder = 'letters', passages = "
        "(SELECT passages FROM tracks WHERE id = 1) WHERE name = 'written' AND video_id = 1"
    ),
}


@pytest.mark.parametrize("how", VECTORS)
def test_vectors_that_do_not_agree_with_the_lines_are_made_again(
    layout: IndexLayout, how: str
) -> None:
    for statement in VECTORS[how].split("; "):
        sql(layout.catalog, statement)
    found = verify(layout)
    assert "line vectors damaged" in kinds(found)
    (wrong,) = [each for each in found.differences if each.kind == "line vectors damaged"]
    assert (wrong.subject.name, wrong.remedy) == ("a.mp4", "repair")
    assert mend(layout, Letters()).left == ()
    assert verify(layout).differences == ()
    assert num_vectors(layout) == ([2, 2] if "without lines" in how else [1, 2])


def test_without_a_text_model_wrong_vectors_are_dropped(layout: IndexLayout) -> None:
    sql(layout.catalog, VECTORS["damaged"])
    assert mend(layout).left == ()
    assert num_vectors(layout) == [2]
    assert verify(layout).differences == ()


def test_a_video_that_is_forgotten_meanwhile_is_no_difference(
    layout: IndexLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql(layout.catalog, VECTORS["damaged"])
    real = Catalog.copy_to

    def copy_and_remove(catalog: Catalog, path: Path) -> None:
        real(catalog, path)
        with Catalog.open(layout.catalog) as other:
            other.lines.remove("said")

    monkeypatch.setattr(Catalog, "copy_to", copy_and_remove)
    assert verify(layout).differences == ()
