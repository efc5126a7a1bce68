"""What reaches a terminal: names of files that are made to be obeyed by it, queries of any bytes, any encoding."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from rich.table import Table

from scanonce.search.query_text import query_text
from scanonce.storage.errors import ConfigError, QueryError
from scanonce.ui.commands.search import read_queries
from scanonce.ui.console import new_console, verbatim
from scanonce.ui.safe_text import json_line, visible
from tests.colours import write_film
from tests.command import ROOT, Ran, command_names, scanonce

HOSTILE = (
    "esc\x1b[31mred\x1b[2J",
    "line\nscanonce: all is well",
    "return\rand\x08\x08\x07",
    "tab\tcsi\x9b2J",
    "turned\u202egnp",
    "broken\u2028\u2029\x85\x7f",
    "[red]markup[bold] :smile: \\",
)
"""Stems of names, with marks that a terminal or rich would obey."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(films, index) of hostile names, one of them of a file that is no video."""
    root = tmp_path_factory.mktemp("hostile\x1b]0;title\x07")
    films, index = root / "films\x1b[2J\nfilms", root / "index\x1b[2J\nindex"
    for number, stem in enumerate(HOSTILE):
        write_film(films / f"{stem}.mp4", [("red", 4 + number), ("blue", 2)])
    (films / f"{HOSTILE[0]}\ngarbage.mp4").write_bytes(b"\0no video" * 100)
    ran = run("index", films, "--index", index, "--encoder", "bundled")
    assert "7 videos indexed" in ran.stdout, ran
    run("label", films, "--index", index, "--add", "turned\u202e label [red]")
    return films, index


def run(*arguments: object, stdin: str | bytes = "", encoding: str = "utf-8") -> Ran:
    """Run a command, and check that nothing of its output is obeyed by a terminal."""
    ran = scanonce(*arguments, stdin=stdin, columns=2000, is_raw=True, encoding=encoding)
    for stream in (ran.stdout, ran.stderr):
        # tabs separate the columns of `search`, four in a line: those of names are escaped
        assert {line.count("\t") for line in stream.splitlines()} <= {0, 4}, stream
        text = stream.replace("\n", "").replace("\t", "")
        bad = {letter for letter in text if not letter.isprintable()}
        assert bad == set(), stream
        own_lines = [line for line in stream.splitlines() if line.startswith("scanonce: all is")]
        assert own_lines == []
    return ran


Walk = Callable[[Path, Path, Path], Ran]
"""Runs a command, given the films, the index and an empty folder."""


def _verify(films: Path, index: Path, empty: Path) -> Ran:
    broken = _copy(index, empty)
    for path in [*(broken / "features").rglob("*.safetensors")][:3]:
        path.unlink()
    (broken / "features" / "or\x1b[2J\nphan.safetensors").write_bytes(b"")
    for command in (["verify"], ["verify", "--json"], ["repair", "--dry-run"]):
        ran = run(*command, "--index", broken)
        assert ran.returncode == 1, ran
    return run("repair", "--index", broken)


def _copy(index: Path, folder: Path) -> Path:
    return Path(shutil.copytree(index, folder / "copy\x1b[2J\ncopy"))


def _watch(films: Path, index: Path, empty: Path) -> Ran:
    def survey_and_stop(roots: object, watched: object, **_: object) -> None:
        watched.index([films])  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scanonce.indexer.watch.watch", survey_and_stop)
        return run("watch", films, "--index", index)


def _eval(films: Path, index: Path, empty: Path) -> Ran:
    known = {"query": "red", "video": HOSTILE[0], "spans": [[0, 4]]}
    unknown = {"query": "red", "video": "un\x1b[2J\nknown", "spans": [[0, 4]]}
    annotations = empty / "annotations.jsonl"
    annotations.write_text("".join(json.dumps(each) + "\n" for each in (known, unknown)))
    return run("eval", "--benchmark", "scanonce", "--annotations", annotations, "--index", index)


