"""The HTTP API: what each address answers, who is let in, and that nothing it is sent makes it fail."""

import asyncio
import hmac
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from PIL import Image
from schemathesis.core.result import Ok
from starlette.testclient import TestClient

from scanonce.search.engine import SearchEngine
from scanonce.storage.errors import ConfigError
from scanonce.ui import jobs
from scanonce.ui.api.limits import BodyTime, Lane, TooBusy, TooSlow
from scanonce.ui.api.tokens import SCOPES, Tokens
from tests.colours import COLOURS
from tests.doors import Doors, open_doors

API = "/api/v1"


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with open_doors(tmp_path_factory.mktemp("api")) as opened:
        yield opened


def post(doors: Doors, path: str, **body: Any) -> Any:
    return doors.client.post(API + path, json=body)


def get(doors: Doors, path: str, **query: Any) -> Any:
    return doors.client.get(API + path, params=query)


# ---------------------------------------------------------------- finding


def test_a_search_is_answered_in_its_request_as_the_command_line_prints_it(doors: Doors) -> None:
    answer = post(doors, "/search", text="red", top=3)
    assert answer.status_code == 200
    found = answer.json()
    assert len(found["moments"]) == 3
    assert Path(found["moments"][0]["path"]).name == "two-reds.mp4"
    assert found["moments"][0]["match"] != "weak"
    assert "filter" not in found


def test_a_search_takes_the_whole_language_and_filters(doors: Doors) -> None:
    answer = post(
        doors,
        "/search",
        text="red | green",
        filter={"folders": [str(doors.layout.root.parent / "films/more")]},
    )
    found = answer.json()
    assert found["videos"] == 1
    assert "read as" in found["notes"][0]
    assert {each["video_id"] for each in found["moments"]} == {doors.id("**b**")}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"text": ""}, "empty"),
        ({"text": "a | | b"}, "|"),
        ({"text": "red", "top": 0}, "top"),
        ({"text": "red", "other": 1}, "other"),
        ({"text": "red", "filter": {"labels": ["none"]}}, "no video has the label"),
        ({"text": "red", "filter": {"folders": ["/nowhere"]}}, "no file at or below /nowhere"),
        ({"text": "red", "filter": {"folders": ["films"]}}, "absolute"),
        ({"text": "red", "filter": {"folders": ["/a\0b"]}}, "NUL"),
        ({"text": "red", "filter": {"min_seconds": 9, "max_seconds": 3}}, "no video can pass"),
    ],
)
def test_a_search_that_cannot_be_read_is_422_with_the_reason(
    doors: Doors, body: dict[str, Any], said: str
) -> None:
    answer = post(doors, "/search", **body)
    assert answer.status_code == 422
    assert said in answer.json()["error"]


def test_an_image_may_be_sent(doors: Doors) -> None:
    data = BytesIO()
    Image.new("RGB", (64, 48), COLOURS["green"]).save(data, "PNG")
    files = {"files": ("../../green\n.png", data.getvalue())}
    answer = doors.client.post(f"{API}/search/by-example", files=files, data={"top": "1"})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["moments"][0]["video_id"] == doors.id("**b**")
    assert found["query"].startswith("[")
    garbage = {"files": ("x.mp4", b"no video" * 99)}
    refused = doors.client.post(f"{API}/search/by-example", files=garbage, data={"text": "red"})
    assert refused.status_code == 422


def test_similar_moments_and_the_curve_of_a_video(doors: Doors) -> None:
    video = doors.id("two-reds")
    found = post(doors, "/similar", video_id=video, start_seconds=9, end_seconds=13).json()
    assert found["moments"][0]["video_id"] == video
    curve = get(doors, f"/videos/{video}/curve", text="red").json()
    assert len(curve["edges_seconds"]) == len(curve["scores"]) + 1
    best = curve["scores"].index(max(curve["scores"]))
    assert 8 <= curve["edges_seconds"][best] < 33
    assert get(doors, "/videos/999/curve", text="red").status_code == 404
    assert (
        post(doors, "/similar", video_id=video, start_seconds=5, end_seconds=5).status_code == 422
    )


# ---------------------------------------------------------------- videos


