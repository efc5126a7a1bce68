"""No state of disk, encoder, index or configuration reaches a person as a traceback."""

import errno
import json
import logging
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient
from streamlit.testing.v1 import AppTest

from scanonce.storage.errors import ConfigError
from scanonce.storage.files import expanded
from scanonce.storage.layout import IndexLayout
from scanonce.ui.reports import tell_of_threads_and_logs
from scanonce.ui.server.cache import ProxyCache
from scanonce.ui.server.routes import Media
from tests.checkpoints import make_clip
from tests.colours import write_film
from tests.command import ROOT, Ran, command_names, scanonce
from tests.indexes import build_index
from tests.ui_library import PAGES, open_page, shown_index


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with films, their index and a file of annotations."""
    root = tmp_path_factory.mktemp("library")
    write_film(root / "films" / "a.mp4", [("red", 4), ("blue", 2)])
    known = {"query": "red", "video": "a", "spans": [[0, 4]]}
    (root / "annotations.jsonl").write_text(json.dumps(known) + "\n")
    ran = scanonce("index", root / "films", "--index", root / "index", "--encoder", "bundled")
    assert ran.returncode == 0, ran
    return root


def run(*arguments: object) -> Ran:
    """Run a command on an ASCII terminal; if it fails, it must say so in a sentence."""
    ran = scanonce(*arguments, encoding="ascii", columns=2000)
    assert ran.returncode in (0, 1, 2, 70, 130), ran
    assert "Traceback" not in ran.stdout + ran.stderr
    assert ran.returncode == 0 or (ran.stdout + ran.stderr).strip()
    if ran.returncode == 70:
        assert ran.stderr.startswith("scanonce: ")
        assert "report" in ran.stderr
    return ran


def commands(library: Path, index: Path | None, out: Path) -> dict[str, list[object]]:
    """Return a call of every command; those that go on for ever, or take minutes, are called wrongly."""
    films, annotations = library / "films", library / "annotations.jsonl"
    at = [] if index is None else ["--index", index]
    benchmark = ["--benchmark", "scanonce", "--annotations", annotations]
    return {
        "index": ["index", films, "--encoder", "bundled", *at],
        "watch": ["watch", out / "missing", *at],
        "reindex": ["reindex", "--encoder", "bundled", *at],
        "search": ["search", "red", *at],
        "label": ["label", films, "--add", "new", *at],
        "localise": ["localise", "--rebuild", *at],
        "convert": ["convert", library / "annotations.jsonl", out / "converted"],
        "tune": ["tune", *at],
        "status": ["status", *at],
        "forget": ["forget", films / "a.mp4", *at],
        "verify": ["verify", "--full", *at],
        "repair": ["repair", *at],
        "backup": ["backup", out / "backup", *at],
        "restore": ["restore", out / "backup", *at],
        "ui": ["ui", "--host", "no such host", "--no-browser", *at],
        "train clip": ["train", "clip", out / "captions.csv", out / "clip"],
        "train soonet": [
            "train",
            "soonet",
            annotations,
            out / "soonet",
            "--minutes-cap",
            "0.01",
            *at,
        ],
        "eval": ["eval", *benchmark, "--write-predictions", out / "written", *at],
        "doctor": ["doctor"],
        "config": ["config"],
        "demo": ["demo", out / "demo", "--films", 0],
        "encoders": ["encoders"],
        "fetch": ["fetch", "nobody/nothing", "--to", out / "fetched"],
        "tracks": ["tracks", *at],
        "tracks add": ["tracks", "add", "subtitle", *at],
        "tracks remove": ["tracks", "remove", "subtitle", *at],
        "unusual": ["unusual", "--in", films, *at],
        "duplicates": ["duplicates", *at],
        "saved add": ["saved", "add", "cars", "a red car", *at],
        "saved list": ["saved", "list", *at],
        "saved run": ["saved", "run", "cars", *at],
        "cut": ["cut", films / "a.mp4", "1", "2", "--out", out / "cut.mp4"],
        "peek": ["peek", films / "missing.mp4", "red", "--encoder", "bundled"],
        "selects": ["selects", *at],
        "serve": ["serve", "--host", "no such host", *at],
        "mcp": ["mcp", "--http", "--host", "no such host", *at],
        "token add": ["token", "add", "editor", *at],
        "token list": ["token", "list", *at],
        "token revoke": ["token", "revoke", "editor", *at],
        "saved remove": ["saved", "remove", "cars", *at],
    }


NAMES = commands(Path(), None, Path())


def test_every_command_is_tried() -> None:
    assert set(NAMES) == command_names()


# ---------------------------------------------------------------- what is broken


@pytest.mark.parametrize("command", NAMES)
def test_a_full_disk_is_a_sentence(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reports: Path, command: str
) -> None:
    index = Path(shutil.copytree(library / "index", tmp_path / "index"))
    call = commands(library, index, tmp_path)[command]
    _fill_disk(monkeypatch, errno.ENOSPC)
    run(*call)


@pytest.mark.parametrize("command", ["index", "backup", "eval", "localise"])
def test_a_read_only_disk_is_a_sentence(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reports: Path, command: str
) -> None:
    call = commands(library, tmp_path / "new", tmp_path)[command]
    if command != "index":
        call[-1] = library / "index"
    _fill_disk(monkeypatch, errno.EROFS)
    ran = run(*call)
    if ran.returncode:
        assert "Read-only file system" in ran.stdout + ran.stderr or "index" in ran.stderr


def _fill_disk(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Have every new file and folder refused by the operating system, those of reports too."""

    def refuse(*where: object, **_: object) -> None:
        raise OSError(number, os.strerror(number), str(where[0]) if where else None)

    monkeypatch.setattr(os, "mkdir", refuse)
    for name in ("NamedTemporaryFile", "mkstemp", "mkdtemp"):
        monkeypatch.setattr(tempfile, name, refuse)
    for name in ("write_bytes", "write_text", "touch"):
        monkeypatch.setattr(Path, name, refuse)


