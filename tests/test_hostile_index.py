"""An index or a backup that others have made to mislead: nothing outside it is read into it, changed or deleted.

Each forgery puts a name or a link into a copy of a whole index; each way in is a command that opens it. Beside the
index is a folder of a victim, whose files have the names that the forgeries point at.
"""

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from scanonce.indexer.anchors import derive_anchors
from scanonce.indexer.reindex import reindex
from scanonce.indexer.repair import repair
from scanonce.indexer.verify import verify
from scanonce.library import Library
from scanonce.models.soonet.trained import TrainedLocaliser
from scanonce.storage.backup.backup import backup, restore
from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.layout import IndexLayout
from scanonce.storage.vectors.generation import newest_number, numbered
from scanonce.ui import jobs
from scanonce.ui.server.cache import ProxyCache, proxy_cache
from scanonce.ui.server.routes import Media
from tests.catalogs import sql
from tests.colours import ColourEncoder, write_film
from tests.indexes import (
    SETTINGS,
    STORAGE,
    build_index,
    open_engine,
    publish_all,
    random_localiser,
    replace_index,
)


@dataclass(frozen=True)
class Site:
    """A hostile index and what is around it."""

    root: Path
    films: Path
    localiser: TrainedLocaliser

    @property
    def index(self) -> Path:
        """The hostile index."""
        return self.root / "home" / "index"

    @property
    def victim(self) -> Path:
        """A folder of the user that nobody named."""
        return self.root / "home" / "victim"

    @property
    def layout(self) -> IndexLayout:
        """Its layout, read without any check."""
        return IndexLayout(self.index, (self.index / "current").read_text().strip())

    def outside(self) -> dict[str, object]:
        """Return contents and numbers of names of all files around the index, but for those SQLite reads with."""
        found: dict[str, object] = {}
        for folder, folders, names in os.walk(self.root):
            for name in (*folders, *names):
                path = Path(folder, name)
                if self.index not in (path, *path.parents) and "sqlite-" not in name:
                    content = path.read_bytes() if path.is_file() else None
                    found[str(path)] = (content, path.lstat().st_nlink if content else 0)
        return found

    def inside(self) -> dict[str, bytes | str]:
        """Return the files of the index, but for the notes of its writer."""
        return {
            str(path): os.readlink(path) if path.is_symlink() else path.read_bytes()
            for path in sorted(self.index.rglob("*"))
            if (path.is_file() or path.is_symlink())
            and not path.name.startswith(("writer.", "run.", "catalog.sqlite-"))
        }


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "films"
    write_film(folder / "a.mp4", [("red", 4), ("blue", 4)])
    write_film(folder / "b.mp4", [("green", 4)])
    return folder


@pytest.fixture(scope="module")
def localiser(films: Path) -> TrainedLocaliser:
    return random_localiser(films.with_name("localiser"), 1)


@pytest.fixture(scope="module")
def template(films: Path, localiser: TrainedLocaliser) -> Path:
    """An index in the folder ``data-1`` of its directory, as `scanonce reindex` leaves it."""
    folder = films.with_name("template")
    build_index(IndexLayout(folder), films, localiser=localiser)
    replace_index(IndexLayout(folder))
    return folder


@pytest.fixture
def site(template: Path, films: Path, localiser: TrainedLocaliser, tmp_path: Path) -> Site:
    site = Site(tmp_path, films, localiser)
    shutil.copytree(template, site.index)
    names = ("model", "c0ffee", "0000000001", "0000000001_videos", "base", "proxy-aa01-480")
    endings = (".safetensors", ".npy", ".f16", ".mp4", ".json", ".faiss")
    for name in names:
        for ending in endings:
            path = site.victim / f"{name}{ending}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"of the user")
    for folder in ("ab", "0000000001", "staging-1", "c0ffee-0", "vectors"):
        (site.victim / folder).mkdir()
        (site.victim / folder / "c0ffee.safetensors").write_bytes(b"of the user")
        (site.victim / folder / ".tmp-mine").write_bytes(b"of the user")
    (site.victim / ".tmp-mine").write_bytes(b"of the user")
    return site


# ---------------------------------------------------------------- the ways in


