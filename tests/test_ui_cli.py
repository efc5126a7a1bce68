"""The command line: a few tests in processes of their own, most in this process."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from scanonce import ui
from scanonce.indexer.pipeline import IndexReport
from scanonce.indexer.scan import ScanProblem
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.catalog.entries import RunCounts
from scanonce.storage.errors import IndexDirectoryError
from scanonce.ui.commands.doctor import _index_folder
from scanonce.ui.commands.index import show_report
from scanonce.ui.config import Config
from tests import held
from tests.background import wait_for
from tests.colours import COLOURS, write_film
from tests.command import ROOT, Ran, scanonce
from tests.videos import write_garbage

COMMAND = [sys.executable, "-m", "scanonce.ui.cli"]
BUNDLED = ("--encoder", "bundled")


def scanonce_process(*arguments: object) -> Ran:
    """Run the command in a process of its own."""
    ran = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
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
    write_garbage(films / "garbage.mp4")
    run = scanonce_process("index", films, "--index", index, *BUNDLED)
    assert run.returncode == 0, run.stderr
    assert "2 videos indexed (0:00:20), 1 failed" in run.stdout
    assert "garbage.mp4" in run.stdout
    return films, index


def test_search_prints_a_table_of_moments_on_a_terminal(library: tuple[Path, Path]) -> None:
    asked = ("search", "a red car", "--index", library[1], "--top", 3)
    run = scanonce(*asked, terminal=True)
    assert run.returncode == 0, run.stderr
    assert "0:00:0" in run.stdout
    assert "ms: text" in run.stdout


def test_search_prints_a_line_a_moment_into_a_pipe(library: tuple[Path, Path]) -> None:
    asked = ("search", "a red car", "--index", library[1], "--top", 3)
    run, found = scanonce_process(*asked), json.loads(scanonce(*asked, "--json").stdout)
    assert run.returncode == 0, run.stderr
    keys = ("start_seconds", "end_seconds")
    assert [line.split("\t")[:4] for line in run.stdout.splitlines()] == [
        [each["path"], *(f"{each[key]:.3f}" for key in keys), each["match"]]
        for each in found["moments"]
    ]


def test_search_json_is_one_line_of_the_documented_schema(library: tuple[Path, Path]) -> None:
    run = scanonce("search", "a red car", "--index", library[1], "--json")
    assert run.returncode == 0, run.stderr
    (line,) = run.stdout.splitlines()
    result = json.loads(line)
    keys = ["query", "no_good_match", "num_good", "notes", "moments", "timings_ms"]
    assert list(result) == keys
    moment = result["moments"][0]
    times = ["start_seconds", "end_seconds"]
    assert list(moment) == ["video_id", "path", *times, "probability", "match", "score", "reasons"]
    assert Path(moment["path"]).parent == library[0]
    assert 0 <= moment["start_seconds"] < moment["end_seconds"] <= 10.01


def test_many_queries_give_a_line_each_in_order(library: tuple[Path, Path], tmp_path: Path) -> None:
    queries = ["a red car", "grüne Wiese", "  ", "a blue boat"]
    file = tmp_path / "queries.txt"
    file.write_text("\n".join(queries))
    run = scanonce("search", "--queries", file, "--json", "--index", library[1])
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    assert [answer["query"] for answer in answers] == queries
    piped = scanonce(
        "search", "--queries", "-", "--json", "--index", library[1], stdin="a red car\n"
    )
    assert json.loads(piped.stdout)["moments"] == answers[0]["moments"]


def test_search_takes_images_and_clips(library: tuple[Path, Path], tmp_path: Path) -> None:
    films, index = library
    shot = tmp_path / "shot@1^2.png"  # a name that could be read otherwise
    Image.new("RGB", (640, 480), COLOURS["green"]).save(shot)
    runs = [
        scanonce("search", *asked, "--json", "--index", index)
        for asked in (
            ["--image", shot],
            ["--clip", f"{films / 'b.mkv'}@0:01-0:05"],
            ["--image", f"{shot}^3", "--clip", films / "b.mkv", "a green picture"],
            ["--image", shot, "--crop", "0,0,.5,1"],
        )
    ]
    answers = [json.loads(run.stdout) for run in runs]
    assert [each["query"] for each in answers] == [
        "[shot@1^2.png]", "[b.mkv]", "a green picture", "[shot@1^2.png]",
    ]  # fmt: skip
    assert answers[2]["notes"][0] == "read as: a green picture & [shot@1^2.png]^3 & [b.mkv]"
    for answer in answers:
        assert Path(answer["moments"][0]["path"]).name == "b.mkv"
        assert "examples" in answer["timings_ms"]


def test_search_takes_moments_that_were_right_or_wrong(library: tuple[Path, Path]) -> None:
    films, index = library
    right, wrong = f"{films / 'b.mkv'}@0:01-0:05", "a film"
    run = scanonce("search", "--more-like", right, "--less-like", wrong, "--json", "--index", index)
    answer = json.loads(run.stdout)
    assert Path(answer["moments"][0]["path"]).name == "b.mkv"
    assert "feedback" in answer["timings_ms"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--more-like", "none.mp4@1-2"], "no video of the index is called none.mp4"),
        (["--less-like", "b.mkv@2-1"], "b.mkv@2-1: a moment is such as VIDEO@1:20-1:30"),
        (["--image", "none.png"], "there is no file none.png"),
        (["--image", str(ROOT / "README.md")], "README.md: not an image"),
        (["--image", f"{ROOT / 'README.md'}@1-2"], "only a clip has a piece"),
        (["--clip", str(ROOT / "README.md")], "README.md: "),
        (["--clip", f"{ROOT / 'README.md'}@1::2-x"], "there is no file"),
        (["--image", "none.png", "--crop", "1,2"], "--crop is LEFT,TOP,RIGHT,BOTTOM"),
        (["--clip", "none.mp4", "--crop", "0,0,1,1"], "--crop is of the one --image"),
        (["--image", "none.png^99"], "a weight is over 0 and at most 10"),
    ],
)
def test_an_example_that_cannot_be_used_is_exit_code_1(
    library: tuple[Path, Path], asked: list[str], said: str
) -> None:
    run = scanonce("search", "a car", *asked, "--index", library[1])
    assert run.returncode == 1
    assert said in " ".join(run.stderr.split())
    assert not run.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "--queries", "f", "--json", "--image", "a.png"],
        ["search"],
        ["search", "a", "--queries", "f"],
        ["search", "--queries", "f"],
        ["serch"],
        [],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    assert scanonce(*arguments).returncode == 2


def test_a_missing_index_is_exit_code_1_with_the_next_step(tmp_path: Path) -> None:
    run = scanonce_process("search", "a car", "--index", tmp_path / "none")
    assert run.returncode == 1
    assert "scanonce index VIDEOS" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    run = scanonce("index", tmp_path / "none", "--index", tmp_path / "index", *BUNDLED)
    assert run.returncode == 1
    assert "does not exist" in run.stderr


def test_only_garbage_is_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    write_garbage(tmp_path / "films" / "garbage.mp4")
    run = scanonce("index", tmp_path / "films", "--index", tmp_path / "index", *BUNDLED)
    assert run.returncode == 1
    assert "1 failed" in run.stdout


def test_an_index_made_of_key_frames_needs_no_option_the_second_time(tmp_path: Path) -> None:
    films, index = tmp_path / "films", ("--index", tmp_path / "index")
    write_film(films / "a.mp4", [("red", 5), ("blue", 5)])
    assert scanonce("index", films, *index, *BUNDLED, "--keyframes").returncode == 0
    write_film(films / "b.mp4", [("green", 6)])
    again = scanonce("index", *index, *BUNDLED)
    assert again.returncode == 0, again.stderr
    assert "1 video indexed (0:00:06), 1 already indexed" in again.stdout
    assert json.loads(scanonce("status", *index, "--json").stdout)["sampling"] == "keyframes"


def test_an_index_keeps_its_own_settings_and_a_line_names_them(
    library: tuple[Path, Path], tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[indexer]\nsample_fps = 1.0\nclip_scales_seconds = [4, 8]\n")
    run = scanonce("index", "--index", library[1], "--config", config)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[0] == (
        f"The index at {library[1]} keeps its own clip_scales_seconds = (4.0, 8.0, 16.0), sample_fps = 2.0; "
        "scanonce reindex changes it."
    )
    refused = scanonce("index", "--index", library[1], "--keyframes")
    assert refused.returncode == 1
    assert "sampling: the index has uniform, asked for is keyframes" in refused.stderr
    config.write_text('[models]\nencoder = "bundled"\n')
    same = scanonce("index", "--index", library[1], "--config", config)
    assert "keeps its own" not in same.stdout


@pytest.mark.parametrize(
    ("command", "old", "new"),
    [
        (["search", "red", "--json"], ["--not-label", "x"], ["--exclude-label", "x"]),
        (["search", "red", "--json"], ["--not-label=x"], ["--exclude-label=x"]),
        (["reindex", "--encoder", "no-such/model"], ["--anyway"], ["--force"]),
    ],
)
def test_the_old_spelling_of_an_option_is_accepted_with_a_line(
    library: tuple[Path, Path], command: list[str], old: list[str], new: list[str]
) -> None:
    before = scanonce(*command, "--index", library[1], *old)
    after = scanonce(*command, "--index", library[1], *new)
    assert before.returncode == after.returncode
    line, *rest = before.stderr.splitlines()
    assert f"is called {new[0].split('=')[0]} now" in line
    assert rest == after.stderr.splitlines()
    if before.stdout:
        assert json.loads(before.stdout)["filter"] == json.loads(after.stdout)["filter"]


def test_another_encoder_than_the_indexs_is_refused(
    library: tuple[Path, Path], tmp_path: Path
) -> None:
    from tests.checkpoints import make_clip

    clip = make_clip(tmp_path / "clip")
    run = scanonce("index", library[0], "--index", library[1], "--encoder", clip)
    assert run.returncode == 1
    assert "encoder: the index has bundled, asked for is" in run.stderr


def test_a_missing_encoder_is_an_error_with_both_ways_out(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    options = ("--index", tmp_path / "index", "--encoder", "no-such/model")
    run = scanonce("index", tmp_path / "films", *options)
    assert run.returncode == 1
    assert "--encoder bundled" in run.stderr
    assert "--encoder /path/to/folder" in run.stderr


def test_problems_that_are_alike_are_told_as_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    def problems(reason: str, count: int) -> tuple[ScanProblem, ...]:
        return tuple(ScanProblem(Path(f"/films/{reason}/{n}.ts"), reason) for n in range(count))

    report = IndexReport(
        RunCounts(seen=1, indexed=1),
        (*problems("broken", 1500), *problems("unreadable", 1)),
        failed_before=problems("earlier", 1200),
        other_contents=tuple(problem.path for problem in problems("text", 2)),
    )
    show_report(report, Path("/index"), Console(width=200))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "/films/broken/0.ts: broken",
        "/films/broken/1.ts: broken",
        "/films/broken/2.ts: broken (and 1,497 more like this; scanonce status names failed ones)",
        "/films/unreadable/0.ts: unreadable",
    ]
    first = "/films/earlier/0.ts, /films/earlier/1.ts, /films/earlier/2.ts and 1,197 more"
    assert f"not tried again: 1,200 files ({first}). `scanonce status` says why" in lines[4]
    assert lines[5].endswith("left out: 2 files (/films/text/0.ts, /films/text/1.ts).")
    assert len(lines) == 7


def test_status_shows_ten_failures_and_the_number_of_all(tmp_path: Path) -> None:
    index = tmp_path / "index"
    (tmp_path / "films").mkdir()
    for number in range(12):
        write_garbage(tmp_path / "films" / f"{number}.mp4")
    scanonce("index", tmp_path / "films", "--index", index, *BUNDLED)
    text = scanonce("status", "--index", index).stdout
    assert "failed: 12 files" in text
    assert text.count("not a video") == 10
    assert "and 2 more; --json names them all" in text
    assert len(json.loads(scanonce("status", "--index", index, "--json").stdout)["failures"]) == 12


def test_status_shows_the_videos_and_the_files_that_failed(library: tuple[Path, Path]) -> None:
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
    assert status["calibration"]["kind"] in ("bundled", "none")
    assert "calibration" in text


def test_forget_removes_a_file_from_the_index_and_leaves_it_on_disk(
    library: tuple[Path, Path], tmp_path: Path
) -> None:
    index = tmp_path / "index"
    scanonce("index", library[0], "--index", index, *BUNDLED)
    run = scanonce("forget", library[0] / "b.mkv", "--index", index)
    assert run.returncode == 0, run.stderr
    assert (library[0] / "b.mkv").exists()
    for folder in ("features", "thumbnails"):
        assert len(list((index / folder).rglob("*.safetensors"))) == 1
    status = json.loads(scanonce("status", "--index", index, "--json").stdout)
    assert status["videos"]["indexed"] == 1
    again = scanonce("forget", library[0] / "b.mkv", "--index", index)
    assert again.returncode == 1
    assert "nothing at" in again.stderr


def test_doctor_names_the_checks_that_fail(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[models]\nencoder = "bundled"\n')
    run = scanonce("doctor", "--json", "--config", config)
    findings = {finding["name"]: finding for finding in json.loads(run.stdout)}
    assert {"packages", "faiss", "device", "decoders", "sandbox", "encoder", "self-check"} <= set(
        findings
    )
    assert all(finding["ok"] for finding in findings.values()), findings
    assert run.returncode == 0
    config.write_text(f'[models]\nencoder = "{tmp_path}"\n')
    no_encoder = scanonce("doctor", "--config", config)
    assert no_encoder.returncode == 1
    assert "config.json" in no_encoder.stdout
    config.write_text('[models]\nencoder = "./nowhere"\n')
    assert scanonce("doctor", "--config", config).returncode == 1


def test_doctor_says_where_no_index_can_be_made_or_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing, there = (Config(index_dir=str(tmp_path / name)) for name in ("missing", "."))
    assert _index_folder(missing).endswith("free")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "read-only" in _index_folder(there)
    with pytest.raises(OSError, match=r"missing cannot be made, because .* cannot be written"):
        _index_folder(missing)


@pytest.mark.parametrize(
    ("package", "arguments", "advice"),
    [
        ("decord", ["doctor"], 'pip install "scanonce[decord]"'),
        ("starlette", ["ui", "--no-browser"], 'pip install "scanonce[ui]"'),
    ],
)
def test_a_missing_package_of_an_extra_is_named_with_its_command(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    arguments: list[str],
    advice: str,
) -> None:
    # The command imports its server anew. That replaces the attribute of the package too, for all later tests.
    if "scanonce.ui.server" in sys.modules:
        monkeypatch.setattr(ui, "server", sys.modules["scanonce.ui.server"])
    for name in list(sys.modules):
        if name.startswith((f"{package}.", "scanonce.ui.server")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    config = tmp_path / "config.toml"
    config.write_text('[models]\nencoder = "bundled"\n[indexer]\ndecoder = "decord"\n')
    run = scanonce(*arguments, "--config", config)
    assert run.returncode == 1
    assert advice in run.stdout + run.stderr
    assert package in run.stdout + run.stderr


def test_ctrl_c_is_exit_code_130_and_the_next_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    films, index, gate = tmp_path / "films", tmp_path / "index", tmp_path / "gate"
    for number in range(4):
        write_film(films / f"{number}.mp4", [("red", 20 + number), ("blue", 20)], fps=2)
    config = tmp_path / "slow.toml"
    config.write_text("[indexer]\nbatch_frames = 1\ndecode_workers = 1\n")
    monkeypatch.setenv(held.GATE, str(gate))
    command = [sys.executable, "-m", "tests.held", "index", films, "--index", index, *BUNDLED]
    process = subprocess.Popen(
        [*map(str, command), "--config", str(config)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        wait_for(lambda: bool(_searchable(index)) or process.poll() is not None)
        process.send_signal(signal.SIGINT)
    finally:
        gate.touch()
    output, _ = process.communicate()
    assert process.returncode == 130, output
    assert "the same command goes on from here" in output
    left = sorted({*films.iterdir()} - _searchable(index))
    assert 1 <= len(left) < 4
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
