"""What a person sees of verify, repair, backup and restore."""

import io
import json
import re
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from scanonce.indexer.pipeline import index_library
from scanonce.indexer.settings import IndexerSettings
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.layout import IndexLayout
from scanonce.storage.settings import StorageSettings
from scanonce.storage.stores.features import FeatureStore
from scanonce.storage.writer import writing
from scanonce.ui.commands.upkeep import run_backup, run_repair, run_restore, run_verify
from scanonce.ui.config import Config
from tests.colours import ColourEncoder, write_film

CONFIG = Config(indexer=IndexerSettings(decode_workers=1))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("upkeep") / "work"
    write_film(work / "films" / "[a].mp4", [("red", 6), ("blue", 4)])
    write_film(work / "films" / "b.mp4", [("green", 6)])
    index_library(
        [work / "films"],
        layout=IndexLayout(work / "index"),
        encoder=ColourEncoder(),
        settings=CONFIG.indexer,
        storage=StorageSettings(),
    )
    shutil.copytree(work, work.with_name("template"))
    return work.with_name("template")


@pytest.fixture
def work(template: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(
        "scanonce.ui.commands.upkeep.load_encoder", lambda *_, **__: ColourEncoder()
    )
    folder = template.with_name("work")
    shutil.rmtree(folder)
    shutil.copytree(template, folder)
    return folder


class Screen:
    """A console of 200 columns, and what it shows."""

    def __init__(self, *, terminal: bool = False) -> None:
        self.file = io.StringIO()
        self.console = Console(file=self.file, width=200, force_terminal=terminal)

    @property
    def text(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.file.getvalue())


def features_of(index: Path, name: str) -> Path:
    layout = IndexLayout.of(index)
    with Catalog.open(layout.catalog, read_only=True) as catalog:
        (video,) = [each for each in catalog.videos() if each.path.name == name]
    return FeatureStore(layout.features).path(video.uid)


@pytest.mark.parametrize("terminal", [False, True])
def test_a_whole_index_is_told_in_a_line(work: Path, terminal: bool) -> None:
    screen = Screen(terminal=terminal)
    assert run_verify(work / "index", full=True, config=CONFIG, console=screen.console) == 0
    assert "2 videos, 2 files; all values of 2 compared" in screen.text
    assert "looking" not in screen.text or terminal, "no bar where nobody watches"


def test_differences_are_grouped_by_what_helps(work: Path) -> None:
    features_of(work / "index", "[a].mp4").unlink()
    (work / "films" / "b.mp4").unlink()
    screen = Screen()
    assert run_verify(work / "index", full=False, config=CONFIG, console=screen.console) == 1
    lines = screen.text.splitlines()
    assert lines[0].split() == ["what", "differs", "what", "helps"]
    assert lines[1].split() == ["file", "missing", "1", "scanonce", "index", "FOLDER"]
    assert lines[2].split() == ["features", "missing", "1", "scanonce", "repair"]
    assert f"{work / 'films' / '[a].mp4'}: features missing: no frame features" in screen.text
    assert lines[-1] == (
        "2 differences in 2 videos, 2 files. Next: scanonce index FOLDER, then scanonce repair"
    )


def test_json_names_every_difference(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    features_of(work / "index", "b.mp4").unlink()
    assert run_verify(work / "index", full=False, as_json=True, config=CONFIG) == 1
    found = json.loads(capsys.readouterr().out)
    keys = ["index", "videos", "files", "compared", "without_thumbnails", "pending", "differences"]
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
    screen = Screen()
    run_verify(work / "index", full=False, config=CONFIG, console=screen.console)
    assert screen.text.count("never finished") == 50
    assert "and 10 more; --json names them all." in screen.text


def test_what_the_writer_at_work_will_mend_is_counted(work: Path) -> None:
    (work / "films" / "b.mp4").unlink()
    screen = Screen()
    with writing(IndexLayout.of(work / "index"), "a test"):
        assert run_verify(work / "index", full=False, config=CONFIG, console=screen.console) == 0
    assert "1 difference left to the command that writes the index now." in screen.text


def test_a_dry_run_changes_nothing(work: Path) -> None:
    path = features_of(work / "index", "b.mp4")
    path.write_bytes(b"damaged")
    screen = Screen()
    run = run_repair(
        work / "index", dry_run=True, full=False, config=CONFIG, console=screen.console
    )
    assert run == 1
    assert "without --dry-run it decodes 1 video again." in screen.text
    assert path.read_bytes() == b"damaged"


@pytest.mark.parametrize("terminal", [False, True])
def test_repair_says_what_it_does_and_did(work: Path, terminal: bool) -> None:
    features_of(work / "index", "b.mp4").unlink()
    shutil.rmtree(IndexLayout.of(work / "index").vectors)
    screen = Screen(terminal=terminal)
    run = run_repair(
        work / "index", dry_run=False, full=False, config=CONFIG, console=screen.console
    )
    assert run == 0
    assert "ecodes" in screen.text
    assert "erives the vector index again from the stored features" in screen.text
    assert "The index is whole." in screen.text


def test_repair_names_what_is_left_and_why(work: Path) -> None:
    features_of(work / "index", "b.mp4").unlink()
    shutil.rmtree(IndexLayout.of(work / "index").vectors)
    (work / "films").rename(work / "unplugged")
    screen = Screen()
    run = run_repair(
        work / "index", dry_run=False, full=False, config=CONFIG, console=screen.console
    )
    assert run == 1
    assert "1 difference mended." in screen.text
    assert "b.mp4: features missing: its file is not at hand" in screen.text
    assert "3 differences left." in screen.text


def test_repair_of_a_whole_index_says_so(work: Path) -> None:
    screen = Screen()
    run = run_repair(
        work / "index", dry_run=False, full=False, config=CONFIG, console=screen.console
    )
    assert (run, "Nothing differs" in screen.text) == (0, True)


@pytest.mark.parametrize("terminal", [False, True])
def test_backup_and_restore_end_with_the_next_step(work: Path, terminal: bool) -> None:
    target = work / "backup"
    screen = Screen(terminal=terminal)
    assert run_backup(work / "index", target, config=CONFIG, console=screen.console) == 0
    assert f"scanonce restore {target}" in screen.text
    with pytest.raises(IndexDirectoryError, match="--replace"):
        run_restore(target, work / "index", replace=False, config=CONFIG)
    screen = Screen(terminal=terminal)
    run = run_restore(target, work / "index", replace=True, config=CONFIG, console=screen.console)
    assert run == 0
    assert "scanonce index FOLDER brings it up to date" in screen.text


def test_a_backup_of_a_damaged_index_is_no_success(work: Path) -> None:
    features_of(work / "index", "b.mp4").write_bytes(b"damaged")
    screen = Screen()
    assert run_backup(work / "index", work / "backup", config=CONFIG, console=screen.console) == 1
    assert "damaged, not copied" in screen.text
    assert "b.mp4: its features are in neither" in screen.text
    screen = Screen()
    assert (
        run_restore(
            work / "backup", work / "new", replace=False, config=CONFIG, console=screen.console
        )
        == 1
    )
    assert "scanonce repair" in screen.text
    features_of(work / "new", "b.mp4").parent.mkdir(exist_ok=True)
    assert (
        run_repair(work / "new", dry_run=False, full=False, config=CONFIG, console=Screen().console)
        == 0
    )
