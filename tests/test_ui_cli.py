"""The command line as a person runs it: some of it in processes of their own, most of it in this one."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest

from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.errors import IndexDirectoryError
from scanonce.ui.cli import main
from tests.colours import write_film

pytestmark = pytest.mark.serial

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Ran:
    """What a command did, as `subprocess.CompletedProcess` has it."""

    returncode: int
    stdout: str
    stderr: str


def scanonce(*arguments: object, stdin: str = "") -> Ran:
    """Runs the command in this process: starting one with torch takes seconds."""
    out, err = StringIO(), StringIO()
    code: str | int | None = 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr("sys.argv", ["scanonce", *map(str, arguments)])
        patch.setattr("sys.stdin", StringIO(stdin))
        patch.chdir(ROOT)
        try:
            main()
        except SystemExit as end:
            code = end.code
    assert code is None or isinstance(code, int)
    return Ran(code or 0, out.getvalue(), err.getvalue())


def scanonce_process(*arguments: object) -> Ran:
    """Runs the command as a person does."""
    ran = subprocess.run(
        [sys.executable, "-m", "scanonce.ui.cli", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(films, index), indexed with the bundled encoder; one file is garbage."""
    root = tmp_path_factory.mktemp("cli")
    films, index = root / "films", root / "index"
    write_film(films / "a film.mp4", [("red", 5), ("blue", 5)])
    write_film(films / "b.mkv", [("green", 6), ("white", 4)])
    (films / "garbage.mp4").write_bytes(b"no video" * 100)
    run = scanonce_process("index", films, "--index", index, "--encoder", "bundled")
    assert run.returncode == 0, run.stderr
    assert "2 videos indexed (0:00:20), 1 failed" in run.stdout
    assert "garbage.mp4" in run.stdout
    return films, index


def test_search_prints_a_table_of_moments(library: tuple[Path, Path]) -> None:
    run = scanonce_process("search", "a red car", "--index", library[1], "--top", 3)
    assert run.returncode == 0, run.stderr
    assert "0:00:0" in run.stdout
    assert "ms: text" in run.stdout


def test_search_json_is_one_line_of_the_documented_schema(library: tuple[Path, Path]) -> None:
    run = scanonce("search", "a red car", "--index", library[1], "--json")
    (line,) = run.stdout.splitlines()
    result = json.loads(line)
    assert list(result) == ["query", "no_good_match", "moments", "timings_ms"]
    moment = result["moments"][0]
    assert list(moment) == ["video_id", "path", "start_seconds", "end_seconds", "score", "strength"]
    assert Path(moment["path"]).parent == library[0]
    assert 0 <= moment["start_seconds"] < moment["end_seconds"] <= 10.01


def test_many_queries_give_a_line_each_in_order(library: tuple[Path, Path], tmp_path: Path) -> None:
    queries = ["a red car", "grüne Wiese", "  ", "a blue boat"]
    file = tmp_path / "queries.txt"
    file.write_text("\n".join(queries))
    run = scanonce("search", "--queries", file, "--json", "--index", library[1])
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    assert [answer["query"] for answer in answers] == ["a red car", "grüne Wiese", "a blue boat"]
    piped = scanonce(
        "search", "--queries", "-", "--json", "--index", library[1], stdin="a red car\n"
    )
    assert json.loads(piped.stdout)["moments"] == answers[0]["moments"]


@pytest.mark.parametrize(
    "arguments",
    [["search"], ["search", "a", "--queries", "f"], ["search", "--queries", "f"], ["serch"], []],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    assert scanonce(*arguments).returncode == 2


def test_a_missing_index_is_exit_code_1_with_the_next_step(tmp_path: Path) -> None:
    run = scanonce_process("search", "a car", "--index", tmp_path / "none")
    assert run.returncode == 1
    assert "scanonce index VIDEOS" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    run = scanonce(
        "index", tmp_path / "none", "--index", tmp_path / "index", "--encoder", "bundled"
    )
    assert run.returncode == 1
    assert "does not exist" in run.stderr


def test_only_garbage_is_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "garbage.mp4").write_bytes(b"no video" * 100)
    run = scanonce(
        "index", tmp_path / "films", "--index", tmp_path / "index", "--encoder", "bundled"
    )
    assert run.returncode == 1
    assert "1 failed" in run.stdout