def test_videos_are_listed_in_pages(doors: Doors) -> None:
    first = get(doors, "/videos", count=2).json()
    assert len(first["videos"]) == 2
    rest = get(doors, "/videos", count=2, after=first["next_after"]).json()
    assert len(rest["videos"]) == 1
    assert rest["next_after"] is None
    (named,) = get(doors, "/videos", name="TWO-reds").json()["videos"]
    assert named["duration_seconds"] == pytest.approx(33, abs=0.1)


def test_thumbnails_clips_and_lines(doors: Doors) -> None:
    video = doors.id("two-reds")
    thumbnail = get(doors, f"/videos/{video}/thumbnail", seconds=9)
    assert thumbnail.headers["content-type"] == "image/jpeg"
    Image.open(BytesIO(thumbnail.content)).verify()
    clip = get(doors, f"/videos/{video}/clip", start_seconds=8, end_seconds=10)
    assert clip.status_code == 200, clip.text
    assert clip.content[4:8] == b"ftyp"
    assert "two-reds 0h00m08.000-0h00m10.000.mp4" in clip.headers["content-disposition"]
    assert get(doors, f"/videos/{video}/lines").json() == {"lines": []}
    beyond = get(doors, f"/videos/{video}/clip", start_seconds=50, end_seconds=60)
    assert beyond.status_code == 422
    assert "33" in beyond.json()["error"]


@pytest.mark.parametrize("kind", ["csv", "edl", "otio", "srt"])
def test_moments_are_exported(doors: Doors, kind: str) -> None:
    moment = {
        "video_id": doors.id("two-reds"),
        "start_seconds": 8,
        "end_seconds": 10,
        "label": "a car",
    }
    answer = post(doors, "/export", format=kind, moments=[moment])
    assert answer.status_code == 200
    assert "a car" in answer.text
    assert f".{kind}" in answer.headers["content-disposition"]


# ---------------------------------------------------------------- labels and saved searches


def test_labels_are_changed_and_counted(doors: Doors) -> None:
    video = doors.id("two-reds")
    assert post(doors, "/labels", video_ids=[video], add=["api"]).json() == {
        "added": 1,
        "removed": 0,
    }
    assert get(doors, "/labels").json() == {"labels": {"api": 1}}
    assert get(doors, "/videos", name="two").json()["videos"][0]["labels"] == ["api"]
    found = post(doors, "/search", text="red", filter={"labels": ["api"]}).json()
    assert {each["video_id"] for each in found["moments"]} == {video}
    assert post(doors, "/labels", video_ids=[video, 999], add=["x"]).status_code == 404
    assert post(doors, "/labels", video_ids=[video], remove=["api"]).json()["removed"] == 1
    assert get(doors, "/labels").json() == {"labels": {}}


def test_searches_are_saved_run_and_removed(doors: Doors) -> None:
    made = post(doors, "/saved", name="reds", text="red")
    assert made.status_code == 201
    assert made.json()["new"] > 0
    assert [each["name"] for each in get(doors, "/saved").json()["saved"]] == ["reds"]
    assert post(doors, "/saved/reds/run").json()["num_good"] > 0
    assert get(doors, "/saved").json()["saved"][0]["new"] == 0
    assert doors.client.delete(f"{API}/saved/reds").status_code == 204
    assert doors.client.delete(f"{API}/saved/reds").status_code == 422


@pytest.mark.parametrize("name", ["day/night", "a/run", "100%", "..", "? #"])
def test_a_saved_search_of_any_name_is_run_and_removed(doors: Doors, name: str) -> None:
    assert post(doors, "/saved", name=name, text="red").status_code == 201
    address = quote(name, safe="").replace(".", "%2E")
    assert post(doors, f"/saved/{address}/run").json()["num_good"] > 0
    assert doors.client.delete(f"{API}/saved/{address}").status_code == 204
    assert get(doors, "/saved").json()["saved"] == []


# ---------------------------------------------------------------- indexing