def _search(films: Path, index: Path, empty: Path) -> Ran:
    at = ("--index", index)
    for query in ("[/red]", "[bold]", ":smile: fish", "a\x1b[2J\nred \u202e car", "\ufeffred"):
        assert run("search", query, *at, "--top", 10).returncode == 0
    found = json.loads(run("search", "red", *at, "--json", "--top", 10).stdout)
    for kind in ("--paths", "--export=edl", "--export=otio"):
        assert run("search", "red", *at, kind).stdout
    assert {Path(each["path"]).stem for each in found["moments"]} <= set(HOSTILE)
    return run("search", "red", *at, "--in", films, "--label", "turned\u202e label [red]")


def _label(films: Path, index: Path, empty: Path) -> Ran:
    at = ("--index", index)
    assert "7" in run("label", *at).stdout
    lines = run("label", films, *at, "--json").stdout.splitlines()
    assert {Path(json.loads(line)["path"]).stem for line in lines} == set(HOSTILE)
    assert run("label", films, *at, "--add", "new\x1b[2J").returncode == 1
    return run("label", films, *at)


def _status(films: Path, index: Path, empty: Path) -> Ran:
    found = json.loads(run("status", "--index", index, "--json").stdout)
    assert found["libraries"] == [str(films)]
    ran = run("status", "--index", index)
    assert r"esc\x1b[31mred\x1b[2J\ngarbage.mp4" in ran.stdout
    return ran


def _backup(films: Path, index: Path, empty: Path) -> Ran:
    assert run("backup", empty / "b\x1b[2J\nb", "--index", index).returncode == 0
    return run("restore", empty / "b\x1b[2J\nb", "--index", empty / "r\x1b[2J\nr")


def _refused(*arguments: object) -> Walk:
    """Run a command that cannot do what is asked, and whose error has a hostile name."""

    def walk(films: Path, index: Path, empty: Path) -> Ran:
        ran = run(*(index if each is ... else each for each in arguments))
        assert ran.returncode in (1, 2), ran
        return ran

    return walk


_NOWHERE = Path("/no\x1b[2J\nwhere")

WALKS: dict[str, Walk] = {
    "index": lambda films, index, empty: run("index", films, "--index", index, "--retry"),
    "watch": _watch,
    "search": _search,
    "label": _label,
    "status": _status,
    "verify": _verify,
    "repair": _verify,
    "backup": _backup,
    "restore": _backup,
    "eval": _eval,
    "localise": lambda films, index, empty: run("localise", "--index", index, "--rebuild"),
    "reindex": lambda films, index, empty: run("reindex", "--index", _copy(index, empty)),
    "forget": _refused("forget", _NOWHERE, "--index", ...),
    "tune": _refused("tune", "--index", _NOWHERE),
    "convert": _refused("convert", _NOWHERE, "out"),
    "ui": _refused("ui", "--index", ..., "--host", "no\x1b[2J\nhost", "--no-browser"),
    "doctor": _refused("doctor", "--config", _NOWHERE),
    "config": _refused("config", _NOWHERE),
    "demo": _refused("demo", "--films", "1\x1b[2J\n"),
    "train clip": _refused("train", "clip", _NOWHERE, "out"),
    "train soonet": _refused("train", "soonet", _NOWHERE, "out", "--index", ...),
    "encoders": lambda films, index, empty: run("encoders", "--language", "x\x1b[2J\n"),
    "fetch": _refused("fetch", "no\x1b[2J\n/thing", "--to", "out"),
    "tracks": _refused("tracks", "--index", _NOWHERE),
    "tracks add": _refused("tracks", "add", "x\x1b[2J\n", "--index", ...),
    "tracks remove": _refused("tracks", "remove", "x\x1b[2J\n", "--index", ...),
    "unusual": _refused("unusual", "--in", _NOWHERE, "--index", ...),
    "duplicates": _refused("duplicates", "--index", _NOWHERE),
    "saved add": _refused("saved", "add", "x\x1b[2J\n", "a | | b", "--index", ...),
    "saved list": _refused("saved", "list", "--index", _NOWHERE),
    "saved run": _refused("saved", "run", "x\x1b[2J\n", "--index", ...),
    "cut": _refused("cut", _NOWHERE, "1", "2"),
    "peek": _refused("peek", _NOWHERE, "red", "--encoder", "bundled"),
    "selects": _refused("selects", "--export", "edl", "--index", _NOWHERE),
    "serve": _refused("serve", "--index", ..., "--host", "no\x1b[2J\nhost"),
    "mcp": _refused("mcp", "--http", "--index", ..., "--host", "no\x1b[2J\nhost"),
    "token add": _refused("token", "add", "x\x1b[2J\n", "--index", ...),
    "token list": lambda films, index, empty: run("token", "list", "--index", index),
    "token revoke": _refused("token", "revoke", "x\x1b[2J\n", "--index", ...),
    "saved remove": _refused("saved", "remove", "x\x1b[2J\n", "--index", ...),
}