@pytest.mark.parametrize("command", NAMES)
def test_without_a_home_folder_every_command_says_so_or_works(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    _lose_home(monkeypatch)
    if command != "tune":  # without --index it is the one below
        ran = run(*commands(library, tmp_path / "index", tmp_path)[command])
        assert ran.returncode in (0, 1, 2)
    monkeypatch.delenv("HOME", raising=False)  # the pages have made one
    ran = run(*commands(library, None, tmp_path)[command])
    assert ran.returncode in (0, 1, 2)
    if command in ("status", "search", "forget", "ui"):
        assert (
            "the home folder is not known; name a folder that does not begin with ~" in ran.stderr
        )


def _lose_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: int) -> None:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)


@pytest.mark.parametrize("path", ["~no-such-user/x", "a\0b"])
def test_a_path_that_cannot_be_is_an_error(path: str) -> None:
    with pytest.raises(ConfigError, match=r"home folder is not known|NUL"):
        expanded(path)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe",
        b"a = [[",
        b"a = " + b"[" * 100_000,
        b"[search]\ntop = " + b"9" * 5000,
        b"index_dir = '~no-such-user/x'",
        b'index_dir = "a\\u0000b"',
        b"search = 1",
        b"[search]\ntop = nan",
        b"[models]\nencoder = '/'\nno\x1bsuch = 1",
    ],
)
def test_a_broken_configuration_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    config = tmp_path / "config.toml"
    config.write_bytes(content)
    ran = run("status", "--config", config)
    assert ran.returncode == 1
    assert run("status", "--config", tmp_path).returncode == 1


def test_a_configuration_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_bytes(b"\xef\xbb\xbfindex_dir = '/no/index'\n")
    assert "there is no index at /no/index" in run("status", "--config", config).stderr


Spoil = Callable[[Path], object]


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


SPOILED: dict[str, Spoil] = {
    "garbage": lambda path: path.write_bytes(b"\xff\0[{(\n" * 30),
    "empty": lambda path: path.write_bytes(b""),
    "nested": lambda path: path.write_bytes(b"[" * 100_000),
    "folder": _folder,
}
_FILES = ("catalog.sqlite", "manifest.json", "features/**/*.safetensors", "vectors/**/*.f16")


@pytest.mark.parametrize("how", SPOILED)
@pytest.mark.parametrize("pattern", [*_FILES, "vectors/**/generation.json", "vectors/**/*.npy"])
def test_a_broken_file_of_the_index_is_a_sentence(
    library: Path, tmp_path: Path, reports: Path, pattern: str, how: str
) -> None:
    index = Path(shutil.copytree(library / "index", tmp_path / "index"))
    for path in [*index.glob(pattern)]:
        SPOILED[how](path)
    for command in ("search", "status", "verify"):
        run(*commands(library, index, tmp_path)[command])


@pytest.mark.parametrize("how", [*SPOILED, "gone"])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_broken_encoder_is_a_sentence(
    tmp_path: Path, library: Path, reports: Path, name: str, how: str
) -> None:
    encoder = make_clip(tmp_path / "encoder")
    assert (encoder / name).exists()
    spoil = Path.unlink if how == "gone" else SPOILED[how]
    spoil(encoder / name)
    at = ("--index", tmp_path / "new")
    run("index", library / "films", *at, "--encoder", encoder)
    assert run("search", "red", *at).returncode in (1, 70)


# ---------------------------------------------------------------- what was not foreseen


class _Panic(BaseException):
    """Like the panics of packages written in Rust."""