def _served(site: Site) -> None:
    """Ask the server for a thumbnail, and raise its refusal."""
    layout = IndexLayout.of(site.index)
    cache = ProxyCache(site.root / "cache-of-the-test")
    media = Media(layout, cache)
    with TestClient(Starlette(routes=media.routes())) as client:
        for number in (1, 2):
            answer = client.get(f"/media/thumbs/{number}/0.jpg")
            if answer.status_code == 503:
                raise IndexDirectoryError(answer.text)
    cache.close()
    media.close()


def _searched(site: Site) -> None:
    with open_engine(site.index) as engine:
        assert engine.search("red").moments


WAYS: Mapping[str, Callable[[Site], object]] = {
    "status": lambda site: Library(site.index).status(),
    "search": _searched,
    "media": _served,
    "verify": lambda site: verify(IndexLayout.of(site.index), full=True),
    "index": lambda site: build_index(
        IndexLayout.of(site.index), site.films, localiser=site.localiser
    ),
    "forget": lambda site: Library(site.index).forget([site.films]),
    "repair": lambda site: repair(
        IndexLayout.of(site.index),
        settings=SETTINGS,
        storage=STORAGE,
        load_encoder=ColourEncoder,
        load_localiser=lambda: site.localiser,
    ),
    "localise": lambda site: derive_anchors(
        IndexLayout.of(site.index), site.localiser, rebuild=True
    ),
    "no localiser": lambda site: derive_anchors(IndexLayout.of(site.index), None),
    "reindex": lambda site: reindex(
        IndexLayout.of(site.index), encoder=ColourEncoder(), settings=SETTINGS, storage=STORAGE
    ),
    "backup": lambda site: backup(
        IndexLayout.of(site.index), site.root / "new", complete=publish_all
    ),
    "restore": lambda site: restore(site.index, site.root / "new", complete=publish_all),
}

# ---------------------------------------------------------------- forged names


def set_uid(site: Site, uid: str) -> None:
    """Rename a content in the catalogue; triggers and all, as anybody can."""
    with closing(sqlite3.connect(site.layout.catalog)) as connection:
        connection.execute("UPDATE videos SET uid = ? WHERE id = 1", [uid])
        connection.commit()


def set_in_manifest(site: Site, **values: object) -> None:
    manifest = json.loads(site.layout.manifest.read_text())
    site.layout.manifest.write_text(json.dumps({**manifest, **values}))


def set_in_generation(site: Site, change: Callable[[dict[str, dict[str, int]]], object]) -> None:
    path = site.layout.vectors / numbered(newest_number(site.layout.vectors)) / "generation.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


@pytest.mark.parametrize("way", [way for way in WAYS if way != "status"])
@pytest.mark.parametrize("uid", ["../../victim/model", "/tmp/model"])
def test_no_uid_leads_out_of_the_index(site: Site, way: str, uid: str) -> None:
    set_uid(site, uid)
    before, outside = site.inside(), site.outside()
    with pytest.raises(IndexDirectoryError, match="names a content"):
        WAYS[way](site)
    assert site.outside() == outside
    assert site.inside() == before, "it was refused before anything was touched"


@pytest.mark.parametrize(
    "uid",
    ["", "..", "a/b", "AB", "xy", "ab-", "-1", "ab-1-2", "ab-x", "ab\n", "aB", "a" * 200, "١"],
)
def test_a_uid_is_a_hex_digest_with_at_most_one_number(site: Site, uid: str) -> None:
    set_uid(site, uid)
    with pytest.raises(IndexDirectoryError, match="names a content"):
        WAYS["search"](site)


def test_a_uid_that_is_no_text_is_refused(site: Site) -> None:
    sql(site.layout.catalog, "UPDATE videos SET uid = x'2e2e2f' WHERE id = 1")
    with pytest.raises(IndexDirectoryError, match="names a content"):
        WAYS["forget"](site)


@pytest.mark.parametrize("way", WAYS)
def test_no_folder_of_anchors_lies_outside(site: Site, way: str) -> None:
    set_in_manifest(site, anchors="../../../victim/c0ffee-0")
    before, outside = site.inside(), site.outside()
    if way == "verify":
        found = verify(IndexLayout.of(site.index))
        assert [each.kind for each in found.differences] == ["manifest"]
    elif way == "media":  # it never reads anchors
        WAYS[way](site)
    elif way == "repair":
        assert WAYS[way](site).left[0][0].kind == "manifest"  # type: ignore[attr-defined]
    else:
        with pytest.raises(IndexDirectoryError, match="the manifest names the anchors"):
            WAYS[way](site)
    assert site.outside() == outside
    assert site.inside() == before