def test_every_command_is_walked() -> None:
    assert set(WALKS) == command_names()


@pytest.mark.parametrize("command", WALKS)
def test_no_command_lets_a_name_reach_the_terminal_as_it_is(
    library: tuple[Path, Path], tmp_path: Path, command: str
) -> None:
    ran = WALKS[command](*library, tmp_path)
    assert ran.stdout + ran.stderr


def test_a_name_that_is_printed_without_care_is_still_not_obeyed() -> None:
    table = Table()
    table.add_column("a\x1b[2J")
    table.add_row("c\x9b\u202e")
    with redirect_stdout(StringIO()) as out:
        console = new_console()
        console.print("x\x1b[2Jy :smile:", table, markup=False)
        console.print(verbatim("[red]\n"))
    text = out.getvalue()
    assert "x\\x1b[2Jy :smile:" in text
    assert "c\\x9" in text
    assert "[red]\\n" in text
    assert text.replace("\n", "").isprintable()


def test_only_the_console_of_this_project_is_used() -> None:
    made_by = [
        path.name
        for path in (ROOT / "ui").rglob("*.py")
        if any(
            word in path.read_text() for word in (" Console(", "rich.markup", "json.dumps(found")
        )
    ]
    assert made_by == ["console.py"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("caf\u00e9 \u4e2d\u6587 \U0001f468\u200d\U0001f469\u200d\U0001f467 a\u00a0b\u202fc", None),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", None),
        ("a\x1b\n\t\x00\x7f\x9b", r"a\x1b\n\t\x00\x7f\x9b"),
        ("\u202e\u2066\u200f\u2028\ufeff\udce9", r"\u202e\u2066\u200f\u2028\ufeff\udce9"),
    ],
)
def test_what_is_obeyed_is_escaped_and_what_is_writing_stays(
    text: str, expected: str | None
) -> None:
    assert visible(text) == (text if expected is None else expected)
    assert json.loads(json_line([text])) == [text]
    assert json.loads(json_line([text], "ascii").encode("ascii")) == [text]


# ---------------------------------------------------------------- queries


@pytest.mark.parametrize(
    "text", ["", " \n", "\x00\x00", "\u200b\u2060\ufeff", "\u3164\u2800", "\u0301\ufe0f"]
)
def test_a_query_that_shows_nothing_is_empty(text: str) -> None:
    with pytest.raises(QueryError, match="the query is empty"):
        query_text(text)


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("\ufeffa red fish", "a red fish"),
        ("a red\u2028fish\x85\x0b\x0c", "a red fish"),
        ("a\x00red\x1b[31mfish", "a red [31mfish"),
        ("[/red] :smile: <b>", "[/red] :smile: <b>"),
        ("?!", "?!"),
        ("\U0001f41f", "\U0001f41f"),
        ("\u7ea2\u8272\u7684\u9c7c", "\u7ea2\u8272\u7684\u9c7c"),
    ],
)
def test_every_query_is_a_line_of_text(text: str, taken: str) -> None:
    assert query_text(text) == taken


