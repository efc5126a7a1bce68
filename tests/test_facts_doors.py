"""The facts of videos through every door: the same filters and the same values."""

import asyncio
import json
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from mcp import Client

from scanonce.search.filters import Filter, filter_json
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.facts import facts_of
from scanonce.ui.fact_text import fact_rows, facts_json
from scanonce.ui.mcp_server import build_mcp
from scanonce.ui.views import filter_text
from tests.command import scanonce
from tests.doors import Doors, open_doors

STATED = {
    "recorded_at": "2024-01-31T14:22:33+01:00",
    "recorded_by": "camera",
    "timecode": "10:00:00;00",
    "camera": "ACME X1",
    "place": [48.8577, 2.295],
    "rotation": 90,
    "audio": [[2, "deu", "aac"], [1, "", "pcm_s16le"]],
    "chapters": [[0, 5, "The [red] part"]],
}
DAY = date(2024, 1, 31)
FILTERS = [
    Filter(recorded_after=DAY, recorded_before=DAY),
    Filter(camera="acme"),
    Filter(near=(48.86, 2.35, 10.0)),
    Filter(near=(-33.9, 151.2, 10.0)),
    Filter(camera="other"),
]
OPTIONS: list[list[Any]] = [
    ["--after", "2024-01-31", "--before", "2024-01-31"],
    ["--camera", "acme"],
    ["--near", "48.86,2.35,10"],
    ["--near", "-33.9,151.2,10"],
    ["--camera", "other"],
]


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with open_doors(tmp_path_factory.mktemp("facts")) as opened:
        with Catalog.open(opened.layout.catalog) as catalog:
            catalog.record_facts({opened.id("two-reds"): facts_of(STATED)})
        yield opened


@pytest.mark.parametrize(("only", "options"), list(zip(FILTERS, OPTIONS, strict=True)))
def test_every_door_has_the_same_filters(doors: Doors, only: Filter, options: list[Any]) -> None:
    expected = {moment.video_id for moment in doors.library.search("red", within=only).moments}
    passes = only in FILTERS[:3]
    assert expected == ({doors.id("two-reds")} if passes else set())
    given = filter_json(only)
    answer = doors.client.post("/api/v1/search", json={"text": "red", "filter": given}).json()
    assert {moment["video_id"] for moment in answer["moments"]} == expected
    assert answer["filter"] == given
    run = scanonce("search", "red", "--json", *options, "--index", doors.layout.root)
    assert {moment["video_id"] for moment in json.loads(run.stdout)["moments"]} == expected

    async def asked() -> Any:
        async with Client(build_mcp(doors.service, doors.cache)) as client:
            return await client.call_tool("search", {"text": "red", **given})

    found = asyncio.run(asked())
    assert {moment["video_id"] for moment in found.structured_content["moments"]} == expected


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--near", "91,0,1"], "48.86,2.35,10"),
        (["--near", "here"], "48.86,2.35,10"),
        (["--near", "1,2"], "48.86,2.35,10"),
        (["--camera", ""], "1 to 100 characters"),
    ],
)
def test_a_wrong_condition_is_an_error_that_says_what_is_allowed(
    doors: Doors, options: list[str], said: str
) -> None:
    run = scanonce("search", "red", *options, "--index", doors.layout.root)
    assert run.returncode != 0
    assert said in run.stderr


@pytest.mark.parametrize("only", [{"near": [91, 0, 1]}, {"near": [1, 2]}, {"camera": ""}])
def test_the_api_refuses_a_wrong_condition(doors: Doors, only: dict[str, Any]) -> None:
    refused = doors.client.post("/api/v1/search", json={"text": "red", "filter": only})
    assert refused.status_code == 422


def test_a_list_of_videos_has_the_facts(doors: Doors) -> None:
    videos = doors.client.get("/api/v1/videos").json()["videos"]
    stated, *others = sorted(videos, key=lambda video: "two-reds" not in video["path"])
    assert {name: stated[name] for name in ("recorded_at", "recorded_by", "timecode")} == {
        "recorded_at": "2024-01-31T14:22:33+01:00",
        "recorded_by": "camera",
        "timecode": "10:00:00;00",
    }
    assert (stated["latitude"], stated["longitude"]) == (48.8577, 2.295)
    assert stated["audio"][0] == {"channels": 2, "language": "deu", "codec": "aac"}
    assert {video["recorded_by"] for video in others} == {"file"}
    assert {video["timecode"] for video in others} == {None}


def test_status_shows_one_video(doors: Doors) -> None:
    video = doors.service.video(doors.id("two-reds"))
    index = ("--index", doors.layout.root)
    found = json.loads(scanonce("status", video.path, "--json", *index).stdout)
    assert found["camera"] == "ACME X1"
    assert found["chapters"] == [
        {"start_seconds": 0.0, "end_seconds": 5.0, "title": "The [red] part"}
    ]
    assert {name: found[name] for name in facts_json(video)} == facts_json(
        doors.service.video(video.video_id)
    )
    text = scanonce("status", video.path, *index).stdout
    for part in ("2024-01-31 14:22:33 +01:00", "10:00:00;00", "ACME X1", "48.85770, 2.29500"):
        assert part in text
    for part in ("90 degrees", "aac stereo deu; pcm_s16le mono", "The [red] part"):
        assert part in text
    missing = scanonce("status", "/no/such.mp4", *index)
    assert missing.returncode == 1
    assert "the index has no video /no/such.mp4" in missing.stderr


def test_a_file_time_is_shown_as_such(doors: Doors) -> None:
    rows = fact_rows(doors.service.video(doors.id("dull")))
    assert "nothing says when it was recorded" in rows["recorded"]
    assert "timecode" not in rows


def test_the_page_says_what_is_filtered() -> None:
    only = Filter(camera="acme", near=(48.5, 2.25, 3.0))
    assert filter_text(only) == "of the camera acme, near 48.5, 2.25 (3 km)"