@pytest.mark.parametrize(
    "error", [KeyError("a\x1b[2J\nkey"), RecursionError(), _Panic("x"), MemoryError()]
)
def test_an_error_that_was_not_foreseen_is_a_sentence_with_the_place_of_a_report(
    library: Path, monkeypatch: pytest.MonkeyPatch, reports: Path, error: BaseException
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("scanonce.search.engine.SearchEngine.search", fail)
    call = ("search", "a secret sentence", "--index", library / "index", "--label=mine too")
    ran = run(*call)
    assert ran.returncode == 70
    (line,) = ran.stderr.splitlines()
    (saved,) = reports.iterdir()
    assert line.endswith(str(saved))
    report = saved.read_text("utf-8")
    assert report.startswith(f"scanonce search \u2026 --index {library / 'index'} --label \u2026\n")
    assert "Traceback" in report
    assert "Python 3." in report
    assert "secret" not in report
    assert "mine too" not in report
    assert saved.stat().st_mode & 0o077 == 0
    debugged = scanonce(*call[:1], "--debug", *call[1:])
    assert debugged.returncode == 70
    assert "Traceback (most recent call last)" in debugged.stderr
    assert "\x1b" not in debugged.stderr


def test_debug_shows_the_traceback_of_an_expected_error_too(tmp_path: Path) -> None:
    for arguments in (["--debug", "status"], ["status", "--debug"]):
        ran = scanonce(*arguments, "--index", tmp_path)
        assert ran.returncode == 1
        assert "Traceback" in ran.stderr
    assert scanonce("search", "--index", tmp_path, "--", "--debug").stderr.startswith("scanonce:")


def test_errors_of_threads_and_logs_are_sentences(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], reports: Path
) -> None:
    monkeypatch.setattr("threading.excepthook", threading.excepthook)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    tell_of_threads_and_logs(debug=False)
    ended = threading.ExceptHookArgs((ValueError, ValueError("in a thread"), None, None))
    threading.excepthook(ended)
    try:
        raise KeyError("in a log")
    except KeyError:
        logging.getLogger("anything").exception("a\x1b[2J\nname")
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith("scanonce: ") for line in lines] == [True, False, True]
    assert "in a thread" in lines[0]
    assert lines[1] == r"a\x1b[2J\nname"
    assert "in a log" in lines[2]
    assert len([*reports.iterdir()]) == 2


@pytest.mark.parametrize(("output", "code"), [("> /dev/full", 70), (">&-", 0)])
def test_output_that_cannot_be_written_is_no_traceback(
    tmp_path: Path, output: str, code: int
) -> None:
    command = f'"{sys.executable}" -m scanonce.ui.cli config {output}'
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    ran = subprocess.run(
        command, shell=True, cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert ran.returncode == code
    assert "Traceback" not in ran.stderr
    assert "Exception ignored" not in ran.stderr
    assert ("No space left on device" in ran.stderr) == (code == 70)


# ---------------------------------------------------------------- the pages


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a library of one film that the pages show."""
    write_film(tmp_path / "films" / "a.mp4", [("red", 4), ("blue", 2)])
    layout = IndexLayout.of(tmp_path / "index")
    build_index(layout, tmp_path / "films")
    for _ in shown_index(layout.root, monkeypatch):
        yield tmp_path


@pytest.mark.parametrize(
    "error", [KeyError("odd"), OSError(errno.ENOSPC, "No space left on device")]
)
@pytest.mark.parametrize(
    ("page", "broken"),
    [
        ("search", "scanonce.ui.pages.finding.search"),
        ("library", "scanonce.ui.pages.finding.catalog_contents"),
        ("status", "scanonce.ui.pages.finding.index_status"),
        ("moment", "scanonce.ui.pages.finding.searchable_library"),
    ],
)
def test_an_error_on_a_page_is_a_sentence(
    shown: Path,
    monkeypatch: pytest.MonkeyPatch,
    reports: Path,
    page: str,
    broken: str,
    error: Exception,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise type(error)(*error.args)

    monkeypatch.setattr(broken, fail)
    opened = open_page(page, q="red", v="1")
    (said,) = [each.value for each in opened.error]
    saved = Path(said.replace("\\", "").rpartition(" is in ")[2])
    assert saved.parent == reports
    assert type(error).__name__ in saved.read_text()


def test_a_broken_configuration_is_a_sentence_on_every_page(
    shown: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shown / "config.toml").write_text("[models]\nencoder = 7\n")
    monkeypatch.setenv("SCANONCE_CONFIG", str(shown / "config.toml"))
    shown_page = AppTest.from_file(str(PAGES / "app.py"), default_timeout=600).run()
    assert not shown_page.exception
    assert "encoder" in shown_page.error[0].value


def test_an_error_of_the_media_is_a_sentence(
    shown: Path, monkeypatch: pytest.MonkeyPatch, reports: Path
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("odd")

    layout = IndexLayout.of(shown / "index")
    cache = ProxyCache(shown / "cache")
    media = Media(layout, cache)
    monkeypatch.setattr(media, "_opened_catalog", fail)
    with TestClient(Starlette(routes=media.routes())) as client:
        answer = client.get("/media/videos/1")
    media.close()
    cache.close()
    assert answer.status_code == 500
    assert "not foreseen" in answer.text
    assert "Traceback" not in answer.text
    assert len([*reports.iterdir()]) == 1
