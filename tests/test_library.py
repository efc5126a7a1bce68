"""`scanonce.open`: a library as one object."""

import threading
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

import scanonce
from scanonce.indexer.models import LoadedModels
from scanonce.indexer.settings import IndexerSettings
from scanonce.library import Library
from scanonce.search.filters import Filter
from scanonce.search.result import SearchResult
from scanonce.storage.errors import ConfigError, IndexDirectoryError, ManifestMismatch
from tests.colours import ColourEncoder, write_film

COLOURS = ("red", "green", "blue", "white", "black")


@pytest.fixture(autouse=True)
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the colour encoder for all indexes."""
    monkeypatch.setattr(
        scanonce.library, "load_models", lambda *_, **__: LoadedModels(ColourEncoder(), None)
    )
    monkeypatch.setattr("scanonce.search.engine.load_encoder", lambda *_, **__: ColourEncoder())


@pytest.fixture
def films(tmp_path: Path) -> Path:
    write_film(tmp_path / "films" / "a.mp4", [("red", 6), ("blue", 6)])
    write_film(tmp_path / "films" / "b.mp4", [("green", 8)])
    return tmp_path / "films"


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    settings = IndexerSettings(decode_workers=1)
    with scanonce.open(tmp_path / "index", indexer=settings) as library:
        yield library


def best(result: SearchResult) -> str:
    return result.moments[0].path.name


def test_a_library_is_indexed_searched_labelled_and_forgotten(
    library: Library, films: Path
) -> None:
    report = library.index([films])
    assert report.counts.indexed == 2
    assert best(library.search("green")) == "b.mp4"
    assert library.label([films / "a.mp4"], add=["Holiday"]) == (1, 0)
    only = Filter(labels=frozenset({"holiday"}))
    assert best(library.search("green", within=only)) == "a.mp4"
    status = library.status()
    assert (status.totals.indexed, status.libraries) == (2, (films,))
    assert library.forget([films / "b.mp4"]) == 1
    assert library.search_many(["green", "red"])[0].moments[0].path.name == "a.mp4"
    assert library.status().totals.indexed == 1


def test_without_a_path_all_known_folders_are_indexed(library: Library, films: Path) -> None:
    with pytest.raises(IndexDirectoryError, match="there is no index"):
        library.index()
    library.index([films])
    write_film(films / "c.mp4", [("white", 5)])
    assert library.index().counts.indexed == 1


@pytest.mark.parametrize("typed", [{"sampling": "keyframes"}, {"sample_fps": 1.0}])
def test_an_index_names_its_own_settings(
    library: Library, films: Path, typed: dict[str, object]
) -> None:
    library.index([films], typed=typed)
    write_film(films / "c.mp4", [("white", 5)])
    assert library.index().counts.indexed == 1
    library.index(typed=typed)
    other = {name: "uniform" if name == "sampling" else 4.0 for name in typed}
    with pytest.raises(ManifestMismatch, match="scanonce reindex"):
        library.index(typed=other)


@pytest.mark.parametrize("typed", [{"sampling": "none"}, {"samplng": "uniform"}])
def test_a_setting_that_is_not_allowed_is_refused_by_name(
    library: Library, films: Path, typed: dict[str, object]
) -> None:
    with pytest.raises(ConfigError, match=next(iter(typed))):
        library.index([films], typed=typed)
    assert not library.root.exists()


def test_a_folder_is_filtered_labelled_and_forgotten_by_other_names(
    library: Library, films: Path
) -> None:
    films.rename(films.with_name(unicodedata.normalize("NFD", "Séjour")))
    films = films.with_name(unicodedata.normalize("NFD", "Séjour"))
    (link := films.with_name("link")).symlink_to(films)
    library.index([films])
    for other in (link, films.with_name(unicodedata.normalize("NFC", "Séjour"))):
        result = library.search("green", within=Filter(folders=(other / "b.mp4",)))
        assert (best(result), result.num_videos) == ("b.mp4", 1)
        assert library.search("green", within=Filter(folders=(other,))).num_videos == 2
        assert library.label([other / "b.mp4"], add=["Holiday"]) == (1, 0)
        assert library.label([other], remove=["Holiday"]) == (0, 1)
    assert library.forget([link / "b.mp4"]) == 1
    assert library.forget([other]) == 1
    assert library.status().libraries == ()


def test_a_folder_of_the_index_without_files_can_be_forgotten(
    library: Library, films: Path
) -> None:
    (empty := films.with_name("empty")).mkdir()
    library.index([films, empty])
    assert library.forget([empty]) == 0
    assert library.status().libraries == (films,)


def test_forgetting_a_path_that_is_not_indexed_forgets_nothing(
    library: Library, films: Path
) -> None:
    library.index([films])
    with pytest.raises(IndexDirectoryError, match="nothing at /nowhere"):
        library.forget([films, "/nowhere"])
    assert library.status().totals.indexed == 2


def test_eight_threads_and_a_writer_answer_as_one_thread_does(
    library: Library, films: Path, tmp_path: Path
) -> None:
    """Every answer is that of one state of the library, before or after a commit, and never a mixture."""
    library.index([films])
    queries = [f"{colour} {number}" for number in range(4) for colour in COLOURS]
    states: list[dict[str, SearchResult]] = [alone(library, queries)]
    answers: list[tuple[str, SearchResult]] = []
    is_over = threading.Event()

    def ask(first: int) -> None:
        asked = 0
        while not is_over.is_set() or asked < len(queries):
            query = queries[(first + asked) % len(queries)]
            answers.append((query, timeless(library.search(query))))
            asked += 1

    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask, 5 * number) for number in range(8)]
        try:
            for number in range(4):
                write_film(films / f"new{number}.mp4", [(COLOURS[number], 4 + number)])
                library.index()
                states.append(alone(library, queries))
        finally:
            is_over.set()
        for thread in asking:
            thread.result()
    assert len(answers) >= 8 * len(queries)
    for query, answer in answers:
        assert answer in [state[query] for state in states]
    assert [timeless(library.search(query)) for query in queries] == list(states[-1].values())


def alone(library: Library, queries: list[str]) -> dict[str, SearchResult]:
    """Return the answers of another engine, used by one thread."""
    with scanonce.open(library.root) as other:
        return {query: timeless(other.search(query)) for query in queries}


def timeless(result: SearchResult) -> SearchResult:
    return replace(result, timings_ms={})
