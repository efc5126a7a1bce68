"""The same queries get the same moments through Python, the command line, a server beside it, HTTP and MCP."""

import asyncio
import base64
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from mcp import Client
from mcp_types import CallToolResult, EmbeddedResource, ImageContent, TextContent
from PIL import Image

from scanonce.search.filters import Filter, filter_json
from scanonce.storage.errors import QueryError
from scanonce.ui.config_file import config_values
from scanonce.ui.mcp_server import build_mcp, mcp_app
from scanonce.ui.resident import answering, ask, settings_digest
from scanonce.ui.server.server import build_app, listen, uvicorn_settings
from scanonce.ui.views import result_json
from tests.command import ROOT, scanonce
from tests.doors import Doors, open_doors

WORDS = ("red", "green", "white", "black", "blue")
QUERIES = [
    *WORDS,
    *(f"a {word} {noun}" for word in WORDS for noun in ("picture", "car", "wall")),
    *(f"{one} {operator} {other}" for one in WORDS for other in WORDS if one != other
      for operator in ("|", "&", "then")),
    *(f"{one} -{other}" for one in WORDS for other in WORDS if one != other),
]  # fmt: skip
"""One hundred."""
FILTERED = Filter(min_seconds=10.0)


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with open_doors(tmp_path_factory.mktemp("doors")) as opened:
        yield opened


def plain(found: dict[str, Any]) -> dict[str, Any]:
    """An answer without the times that it took."""
    return {name: value for name, value in found.items() if name != "timings_ms"}


@pytest.fixture(scope="module")
def expected(doors: Doors) -> list[dict[str, Any]]:
    """What Python answers."""
    return [plain(result_json(doors.library.search(text, top=5))) for text in QUERIES]


def test_the_queries_are_a_hundred_and_find_different_moments(
    expected: list[dict[str, Any]],
) -> None:
    assert len(set(QUERIES)) == len(expected) == 100
    assert len({json.dumps(each["moments"]) for each in expected}) > 40