@pytest.mark.parametrize(
    "name", ["..", "../victim", "data-1/../../victim", "data-١", "/tmp", "data-"]
)
@pytest.mark.parametrize("way", ["status", "forget", "restore"])
def test_no_index_in_use_lies_outside(site: Site, way: str, name: str) -> None:
    (site.index / "current").write_text(name)
    outside = site.outside()
    with pytest.raises(IndexDirectoryError, match="should name a folder such as data-1"):
        WAYS[way](site)
    assert site.outside() == outside


@pytest.mark.parametrize("part", ["segments", "files"])
@pytest.mark.parametrize("way", WAYS)
def test_no_file_of_a_generation_lies_outside(site: Site, way: str, part: str) -> None:
    """The generation is skipped as a damaged one is: all of it follows from the features."""
    name = "../../../../victim/0000000001"

    def forge(values: dict[str, dict[str, int]]) -> None:
        if part == "files":
            values["files"][f"{name}.f16"] = len(b"of the user")
        else:
            values["segments"] = dict.fromkeys([name], *values["segments"].values())

    set_in_generation(site, forge)
    outside = site.outside()
    WAYS[way](site)
    after = {path: state for path, state in site.outside().items() if "/new" not in path}
    assert after == {path: state for path, state in outside.items() if "/new" not in path}


# ---------------------------------------------------------------- links

FOLDERS = ("features", "thumbnails", "anchors", "vectors", "head")
FILES = ("manifest.json", "catalog.sqlite", "calibration.json")