def test_a_run_is_started_followed_and_stopped_for_known_folders_only(
    doors: Doors, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    films = doors.layout.root.parent / "films"
    started: list[list[Path]] = []
    running = replace(_JOB, state="running")
    states = iter([running, running, _JOB])

    def start(index_dir: Path, paths: list[Path], **_: object) -> jobs.Job:
        started.append(paths)
        return next(states)

    monkeypatch.setattr(jobs, "start", start)
    monkeypatch.setattr(jobs, "read", lambda _: next(states))
    assert post(doors, "/index", folders=[str(films)]).status_code == 202
    events = re.findall("data: (.*)", get(doors, "/index/progress").text)
    assert [json.loads(each)["state"] for each in events] == ["running", "done"]
    for elsewhere in (
        "/etc",
        str(films / ".."),
        f"{films}/more/../..",
        "films",
        "/a\0",
        str(tmp_path),
    ):
        refused = post(doors, "/index", folders=[elsewhere])
        assert refused.status_code == 422, elsewhere
    assert started == [[films]]


def test_folders_at_an_allowed_root_may_be_indexed(doors: Doors, tmp_path: Path) -> None:
    from scanonce.ui.service import Service

    (tmp_path / "in/deep").mkdir(parents=True)
    (tmp_path / "in/out").symlink_to("/etc")
    service = Service(doors.library, roots=[tmp_path / "in"])
    assert service._allowed(str(tmp_path / "in/deep"), []) == tmp_path / "in/deep"
    for elsewhere in (tmp_path, tmp_path / "in/out", tmp_path / "in/../x"):
        with pytest.raises(ConfigError, match="may not be indexed"):
            service._allowed(str(elsewhere), [])


def test_without_a_run_there_is_nothing_to_stop(doors: Doors) -> None:
    assert get(doors, "/index").json()["state"] == "none"
    assert post(doors, "/index/stop").status_code == 409


# ---------------------------------------------------------------- who is let in


def _scopes(document: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield method, path, operation["tags"][0]


def test_every_address_needs_its_scope(doors: Doors) -> None:
    document = doors.client.get(f"{API}/openapi.json").json()
    operations = list(_scopes(document))
    assert len(operations) >= 19
    secrets = {scope: doors.tokens.add(f"only {scope}", [scope]) for scope in SCOPES}
    for method, path, scope in operations:
        for held, secret in secrets.items():
            headers = {"Authorization": f"Bearer {secret}"}
            answer = doors.client.request(
                method, path.format(video_id=1, name="x", key="x"), headers=headers
            )
            assert (answer.status_code == 403) == (held != scope), (method, path, held)
    for scope in SCOPES:
        doors.tokens.revoke(f"only {scope}")


def test_a_missing_wrong_or_revoked_token_is_refused_before_the_body_is_read(doors: Doors) -> None:
    secret = doors.tokens.add("gone", ["read"])
    refused = {
        "",
        "Bearer ",
        "Bearer x",
        f"Basic {secret}",
        f"Bearer {secret[:-1]}",
        f"Bearer {secret}x",
    }
    url = f"{API}/labels"
    assert doors.client.get(url, headers={"Authorization": f"bearer {secret}"}).status_code == 200
    doors.tokens.revoke("GONE")
    for header in (*refused, f"Bearer {secret}"):
        answer = doors.client.get(url, headers={"Authorization": header})
        assert answer.status_code == 401, header
        assert answer.headers["www-authenticate"] == "Bearer"
    unread = doors.client.post(
        f"{API}/search", content=b"x" * 5_000_000, headers={"Authorization": "Bearer x"}
    )
    assert unread.status_code == 401


def test_another_name_or_site_is_refused_with_a_good_token_too(doors: Doors) -> None:
    assert doors.client.get(f"{API}/labels", headers={"Host": "evil.example"}).status_code == 421
    assert (
        doors.client.get(f"{API}/labels", headers={"Origin": "http://evil.example"}).status_code
        == 403
    )
    crossed = {
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
    }
    assert doors.client.get(f"{API}/labels", headers=crossed).status_code == 403


def test_tokens_are_stored_as_hashes_and_checked_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = Tokens(tmp_path)
    secrets = [tokens.add(f"t{number}", ["read", "write"]) for number in range(3)]
    content = (tmp_path / "tokens.json").read_text()
    assert not any(secret in content or secret[9:] in content for secret in secrets)
    assert (tmp_path / "tokens.json").stat().st_mode & 0o077 == 0
    compared = []
    real = hmac.compare_digest

    def spy(one: str, other: str) -> bool:
        compared.append((one, other))
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", spy)
    found = [tokens.find(secret) for secret in (*secrets, "wrong")]
    assert [each and each.name for each in found] == ["t0", "t1", "t2", None]
    assert len(compared) == 12, "all stored hashes are compared, whichever is right"
    with pytest.raises(ConfigError, match="'T1'"):
        tokens.add("T1", ["read"])
    with pytest.raises(ConfigError, match="read, export, write"):
        tokens.add("new", ["all"])
    with pytest.raises(ConfigError, match="there is no token 'x'"):
        tokens.revoke("x")


def test_a_token_file_that_others_could_write_lets_nobody_in(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    secret = tokens.add("mine", ["read"])
    (tmp_path / "tokens.json").chmod(0o660)
    with pytest.raises(ConfigError, match="not yours alone"):
        tokens.find(secret)
    (tmp_path / "tokens.json").chmod(0o600)
    (tmp_path / "tokens.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        tokens.find(secret)


# ---------------------------------------------------------------- limits


def test_a_body_that_is_too_long_is_refused(doors: Doors) -> None:
    assert doors.client.post(f"{API}/search", content=b" " * 1_100_000).status_code == 413

    def pieces() -> Iterator[bytes]:
        for _ in range(30):
            yield b" " * 50_000

    assert doors.client.post(f"{API}/search", content=pieces()).status_code == 413


def test_a_body_that_never_ends_is_given_up() -> None:
    async def read(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    async def never() -> Any:
        await asyncio.Event().wait()

    async def send(_: Any) -> None:
        pytest.fail("nothing is answered here")

    async def ask() -> None:
        await BodyTime(read, seconds=0.01)({"type": "http"}, never, send)

    with pytest.raises(Exception, match="too slowly"):
        asyncio.run(ask())


def test_a_lane_refuses_what_may_not_wait_and_gives_up_what_is_slow() -> None:
    free = threading.Event()

    async def fill() -> None:
        lane = Lane("test", 1, waiting=1, seconds=60)
        first, second = (asyncio.ensure_future(lane.run(free.wait)) for _ in range(2))
        await asyncio.sleep(0)
        with pytest.raises(TooBusy):
            await lane.run(free.wait)
        free.set()
        assert await first
        assert await second
        assert await lane.run(lambda: 7) == 7
        lane.close()
        slow = Lane("slow", 1, waiting=0, seconds=0.01)
        blocked = threading.Event()
        with pytest.raises(TooSlow):
            await slow.run(blocked.wait)
        blocked.set()
        slow.close()

    asyncio.run(fill())


def test_too_much_at_once_is_429(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: object, **__: object) -> None:
        raise TooBusy

    monkeypatch.setattr(Lane, "run", full)
    answer = get(doors, "/labels")
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "1"


def test_an_error_that_nobody_expected_is_a_sentence(
    doors: Doors, monkeypatch: pytest.MonkeyPatch, reports: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret words")

    monkeypatch.setattr(SearchEngine, "search", fail)
    client = TestClient(
        doors.client.app, base_url="http://localhost:8501", raise_server_exceptions=False
    )
    answer = client.post(f"{API}/search", json={"text": "red"}, headers=doors.client.headers)
    assert answer.status_code == 500
    assert "report for the developers" in answer.json()["error"]


# ---------------------------------------------------------------- the document


def test_the_docs_page_lists_every_address_and_loads_nothing(doors: Doors) -> None:
    document = doors.client.get(f"{API}/openapi.json").json()
    page = doors.client.get(f"{API}/docs", headers={"Authorization": ""}).text
    for method, path, _ in _scopes(document):
        assert f"{method.upper()} {path}" in page
    assert not re.search(r"(src|href)=.?https?:|<script|@import", page)


_NOW = datetime.now(UTC)
_JOB = jobs.Job(1, "", (), "done", _NOW, _NOW)


def test_nothing_that_is_sent_makes_it_fail(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "start", lambda *_, **__: _JOB)
    schema = schemathesis.openapi.from_dict(doors.client.get(f"{API}/openapi.json").json())
    statuses: Counter[int] = Counter()
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)

        @settings(
            max_examples=8,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=found.ok().as_strategy())
        def check(case: Any) -> None:
            sent = case.as_transport_kwargs(base_url="http://localhost:8501")
            sent.pop("headers"), sent.pop("cookies", None)  # the client has its own token
            answer = doors.client.request(**sent)
            assert answer.status_code < 500, (sent, answer.text)
            statuses[answer.status_code] += 1

        check()
    assert statuses[200] > 10, statuses
    assert statuses.total() >= 60, statuses