def test_the_command_line_answers_as_python(
    doors: Doors, expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    file = tmp_path / "queries.txt"
    file.write_text("\n".join(QUERIES))
    run = scanonce("search", "--queries", file, "--top", 5, "--json", "--index", doors.layout.root)
    assert [plain(json.loads(line)) for line in run.stdout.splitlines()] == expected
    alone = scanonce("search", QUERIES[0], "--top", 5, "--json", "--index", doors.layout.root)
    assert plain(json.loads(alone.stdout)) == with_coverage(doors, expected[0])


def with_coverage(doors: Doors, answer: dict[str, Any]) -> dict[str, Any]:
    """An answer as `search` gives it to one query: with how much of the library matches, if all moments are good."""
    covered = doors.service.search(answer["query"], top=5).covered
    if covered is None:
        return answer
    found = result_json(doors.library.search(answer["query"], top=5), covered=covered)
    return plain(found)


def test_http_answers_as_python(doors: Doors, expected: list[dict[str, Any]]) -> None:
    answers = [
        doors.client.post("/api/v1/search", json={"text": text, "top": 5}).json()
        for text in QUERIES
    ]
    assert [{**plain(each), "coverage": None} for each in answers] == [
        {**each, "coverage": None} for each in expected
    ]
    assert plain(answers[0]) == with_coverage(doors, expected[0])


def test_a_server_answers_the_command_line_as_python(
    doors: Doors, expected: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = settings_digest(config_values())
    with answering(doors.service, None, print):
        for text, answer in zip(QUERIES, expected, strict=True):
            remote = ask(doors.layout.root, digest, {"text": text, "top": 5, "filter": {}})
            assert remote is not None
            assert plain(result_json(remote.result)) == answer
        assert (
            ask(doors.layout.root, "other settings", {"text": "red", "top": 5, "filter": {}})
            is None
        )
        with pytest.raises(QueryError, match="empty"):
            ask(doors.layout.root, digest, {"text": " ", "top": 5, "filter": {}})
        with pytest.raises(QueryError, match="no video has the label"):
            ask(doors.layout.root, digest, {"text": "red", "top": 5, "filter": {"labels": ["x"]}})
        only = filter_json(FILTERED)
        remote = ask(doors.layout.root, digest, {"text": "red", "top": 5, "filter": only})
        assert remote is not None
        assert remote.result.num_videos == 2
        # a command that a server answers loads no model
        monkeypatch.setattr("scanonce.ui.config.Config.library", None)
        run = scanonce("search", "red", "--top", 5, "--json", "--index", doors.layout.root)
        assert plain(json.loads(run.stdout)) == with_coverage(doors, expected[0])
    assert not (doors.layout.root / "serve.sock").exists()
    assert ask(doors.layout.root, digest, {"text": "red", "top": 5, "filter": {}}) is None


def test_a_command_that_a_server_answers_imports_nothing_heavy(doors: Doors) -> None:
    code = (
        "import sys; from scanonce.ui.cli import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "print('HEAVY', sorted(set('torch faiss sqlalchemy transformers fastapi starlette numpy av PIL streamlit mcp'"
        ".split()) & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, "search", "red", "--longer", "10", "--index"]
    with answering(doors.service, None, print):
        run = subprocess.run(
            [*command, str(doors.layout.root)], cwd=ROOT, capture_output=True, text=True, check=True
        )
    *moments, heavy = run.stdout.splitlines()
    assert moments
    assert heavy == "HEAVY []"


# ---------------------------------------------------------------- assistants


def call(
    doors: Doors, *calls: tuple[str, dict[str, Any]], clips: Path | None = None
) -> list[CallToolResult]:
    """Call tools of the MCP server with the client of the SDK."""

    async def run() -> list[CallToolResult]:
        async with Client(build_mcp(doors.service, doors.cache, clips)) as client:
            return [await client.call_tool(name, values) for name, values in calls]

    return asyncio.run(run())


def test_mcp_answers_as_python(doors: Doors, expected: list[dict[str, Any]]) -> None:
    answers = call(doors, *(("search", {"text": text, "top": 5}) for text in QUERIES))
    found = [each.structured_content for each in answers]
    assert [{**plain(each or {}), "coverage": None} for each in found] == [
        {**each, "coverage": None} for each in expected
    ]


def test_an_assistant_looks_reads_lists_and_cuts(doors: Doors, tmp_path: Path) -> None:
    video = doors.id("two-reds")
    span = {"video_id": video, "start_seconds": 8.0, "end_seconds": 12.0}
    looked, read, listed, cut, wrong = call(
        doors,
        ("look", {**span, "count": 2}),
        ("transcript", {"video_id": video}),
        ("videos", {"name": "two-reds"}),
        ("cut", span),
        ("look", {**span, "video_id": 999}),
    )
    pictures = [each for each in looked.content if isinstance(each, ImageContent)]
    assert len(pictures) == 2
    for each in pictures:
        Image.open(BytesIO(base64.b64decode(each.data))).verify()
    assert read.structured_content == {"lines": [], "num_lines": 0}
    assert (listed.structured_content or {})["videos"][0]["video_id"] == video
    (clip,) = cut.content
    assert isinstance(clip, EmbeddedResource)
    assert base64.b64decode(clip.resource.model_dump()["blob"])[4:8] == b"ftyp"
    assert wrong.is_error
    assert isinstance(wrong.content[0], TextContent)
    assert "there is no video 999" in wrong.content[0].text
    (saved,) = call(doors, ("cut", span), clips=tmp_path / "clips")
    assert isinstance(saved.content[0], TextContent)
    path = Path(json.loads(saved.content[0].text)["path"])
    assert path.parent == tmp_path / "clips"
    assert path.read_bytes()[4:8] == b"ftyp"


def test_mcp_over_http_needs_a_token_with_both_scopes(doors: Doors) -> None:
    from starlette.testclient import TestClient

    app = mcp_app(
        build_mcp(doors.service, doors.cache),
        doors.tokens,
        host="127.0.0.1",
        names=frozenset({"localhost"}),
    )
    asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    accept = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-06-18"}
    secret = doors.tokens.add("reader", ["read"])
    both = doors.tokens.add("assistant", ["read", "export"])
    with TestClient(app, base_url="http://localhost:8502") as client:

        def status(**headers: str) -> int:
            return int(client.post("/mcp", json=asked, headers={**accept, **headers}).status_code)

        assert status() == 401
        assert status(Authorization=f"Bearer {secret}") == 403
        assert status(Authorization=f"Bearer {both}", Host="evil.example") == 421
        assert status(Authorization=f"Bearer {both}", Origin="http://evil.example") == 403
        answer = client.post(
            "/mcp", json=asked, headers={**accept, "Authorization": f"Bearer {both}"}
        )
        assert answer.status_code == 200, answer.text
        tools = {each["name"] for each in answer.json()["result"]["tools"]}
        assert tools == {"search", "look", "transcript", "videos", "cut"}


# ---------------------------------------------------------------- documents


def test_the_examples_of_the_documents_work(doors: Doors, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not on this machine")
    examples = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/api.md").read_text(), re.DOTALL)
    assert len(examples) == 8
    Image.new("RGB", (64, 48), "red").save(tmp_path / "photo.jpg")
    app = build_app(doors.service, with_pages=False)
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", **uvicorn_settings()))
    listening = listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        port = listening.getsockname()[1]
        secret = doors.tokens.add("curl", ["read", "export", "write"])
        names = {"API": f"http://127.0.0.1:{port}/api/v1", "TOKEN": secret}
        shown = [
            subprocess.run(
                ["bash", "-c", example.replace("curl ", "curl --fail-with-body --max-time 60 ", 1)],
                cwd=tmp_path,
                env={**os.environ, **names},
                check=False,
                capture_output=True,
                text=True,
            )
            for example in examples
        ]
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
    assert [each.returncode for each in shown] == [0] * 8, shown
    assert json.loads(shown[0].stdout)["moments"]
    assert "[photo.jpg]" in shown[1].stdout
    Image.open(tmp_path / "picture.jpg").verify()
    assert (tmp_path / "clip.mp4").read_bytes()[4:8] == b"ftyp"
    assert "* LOC: 01:00:00:00 RED     a car" in shown[5].stdout
    assert json.loads(shown[6].stdout)["added"] == 1
    assert "event: run" in shown[7].stdout