def replace_by_link(path: Path, goal: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.symlink_to(goal)


@pytest.mark.parametrize("name", [*FOLDERS, *FILES, "catalog.sqlite-wal"])
@pytest.mark.parametrize("way", WAYS)
def test_no_part_of_an_index_is_a_link(site: Site, way: str, name: str) -> None:
    goal = site.victim if name in FOLDERS else site.victim / "model.json"
    replace_by_link(site.layout.folder / name, goal)
    before, outside = site.inside(), site.outside()
    with pytest.raises(IndexDirectoryError, match="is a link"):
        WAYS[way](site)
    assert site.outside() == outside
    assert site.inside() == before


@pytest.mark.parametrize(
    "name", ["current", "data-1", "data-2", "writer.lock", "writer.json", "cache", "run.log"]
)
@pytest.mark.parametrize("way", ["search", "forget", "reindex", "backup", "restore"])
def test_no_part_of_an_index_directory_is_a_link(site: Site, way: str, name: str) -> None:
    replace_by_link(site.index / name, site.victim)
    outside = site.outside()
    with pytest.raises(IndexDirectoryError, match="is a link"):
        WAYS[way](site)
    assert site.outside() == outside


@pytest.mark.parametrize("store", ["features", "thumbnails", "anchors"])
@pytest.mark.parametrize("way", WAYS)
def test_no_folder_or_file_of_a_store_is_a_link(site: Site, way: str, store: str) -> None:
    """A folder of orphans is cleared, a folder of a content is written and deleted in: never one outside."""
    folder = site.layout.folder / store
    folder = next(folder.glob("*-*")) if store == "anchors" else folder
    inner = next(folder.glob("??"))
    (inner / next(inner.iterdir())).unlink()
    replace_by_link(inner, site.victim / "ab")
    (site.index / "writer.json").write_text("{}")  # a writer has died: its leftovers are removed
    outside = site.outside()
    try:
        WAYS[way](site)
    except IndexDirectoryError as error:
        assert "is a link" in str(error)  # noqa: PT017 - some ways never come there
    after = {path: state for path, state in site.outside().items() if "/new" not in path}
    assert after == {path: state for path, state in outside.items() if "/new" not in path}


@pytest.mark.parametrize("way", ["localise", "no localiser", "repair", "index", "forget"])
def test_no_folder_of_another_localiser_is_a_link(site: Site, way: str) -> None:
    (site.layout.anchors / "c0ffee-0").symlink_to(site.victim)
    (site.index / "writer.json").write_text("{}")
    outside = site.outside()
    with pytest.raises(IndexDirectoryError, match="is a link"):
        WAYS[way](site)
    assert site.outside() == outside


@pytest.mark.parametrize("way", ["backup", "restore"])
@pytest.mark.parametrize("name", ["head/head.json", "calibration.json"])
def test_a_secret_is_not_copied_through_a_link(site: Site, way: str, name: str) -> None:
    set_in_manifest(site, reranker="a" * 64)
    path = site.layout.folder / name
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(site.victim / "model.json")
    with pytest.raises(IndexDirectoryError, match="is a link"):
        WAYS[way](site)
    copies = [each for each in (site.root / "new").rglob("*") if each.is_file()]
    assert not any(each.read_bytes() == b"of the user" for each in copies)


def test_a_linked_index_directory_is_used(site: Site) -> None:
    """People put an index on another disk and link to it: that name is their own."""
    link = site.root / "link"
    link.symlink_to(site.index)
    with open_engine(link) as engine:
        assert engine.search("red").moments


# ---------------------------------------------------------------- the folder that is written


def test_a_backup_does_not_write_through_links_in_its_folder(site: Site) -> None:
    target = site.root / "new"
    backup(IndexLayout.of(site.index), target, complete=publish_all)
    inner = next(IndexLayout.of(target).features.glob("??"))
    name = next(inner.iterdir())
    name.unlink()
    (inner / f".tmp-{name.stem}").symlink_to(site.victim / "model.safetensors")
    outside = site.outside()
    backup(IndexLayout.of(site.index), target, complete=publish_all)
    assert name.exists()
    victims = {path: state for path, state in site.outside().items() if "/victim" in path}
    assert victims == {path: state for path, state in outside.items() if "/victim" in path}


@pytest.mark.parametrize("name", ["features", "vectors", "data-1", "backup.lock", "copying.json"])
def test_a_backup_with_links_is_not_written(site: Site, name: str) -> None:
    target = site.root / "new"
    backup(IndexLayout.of(site.index), target, complete=publish_all)
    replace_by_link(target / name, site.victim)
    outside = site.outside()
    with pytest.raises(IndexDirectoryError, match="is a link"):
        backup(IndexLayout.of(site.index), target, complete=publish_all)
    assert site.outside() == outside


@pytest.mark.parametrize("name", ["features", "vectors", "data-2", "current", "writer.lock"])
def test_an_index_with_links_is_not_restored_over(site: Site, name: str) -> None:
    source = site.root / "new"
    backup(IndexLayout.of(site.index), source, complete=publish_all)
    folder = site.layout.folder if name in FOLDERS else site.index
    replace_by_link(folder / name, site.victim)
    outside = site.outside()
    with pytest.raises(IndexDirectoryError, match="is a link"):
        restore(source, site.index, replace=True, complete=publish_all)
    assert site.outside() == outside


def test_a_forged_index_is_replaced_by_a_backup(site: Site) -> None:
    source = site.root / "new"
    backup(IndexLayout.of(site.index), source, complete=publish_all)
    set_uid(site, "../../victim/model")
    outside = site.outside()
    restore(source, site.index, replace=True, complete=publish_all)
    assert site.outside() == outside
    with open_engine(site.index) as engine:
        assert engine.search("red").moments


# ---------------------------------------------------------------- the pages


def test_the_cache_of_clips_is_no_link(site: Site) -> None:
    (site.index / "cache").symlink_to(site.victim)
    outside = site.outside()
    with pytest.raises(IndexDirectoryError, match="is a link"):
        proxy_cache(site.index)
    assert site.outside() == outside


def test_a_link_in_the_cache_is_not_served(site: Site) -> None:
    cache = ProxyCache(site.index / "cache")
    cache.folder.mkdir()
    cache.path("proxy-aa01-480").symlink_to(site.victim / "model.mp4")
    assert cache.state("proxy-aa01-480").state == "absent"
    assert cache.acquire("proxy-aa01-480") is None
    cache.close()


def test_the_log_of_a_run_is_no_link(site: Site) -> None:
    with jobs.recorded(site.index, [site.films]) as recorder:
        recorder.report("scanning")
    values = json.loads((site.index / "run.json").read_text())
    values |= {"has_log": True, "state": "failed"}
    (site.index / "run.json").write_text(json.dumps(values))
    (site.index / "run.log").symlink_to(site.victim / "model.json")
    job = jobs.read(site.index)
    assert job is not None
    assert job.log_tail == ()
    outside = site.outside()
    with pytest.raises(IndexDirectoryError, match="is a link"):
        jobs.start(site.index, [site.films])
    assert site.outside() == outside