def test_a_file_of_queries_has_one_answer_a_line_whatever_the_line_is(
    library: tuple[Path, Path], tmp_path: Path
) -> None:
    lines = [
        b"\xef\xbb\xbfa red car",
        b"",
        b"caf\xe9 fish",
        b"a\xe2\x80\xa8blue\x0b boat\r",
        b"\0\0",
    ]
    lines += [b"\xe2\x80\x8b", b"[/red]", "\u7ea2".encode(), b"\xc2\x85 black \x0c dog"]
    file = tmp_path / "queries"
    file.write_bytes(b"\n".join(lines))
    at = ("--index", library[1], "--json")
    for ran in (run("search", "--queries", file, *at),
                run("search", "--queries", "-", *at, stdin=b"\n".join(lines) + b"\n")):  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        answers = [json.loads(line) for line in ran.stdout.splitlines()]
        assert [each["query"] for each in answers] == [
            "a red car", "", "caf? fish", "a blue  boat", "\0\0", "\u200b", "[/red]", "\u7ea2", "black   dog",
        ]  # fmt: skip
        failed = ["error" in each for each in answers]
        assert failed == [False, True, True, False, True, True, False, False, False]
        assert "UTF-8" in answers[2]["error"]
        alone = json.loads(run("search", "a red car", *at).stdout)
        assert answers[0]["moments"] == alone["moments"]


def test_closed_standard_input_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(QueryError, match="standard input is closed"):
        read_queries(Path("-"))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_file_of_queries_in_another_encoding_is_an_error(
    library: tuple[Path, Path], tmp_path: Path, encoding: str
) -> None:
    file = tmp_path / "queries"
    file.write_text("a red car\n", encoding)
    ran = run("search", "--queries", file, "--json", "--index", library[1])
    assert ran.returncode == 1
    assert "UTF-16" in ran.stderr


@pytest.mark.parametrize("query", ["\u7ea2\u00e9\U0001f41f", "caf\u00e9 \u201cred\u201d"])
def test_an_ascii_terminal_gets_ascii(library: tuple[Path, Path], query: str) -> None:
    at = ("--index", library[1])
    ran = run("search", query, *at, "--json", encoding="ascii")
    assert json.loads(ran.stdout)["query"] == query
    text = run("search", query, *at, encoding="ascii")
    assert text.returncode == 0
    assert text.stdout
    refused = run("search", query, *at, "--label", query, encoding="ascii")
    assert refused.returncode == 1
    assert r"\xe9" in refused.stderr


def test_an_argument_that_is_not_utf8_is_an_error(library: tuple[Path, Path]) -> None:
    ran = run("search", "caf\udce9 red fish", "--index", library[1])
    assert ran.returncode == 1
    assert 'the query, "caf? red fish", has bytes that are not UTF-8' in ran.stderr
    for command in (["label"], ["forget"], ["search", "red", "--in"]):
        ran = run(*command, "/caf\udce9", "--index", library[1])
        assert ran.returncode == 1
        assert r"/caf\udce9" in ran.stderr


def test_arguments_of_bytes_and_an_ascii_terminal() -> None:
    """In a process of its own: the arguments and the terminal are bytes only there."""
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "LANG": "C", "LC_ALL": "C"}
    command = [sys.executable, "-m", "scanonce.ui.cli", "status", "--index"]
    arguments = [*map(str.encode, command), "/n\u00e9".encode() + b"\xe9\x1b[2J"]
    ran = subprocess.run(arguments, cwd=ROOT, env=env, capture_output=True, check=False)
    assert ran.returncode == 1
    assert rb"there is no index at /n\xe9\udce9\x1b[2J" in ran.stderr


def test_a_message_of_several_lines_keeps_its_own_lines_only(tmp_path: Path) -> None:
    error = ConfigError("one\nname:", "  two")
    assert str(error) == "one\nname:\n  two"
    config = tmp_path / "a\nb.toml"
    config.write_text("[models]\nencoder = 7\nno_such = 1\n")
    ran = run("doctor", "--config", config)
    first, *rest = ran.stderr.splitlines()
    assert first == f"scanonce: configuration {tmp_path}/a\\nb.toml:"
    assert len(rest) == 2


@pytest.mark.parametrize("argument", ["config", "--help"])
def test_a_reader_that_has_enough_ends_the_command_quietly(argument: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)  # as `head` does
    command = [sys.executable, "-c", "from scanonce.ui.cli import main; main()", argument]
    try:
        ran = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    finally:
        os.close(writer)
    assert (ran.returncode, ran.stderr) == (0, "")
