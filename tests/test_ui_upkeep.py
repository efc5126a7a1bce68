"""`scanonce verify`, `repair`, `backup` and `restore` on a terminal and elsewhere."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from scanonce.indexer.pipeline import index_library
from scanonce.indexer.settings import IndexerSettings
from scanonce.library import Library as _Library  # noqa: F401 - before a test replaces what it imports
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.layout import IndexLayout
from scanonce.storage.settings import StorageSettings
from scanonce.storage.stores.features import FeatureStore
from scanonce.storage.writer import writing
from tests.colours import ColourEncoder, write_film
from tests.command import Ran, scanonce


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("upkeep") / "work"
    write_film(work / "films" / "[a].mp4", [("red", 6), ("blue", 4)])
    write_film(work / "films" / "b.mp4", [("green", 6)])
    index_library(
        [work / "films"],
        layout=IndexLayout(work / "index"),
        encoder=ColourEncoder(),
        settings=IndexerSettings(decode_workers=1),
        storage=StorageSettings(),
    )
    shutil.copytree(work, work.with_name("template"))
    return work.with_name("template")


@pytest.fixture
def work(template: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(
        "scanonce.models.encoders.load.load_encoder", lambda *_, **__: ColourEncoder()
    )
    folder = template.with_name("work")
    shutil.rmtree(folder)
    shutil.copytree(template, folder)
    return folder


def run(index: Path, *arguments: object, terminal: bool = False) -> Ran:
    """Run a command on an index, with one decoding process."""
    config = index.with_name("config.toml")
    config.write_text("[indexer]\ndecode_workers = 1\n")
    return scanonce(*arguments, "--index", index, "--config", config, terminal=terminal)


def features_of(index: Path, name: str) -> Path:
    layout = IndexLayout.of(index)
    with Catalog.open(layout.catalog, read_only=True) as catalog:
        (video,) = [each for each in catalog.videos() if each.path.name == name]
    return FeatureStore(layout.features).path(video.uid)


@pytest.mark.parametrize("terminal", [False, True])
def test_a_whole_index_is_reported_in_a_line(work: Path, terminal: bool) -> None:
    verify = run(work / "index", "verify", "--full", terminal=terminal)
    assert verify.returncode == 0
    assert "2 videos, 2 files; all values of 2 compared" in verify.stdout
    assert "verifying" not in verify.stdout or terminal, "there is no bar without a terminal"


def test_differences_are_grouped_by_remedy(work: Path) -> None:
    features_of(work / "index", "[a].mp4").unlink()
    (work / "films" / "b.mp4").unlink()
    verify = run(work / "index", "verify")
    assert verify.returncode == 1
    lines = verify.stdout.splitlines()
    assert lines[0].split() == ["difference", "remedy"]
    assert lines[1].split() == ["file", "missing", "1", "scanonce", "index", "FOLDER"]
    assert lines[2].split() == ["features", "missing", "1", "scanonce", "repair"]
    assert f"{work / 'films' / '[a].mp4'}: features missing: no frame features" in verify.stdout
    assert lines[-1] == (
        "2 differences in 2 videos, 2 files. Next: scanonce index FOLDER, then scanonce repair"
    )


def test_json_names_every_difference(work: Path) -> None:
    features_of(work / "index", "b.mp4").unlink()
    verify = run(work / "index", "verify", "--json")
    assert verify.returncode == 1
    found = json.loads(verify.stdout)
    keys = ["index", "videos", "files", "compared", "sampled_only", "without_thumbnails"]
    keys += ["pending", "differences"]
    assert list(found) == keys
    assert found["differences"] == [
        {
            "kind": "features missing",
            "subject": str(work / "films" / "b.mp4"),
            "detail": "no frame features are stored",
            "remedy": "repair",
            "video_id": 2,
        }
    ]


def test_no_more_than_a_screen_of_differences_is_shown(work: Path) -> None:
    folder = IndexLayout.of(work / "index").features / "ab"
    folder.mkdir(exist_ok=True)
    for number in range(60):
        (folder / f".tmp-{number:02}").write_bytes(b"")
    verify = run(work / "index", "verify")
    assert verify.stdout.count("never finished") == 50
    assert "and 10 more; --json names them all." in verify.stdout


def test_differences_that_the_writer_will_repair_are_counted(work: Path) -> None:
    (work / "films" / "b.mp4").unlink()
    with writing(IndexLayout.of(work / "index"), "a test"):
        verify = run(work / "index", "verify")
    assert verify.returncode == 0
    assert "1 difference left to the command that writes the index now." in verify.stdout


def test_a_dry_run_changes_nothing(work: Path) -> None:
    path = features_of(work / "index", "b.mp4")
    path.write_bytes(b"damaged")
    repair = run(work / "index", "repair", "--dry-run")
    assert repair.returncode == 1
    assert "without --dry-run it decodes 1 video again." in repair.stdout
    assert path.read_bytes() == b"damaged"


@pytest.mark.parametrize("terminal", [False, True])
def test_repair_reports_its_plan_and_its_result(work: Path, terminal: bool) -> None:
    features_of(work / "index", "b.mp4").unlink()
    shutil.rmtree(IndexLayout.of(work / "index").vectors)
    repair = run(work / "index", "repair", terminal=terminal)
    assert repair.returncode == 0
    assert "ecodes" in repair.stdout
    assert "erives the vector index again from the stored features" in repair.stdout
    assert "The index is whole." in repair.stdout


def test_repair_reports_the_differences_left_and_their_reasons(work: Path) -> None:
    features_of(work / "index", "b.mp4").unlink()
    shutil.rmtree(IndexLayout.of(work / "index").vectors)
    (work / "films").rename(work / "unplugged")
    repair = run(work / "index", "repair")
    assert repair.returncode == 1
    assert "1 difference repaired." in repair.stdout
    assert "b.mp4: features missing: its file is not at hand" in repair.stdout
    assert "3 differences left." in repair.stdout


def test_repair_of_a_whole_index_does_nothing(work: Path) -> None:
    repair = run(work / "index", "repair")
    assert (repair.returncode, "Nothing differs" in repair.stdout) == (0, True)


@pytest.mark.parametrize("terminal", [False, True])
def test_backup_and_restore_end_with_the_next_step(work: Path, terminal: bool) -> None:
    target = work / "backup"
    backup = run(work / "index", "backup", target, terminal=terminal)
    assert backup.returncode == 0
    assert f"scanonce restore {target}" in backup.stdout
    refused = run(work / "index", "restore", target)
    assert refused.returncode == 1
    assert "--replace" in refused.stderr
    restore = run(work / "index", "restore", target, "--replace", terminal=terminal)
    assert restore.returncode == 0
    assert "scanonce index FOLDER brings it up to date" in restore.stdout


def test_a_backup_of_a_damaged_index_is_no_success(work: Path) -> None:
    features_of(work / "index", "b.mp4").write_bytes(b"damaged")
    backup = run(work / "index", "backup", work / "backup")
    assert backup.returncode == 1
    assert "damaged, not copied" in backup.stdout
    assert "b.mp4: its features are in neither" in backup.stdout
    restore = run(work / "new", "restore", work / "backup")
    assert restore.returncode == 1
    assert "scanonce repair" in restore.stdout
    features_of(work / "new", "b.mp4").parent.mkdir(exist_ok=True)
    assert run(work / "new", "repair").returncode == 0


def make_older(index: Path) -> None:
    """Make an index as versions before 0.3 did: its features have no targets, its manifest says nothing of times."""
    layout = IndexLayout.of(index)
    for path in layout.features.rglob("*.safetensors"):
        tensors = load_file(path)
        del tensors["fps"]
        save_file(tensors, path)
    manifest = json.loads(layout.manifest.read_text())
    del manifest["exact_times"]
    layout.manifest.write_text(json.dumps(manifest))


def test_an_index_of_an_earlier_version_is_used_and_says_that_reindexing_makes_times_exact(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("indexer.models", "search.engine", "search.snapshot", "library"):
        monkeypatch.setattr(f"scanonce.{place}.load_encoder", lambda *_, **__: ColourEncoder())
    index = work / "index"
    before = json.loads(run(index, "search", "red", "--json").stdout)
    assert "reindex" not in run(index, "status").stdout
    make_older(index)
    assert "scanonce reindex" in run(index, "status").stdout
    assert not json.loads(run(index, "status", "--json").stdout)["exact_times"]
    searched = run(index, "search", "red", "--json")
    assert searched.stderr.count("scanonce reindex") == 1
    assert json.loads(searched.stdout)["moments"] == before["moments"]
    write_film(work / "films" / "c.mp4", [("white", 5)])
    indexed = run(index, "index")
    assert indexed.stderr.count("scanonce reindex") == 1
    assert indexed.returncode == 0, indexed.stderr
    assert run(index, "verify").returncode == 0
    assert run(index, "reindex").returncode == 0
    assert "reindex" not in run(index, "status").stdout
    assert "reindex" not in run(index, "search", "red").stderr