def test_another_encoder_than_the_indexs_is_refused(
    library: tuple[Path, Path], tmp_path: Path
) -> None:
    from tests.checkpoints import make_clip

    run = scanonce(
        "index", library[0], "--index", library[1], "--encoder", make_clip(tmp_path / "clip")
    )
    assert run.returncode == 1
    assert "encoder: the index has bundled, asked for is" in run.stderr


def test_an_encoder_that_cannot_be_had_offers_both_ways_out(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    run = scanonce(
        "index", tmp_path / "films", "--index", tmp_path / "index", "--encoder", "no-such/model"
    )
    assert run.returncode == 1
    assert "--encoder bundled" in run.stderr
    assert "--encoder /path/to/folder" in run.stderr


def test_status_tells_what_is_indexed_and_what_failed(library: tuple[Path, Path]) -> None:
    status = json.loads(scanonce("status", "--index", library[1], "--json").stdout)
    assert status["videos"] == {"indexed": 2, "partial": 0, "failed": 1}
    assert status["vector_index"]["kind"] == "flat"
    assert [Path(each["path"]).name for each in status["failures"]] == ["garbage.mp4"]
    text = scanonce("status", "--index", library[1]).stdout
    assert "2 videos, 0:00:20" in text
    assert status["thumbnail_bytes"] == sum(
        path.stat().st_size for path in (library[1] / "thumbnails").rglob("*.safetensors")
    )
    assert "of thumbnails (" in text


def test_forget_takes_a_file_out_and_leaves_it_on_disk(
    library: tuple[Path, Path], tmp_path: Path
) -> None:
    index = tmp_path / "index"
    scanonce("index", library[0], "--index", index, "--encoder", "bundled")
    run = scanonce("forget", library[0] / "b.mkv", "--index", index)
    assert run.returncode == 0, run.stderr
    assert (library[0] / "b.mkv").exists()
    for folder in ("features", "thumbnails"):
        assert len(list((index / folder).rglob("*.safetensors"))) == 1
    assert (
        json.loads(scanonce("status", "--index", index, "--json").stdout)["videos"]["indexed"] == 1
    )
    again = scanonce("forget", library[0] / "b.mkv", "--index", index)
    assert again.returncode == 1
    assert "nothing at" in again.stderr


def test_doctor_names_what_needs_a_look(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[models]\nencoder = "bundled"\n')
    run = scanonce("doctor", "--json", "--config", config)
    findings = {finding["name"]: finding for finding in json.loads(run.stdout)}
    assert {"packages", "faiss", "device", "decoders", "encoder", "self-check"} <= set(findings)
    assert all(finding["ok"] for finding in findings.values()), findings
    assert run.returncode == 0
    config.write_text('[models]\nencoder = "./nowhere"\n')
    assert scanonce("doctor", "--config", config).returncode == 1


def test_ctrl_c_is_exit_code_130_and_the_next_run_goes_on(tmp_path: Path) -> None:
    films, index = tmp_path / "films", tmp_path / "index"
    for number in range(12):
        write_film(films / f"{number}.mp4", [("red", 60 + number), ("blue", 60)], fps=2)
    config = tmp_path / "slow.toml"
    config.write_text("[indexer]\nbatch_frames = 1\n")
    command = [
        sys.executable,
        "-m",
        "scanonce.ui.cli",
        "index",
        films,
        "--index",
        index,
        "--config",
        config,
    ]
    process = subprocess.Popen(
        [*map(str, command), "--encoder", "bundled"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    while not _searchable(index) and process.poll() is None:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "the same command goes on from here" in output
    left = sorted({*films.iterdir()} - _searchable(index))
    assert 1 <= len(left) < 12
    for film in left[1:]:  # indexing them all would show no more
        film.unlink()
    again = scanonce("index", films, "--index", index)
    assert "1 video indexed" in again.stdout


def _searchable(index: Path) -> set[Path]:
    if not (index / "catalog.sqlite").exists():
        return set()
    try:
        with Catalog.open(index / "catalog.sqlite", read_only=True) as catalog:
            return {path for video in catalog.videos() for path in video.paths}
    except IndexDirectoryError:  # its tables are just being made
        return set()
