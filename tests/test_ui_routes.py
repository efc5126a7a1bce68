"""Media are served by id and in ranges, safe against any file name, and made once for any number of requests."""

import io
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import psutil
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from scanonce.media import cut as transcode
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.catalog.entries import Content, FileStamp
from scanonce.storage.errors import VideoError
from scanonce.storage.layout import IndexLayout
from scanonce.storage.records import VideoInfo
from scanonce.storage.stores.thumbnails import Thumbnails, ThumbnailStore
from scanonce.ui.server import cache as caching
from scanonce.ui.server import routes as media
from scanonce.ui.server.cache import ProxyCache
from scanonce.ui.server.playback import media_facts, playback
from scanonce.ui.server.routes import Media, content_disposition, placeholder
from tests.videos import TestVideo, read_number, write_video

INFO = VideoInfo(3.0, 128, 96, 30.0, "h264")
JPEGS = [f"jpeg {number}".encode() for number in range(3)]


@dataclass
class Site:
    """A library of four videos and its server."""

    client: TestClient
    layout: IndexLayout
    cache: ProxyCache
    media: Media
    films: Path
    video: TestVideo

    def videos(self) -> dict[str, Any]:
        with Catalog.open(self.layout.catalog, read_only=True) as catalog:
            return {video.path.name: video for video in catalog.videos()}

    def id(self, name: str) -> int:
        return int(self.videos()[name].video_id)


def _add(catalog: Catalog, uid: str, path: Path, *, seconds: float = 3.0) -> int:
    size = path.stat().st_size if path.exists() else 1
    content = Content(uid, uid, size)
    return catalog.record_indexed(
        content,
        [FileStamp(path, size, 0)],
        state="indexed",
        duration_seconds=seconds,
        num_frames=3,
        info=INFO,
    )


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    films = tmp_path / "films"
    films.mkdir()
    video = write_video(films / "night.mp4", num_frames=90, with_audio=True)
    write_video(films / "old.avi", num_frames=90, codec="mpeg4")
    (films / "broken.mp4").write_bytes(b"no video" * 500)
    layout = IndexLayout(tmp_path / "index")
    layout.root.mkdir()
    with Catalog.open(layout.catalog) as catalog:
        catalog.add_library(films)
        _add(catalog, "aa01", video.path)
        _add(catalog, "aa02", films / "old.avi")
        _add(catalog, "aa03", films / "gone.mp4")
        _add(catalog, "aa05", films / "broken.mp4")
        stamp = FileStamp(films / "bad.mp4", 1, 0)
        catalog.record_failed([stamp], "it has no frames", content=Content("aa04", "aa04", 1))
    store = ThumbnailStore(layout.thumbnails)
    store.write("aa01", Thumbnails(np.array([0.0, 1.0, 2.0]), tuple(JPEGS)))
    cache = ProxyCache(layout.root / "cache")
    served = Media(layout, cache)
    with TestClient(Starlette(routes=served.routes())) as client:
        yield Site(client, layout, cache, served, films, video)
    cache.close()
    served.close()


def _until_ready(site: Site, url: str) -> dict[str, Any]:
    for _ in range(2400):
        state: dict[str, Any] = site.client.get(f"{url}/state").json()
        if state["state"] != "making":
            return state
        time.sleep(0.05)
    raise AssertionError("it took too long")


# ---------------------------------------------------------------- ids and addresses

KINDS = (
    "/media/videos/{id}",
    "/media/proxies/{id}",
    "/media/proxies/{id}/state",
    "/media/thumbs/{id}/0.jpg",
    "/media/frames/{id}/0.jpg",
    "/media/clips/{id}/0-1000.mp4",
    "/media/clips/{id}/0-1000.mp4/state",
)
FORGED = (
    *("0", "99", "-1", "1.0", "1e3", "+1", " 1", "%201", "1%00", "0x1", "١", "²", "null", "true"),
    *("9223372036854775808", "99999999999999999999", "9" * 5000, "1;2", "1 OR 1=1", "'"),
    *("..", "../1", "%2e%2e", "..%2f1", "%2e%2e%2fetc%2fpasswd", "/etc/passwd", "night.mp4"),
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("forged", FORGED, ids=range(len(FORGED)))
def test_a_forged_id_is_not_found(site: Site, kind: str, forged: str) -> None:
    response = site.client.get(kind.replace("{id}", forged))
    assert response.status_code == 404
    assert not response.content.startswith(b"\0")


@pytest.mark.parametrize(
    "path",
    [
        "/media/",
        "/media/videos",
        "/media/videos/1/",
        "/media/videos/1/..",
        "/media/videos/..%2f..%2fetc%2fpasswd",
        "/media/%2e%2e/%2e%2e/etc/passwd",
        "/media//etc/passwd",
        "/media/videos/%00",
        "/media/thumbs/1/..%2f..%2f0.jpg",
        "/media/thumbs/1/-1.jpg",
        "/media/thumbs/1/1.5.jpg",
        "/media/thumbs/1/0.png",
        "/media/frames/1/999999999.jpg",
        "/media/clips/1/a-b.mp4",
        "/media/clips/1/-5-10.mp4",
        "/media/clips/1/0-1000.mp4/../../../x",
    ],
)
def test_other_addresses_are_not_found(site: Site, path: str) -> None:
    assert site.client.get(path).status_code == 404


def test_nothing_can_be_written(site: Site) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert site.client.request(method, "/media/videos/1").status_code == 405


def test_before_the_first_run_nothing_is_found(tmp_path: Path) -> None:
    cache = ProxyCache(tmp_path / "cache")
    served = Media(IndexLayout(tmp_path), cache)
    with TestClient(Starlette(routes=served.routes())) as client:
        assert client.get("/media/videos/1").status_code == 404
    assert list(tmp_path.iterdir()) == []
    served.close()
    cache.close()


# ---------------------------------------------------------------- videos


@pytest.fixture
def url(site: Site) -> str:
    return f"/media/videos/{site.id('night.mp4')}"


def test_a_video_comes_whole_with_its_type(site: Site, url: str) -> None:
    response = site.client.get(url)
    assert response.status_code == 200
    assert response.content == site.video.path.read_bytes()
    assert response.headers["content-type"] == "video/mp4"
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "private, no-cache"
    head = site.client.head(url)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(response.content))


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-99", 0, 99),
        ("bytes=100-199", 100, 199),
        ("bytes=500-", 500, None),
        ("bytes=-100", -100, None),
        ("bytes=-999999999", 0, None),
        ("bytes=100-999999999999", 100, None),
        ("BYTES = 7-7", 7, 7),
    ],
)
def test_a_range_is_served(site: Site, url: str, asked: str, first: int, last: int | None) -> None:
    data = site.video.path.read_bytes()
    first = first % len(data) if first < 0 else first
    last = len(data) - 1 if last is None else last
    response = site.client.get(url, headers={"Range": asked})
    assert response.status_code == 206
    assert response.content == data[first : last + 1]
    assert response.headers["content-range"] == f"bytes {first}-{last}/{len(data)}"
    assert response.headers["content-length"] == str(last + 1 - first)


@pytest.mark.parametrize("asked", ["bytes=99999999-", "bytes=99999999-999999999", "bytes=-0"])
def test_a_range_beyond_the_file_is_refused_with_its_size(site: Site, url: str, asked: str) -> None:
    response = site.client.get(url, headers={"Range": asked})
    assert response.status_code == 416
    assert response.headers["content-range"] == f"bytes */{site.video.path.stat().st_size}"


@pytest.mark.parametrize(
    "asked",
    ["bytes=a-b", "bytes=5-2", "bytes", "lines=0-5", "bytes=", "bytes=--5", "bytes=" + "9" * 5000],
)
def test_a_malformed_range_is_no_error_of_the_server(site: Site, url: str, asked: str) -> None:
    response = site.client.get(url, headers={"Range": asked})
    assert response.status_code in (200, 400, 416)


def test_several_ranges_come_in_parts_and_overlaps_only_once(site: Site, url: str) -> None:
    data = site.video.path.read_bytes()
    response = site.client.get(url, headers={"Range": "bytes=0-9,20-29"})
    assert response.status_code == 206
    assert response.headers["content-type"].startswith("multipart/byteranges")
    assert data[:10] in response.content
    assert data[20:30] in response.content
    many = "bytes=" + ",".join(["0-"] * 90)
    response = site.client.get(url, headers={"Range": many})
    assert len(response.content) == len(data)


def test_a_changed_file_is_not_continued(site: Site, url: str) -> None:
    tag = site.client.get(url).headers["etag"]
    ask = {"Range": "bytes=0-9", "If-Range": tag}
    assert site.client.get(url, headers=ask).status_code == 206
    os.utime(site.video.path, (1, 1))
    assert site.client.get(url, headers=ask).status_code == 200


def test_an_offline_file_is_not_found_and_says_why(site: Site) -> None:
    for kind in ("videos/{}", "frames/{}/0.jpg"):
        response = site.client.get("/media/" + kind.format(site.id("gone.mp4")))
        assert response.status_code == 404
        assert response.headers["content-type"].startswith("text/plain")
        assert "offline" in response.text
        assert "gone.mp4" in response.text
        assert str(site.films) not in response.text
    state = _wait_for_proxy(site, "gone.mp4")
    assert state["state"] == "failed"
    assert "offline" in state["reason"]


def test_a_failed_video_is_not_found_and_says_why(site: Site) -> None:
    response = site.client.get(f"/media/videos/{site.id('bad.mp4')}")
    assert response.status_code == 404
    assert response.text == "this video could not be read: it has no frames"


def test_a_folder_or_pipe_in_place_of_a_file_is_not_served(site: Site, url: str) -> None:
    site.video.path.unlink()
    os.mkfifo(site.video.path)
    assert site.client.get(url).status_code == 404
    site.video.path.unlink()
    site.video.path.mkdir()
    assert site.client.get(url).status_code == 404


def test_a_second_file_of_a_video_replaces_a_missing_first(site: Site, url: str) -> None:
    copy = site.films / "z-copy.mp4"
    copy.write_bytes(site.video.path.read_bytes())
    with Catalog.open(site.layout.catalog) as catalog:
        catalog.attach_file(site.id("night.mp4"), FileStamp(copy, copy.stat().st_size, 0))
    site.video.path.unlink()
    assert site.client.get(url).content == copy.read_bytes()


def test_memory_stays_flat_with_a_large_file(site: Site) -> None:
    large = site.films / "large.mp4"
    with large.open("wb") as file:
        file.truncate(1 << 30)
    with Catalog.open(site.layout.catalog) as catalog:
        number = _add(catalog, "aa10", large)
    process = psutil.Process()
    site.client.get(f"/media/videos/{number}", headers={"Range": "bytes=0-9"})
    before = process.memory_info().rss
    for start in (0, 500 << 20, (1 << 30) - (8 << 20)):
        asked = {"Range": f"bytes={start}-{start + (8 << 20) - 1}"}
        assert len(site.client.get(f"/media/videos/{number}", headers=asked).content) == 8 << 20
    assert process.memory_info().rss - before < 100 << 20


# ---------------------------------------------------------------- images


def test_a_thumbnail_is_the_last_one_before_and_may_be_cached(site: Site) -> None:
    number = site.id("night.mp4")
    response = site.client.get(f"/media/thumbs/{number}/1900.jpg")
    assert response.content == JPEGS[1]
    assert response.headers["content-type"] == "image/jpeg"
    assert "max-age=86400" in response.headers["cache-control"]
    tag = response.headers["etag"]
    assert "aa01" in tag
    again = site.client.get(f"/media/thumbs/{number}/1900.jpg", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")


def test_without_a_thumbnail_there_is_a_placeholder_that_is_not_cached(
    site: Site,
) -> None:
    for name in ("old.avi", "gone.mp4", "bad.mp4"):
        response = site.client.get(f"/media/thumbs/{site.id(name)}/0.jpg")
        assert (response.status_code, response.content) == (200, placeholder())
        assert "no-cache" in response.headers["cache-control"]
    assert Image.open(io.BytesIO(placeholder())).size == (240, 135)


def test_damaged_thumbnails_break_no_page(site: Site) -> None:
    ThumbnailStore(site.layout.thumbnails).path("aa01").write_bytes(b"damaged")
    response = site.client.get(f"/media/thumbs/{site.id('night.mp4')}/0.jpg")
    assert (response.status_code, response.content) == (200, placeholder())


def test_a_frame_is_decoded_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[float] = []

    def counted(source: Path, seconds: float, width: int) -> bytes:
        calls.append(seconds)
        return transcode.frame_jpeg(source, seconds, width)

    monkeypatch.setattr(media, "frame_jpeg", counted)
    for _ in range(3):
        response = site.client.get(f"/media/frames/{site.id('night.mp4')}/1033.jpg")
        assert response.status_code == 200
    assert read_number(np.asarray(Image.open(io.BytesIO(response.content)))) == 31
    assert calls == [1.033]


def test_a_frame_of_a_broken_file_is_refused_with_a_message(site: Site) -> None:
    response = site.client.get(f"/media/frames/{site.id('broken.mp4')}/0.jpg")
    assert response.status_code == 422
    assert "not a video" in response.text


# ---------------------------------------------------------------- clips


def test_a_clip_is_cut_and_kept(site: Site, tmp_path: Path) -> None:
    url = f"/media/clips/{site.id('night.mp4')}/500-1500.mp4"
    assert site.client.get(f"{url}/state").json()["state"] == "absent"
    response = site.client.get(url)
    assert response.status_code == 200
    assert response.headers["content-type"] == "video/mp4"
    assert response.headers["cache-control"] == "private, no-store"
    assert 'filename="night 0h00m00.500-0h00m01.500.mp4"' in response.headers["content-disposition"]
    (tmp_path / "clip.mp4").write_bytes(response.content)
    facts = transcode.probe(tmp_path / "clip.mp4")
    assert facts.duration_seconds == pytest.approx(1.0, abs=0.02)
    assert facts.audio_codec == "aac"
    assert site.client.get(f"{url}/state").json() == {
        "state": "ready",
        "progress": 1.0,
        "reason": None,
    }
    assert site.client.get(url).content == response.content


@pytest.mark.parametrize("span", ["5-5", "10-5", "0-3100", "3001-3002", "0-999999999"])
def test_a_clip_outside_the_video_is_refused(site: Site, span: str) -> None:
    response = site.client.get(f"/media/clips/{site.id('night.mp4')}/{span}.mp4")
    assert response.status_code == 400
    assert "3001 ms" in response.text


def test_a_clip_is_at_most_ten_minutes(site: Site) -> None:
    with Catalog.open(site.layout.catalog) as catalog:
        number = _add(catalog, "aa11", site.films / "long.mp4", seconds=5000.0)
    response = site.client.get(f"/media/clips/{number}/0-600001.mp4")
    assert response.status_code == 400
    assert "10 minutes" in response.text


def test_a_clip_that_cannot_be_cut_says_why(site: Site) -> None:
    response = site.client.get(f"/media/clips/{site.id('broken.mp4')}/0-1000.mp4")
    assert response.status_code == 422
    assert "not a video" in response.text


NAMES = [
    "plain.mp4",
    "caf\u00e9 \u96ea.mp4",
    '"; filename="evil.exe".mp4',
    "<script>alert(1)</script>.mp4",
    "a\r\nSet-Cookie: x=1.mp4",
    "..\\..\\x.mp4",
    "\udcff\udc80.mp4",
    "a" * 240 + ".mp4",
    ".mp4",
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_name_cannot_break_out_of_the_header(name: str) -> None:
    header = content_disposition(name)
    assert header.isascii()
    assert header.isprintable()
    message = Message()
    message["Content-Disposition"] = header
    assert message.get_content_disposition() == "attachment"
    pattern = r"attachment; filename=\"([A-Za-z0-9 ._()+-]+)\"; filename\*=UTF-8''([^;\"]+)"
    found = re.fullmatch(pattern, header)
    assert found
    assert not set(unquote(found[2])) & set("/\\\r\n")
    assert len(unquote(found[2])) <= 130


def test_a_file_with_script_in_its_name_is_served_as_a_video(site: Site) -> None:
    path = site.films / "<img src=x onerror=alert(1)>\n.mp4"
    path.write_bytes(site.video.path.read_bytes())
    with Catalog.open(site.layout.catalog) as catalog:
        number = _add(catalog, "aa12", path)
    response = site.client.get(f"/media/videos/{number}")
    assert response.headers["content-type"] == "video/mp4"
    assert not any("onerror" in value for value in response.headers.values())
    clip = site.client.get(f"/media/clips/{number}/0-100.mp4")
    assert "<" not in clip.headers["content-disposition"]
    path.unlink()
    gone = site.client.get(f"/media/videos/{number}")
    assert gone.headers["content-type"].startswith("text/plain")
    assert gone.headers["x-content-type-options"] == "nosniff"


# ---------------------------------------------------------------- proxies


def _wait_for_proxy(site: Site, name: str) -> dict[str, Any]:
    url = f"/media/proxies/{site.id(name)}"
    assert site.client.get(url).status_code in (202, 422)
    return _until_ready(site, url)


def test_a_proxy_is_made_on_demand_and_served_in_ranges(site: Site) -> None:
    url = f"/media/proxies/{site.id('old.avi')}"
    assert site.client.get(f"{url}/state").json()["state"] == "absent"
    first = site.client.get(url)
    assert first.status_code == 202
    assert first.json()["state"] == "making"
    assert first.headers["retry-after"] == "1"
    assert _until_ready(site, url)["state"] == "ready"
    whole = site.client.get(url)
    assert whole.status_code == 200
    assert whole.headers["content-type"] == "video/mp4"
    part = site.client.get(url, headers={"Range": "bytes=10-19", "If-Range": whole.headers["etag"]})
    assert (part.status_code, part.content) == (206, whole.content[10:20])


def test_a_proxy_that_cannot_be_made_says_why(site: Site) -> None:
    state = _wait_for_proxy(site, "broken.mp4")
    assert state["state"] == "failed"
    assert "not a video" in state["reason"]
    response = site.client.get(f"/media/proxies/{site.id('broken.mp4')}")
    assert response.status_code == 422
    assert response.json() == state


def test_playback_is_direct_if_browsers_can_and_by_proxy_if_not(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = site.videos()
    direct = playback(videos["night.mp4"], site.cache)
    assert (direct.url, direct.state_url, direct.note) == ("/media/videos/1", None, None)
    proxy = playback(videos["old.avi"], site.cache)
    assert (proxy.url, proxy.state_url) == ("/media/proxies/2", "/media/proxies/2/state")
    assert "mpeg4" in str(proxy.note)
    with pytest.raises(VideoError, match="offline"):
        playback(videos["gone.mp4"], site.cache)
    monkeypatch.setattr("scanonce.ui.server.playback.probe", None)  # it is remembered
    assert playback(videos["old.avi"], site.cache) == proxy
    remembered = site.cache.folder / "facts-aa02.json"
    assert json.loads(remembered.read_text())["container"] == "avi"
    assert media_facts(videos["old.avi"], site.cache).container == "avi"


# ---------------------------------------------------------------- the cache


def _writer(size: int, calls: list[str] | None = None, wait: Any = None) -> caching.Make:
    def make(out: Path, progress: Any, cancel: threading.Event) -> None:
        if calls is not None:
            calls.append(out.stem)
        progress(0.5)
        if wait is not None:
            wait(cancel)
        out.write_bytes(b"x" * size)

    return make


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ProxyCache]:
    cache = ProxyCache(tmp_path / "cache", max_bytes=1000)
    yield cache
    cache.close()


def test_a_file_is_made_once_for_many_requests(store: ProxyCache) -> None:
    calls: list[str] = []
    make = _writer(10, calls, lambda _: time.sleep(0.1))
    with ThreadPoolExecutor(8) as pool:
        states = list(pool.map(lambda _: store.wait("a", make), range(8)))
    assert calls == ["a"]
    assert {state.state for state in states} == {"ready"}


def test_the_least_recently_used_file_goes_first(store: ProxyCache) -> None:
    for age, key in enumerate(("a", "b", "c")):
        store.wait(key, _writer(300))
        os.utime(store.path(key), (1000 + age, 1000 + age))
    assert store.acquire("a") is not None  # used just now
    store.release("a")
    store.wait("d", _writer(300))
    assert store.size_bytes() <= 1000
    assert [store.state(key).state for key in "abcd"] == ["ready", "absent", "ready", "ready"]


def test_a_file_in_use_stays(store: ProxyCache) -> None:
    store.wait("a", _writer(600))
    path = store.acquire("a")
    assert path is not None
    os.utime(path, (1, 1))
    store.wait("b", _writer(600))
    assert path.exists()
    store.release("a")
    store.wait("c", _writer(300))
    assert not path.exists()
    assert store.size_bytes() == 900


def test_progress_is_reported_and_making_can_be_cancelled(store: ProxyCache) -> None:
    def until_cancelled(cancel: threading.Event) -> None:
        assert cancel.wait(600)
        raise VideoError("it was cancelled")

    store.start("a", _writer(10, wait=until_cancelled))
    while store.state("a").progress < 0.5:
        time.sleep(0.01)
    assert store.state("a").state == "making"
    store.cancel("a")
    assert store.state("a").reason == "it was cancelled"


@pytest.mark.usefixtures("reports")
def test_a_failure_is_reported_for_a_while_and_then_tried_again(
    store: ProxyCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(out: Path, progress: Any, cancel: threading.Event) -> None:
        raise ZeroDivisionError("odd")

    assert store.wait("a", fail).state == "failed"
    assert store.start("a", _writer(1)).state == "failed"
    assert "odd" in str(store.state("a").reason)
    monkeypatch.setattr(caching, "_FAILED_FOR_SECONDS", 0.0)
    assert store.wait("a", _writer(1)).state == "ready"


def test_a_read_only_index_says_so_and_serves_what_it_has(
    store: ProxyCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    store.wait("a", _writer(10))
    monkeypatch.setattr(os, "utime", refuse)
    assert store.acquire("a") == store.path("a")
    assert store.acquire("b") is None
    reason = str(store.wait("b", refuse).reason)
    assert reason.startswith(f"nothing can be written to {store.folder} (Permission denied): make")
    monkeypatch.setattr(Path, "mkdir", refuse)
    assert store.wait("c", _writer(1)).reason == reason


def test_closing_stops_making_files(tmp_path: Path) -> None:
    cache = ProxyCache(tmp_path / "cache")
    was_stopped: list[bool] = []
    for key in ("a", "b"):
        cache.start(key, _writer(10, wait=lambda cancel: was_stopped.append(cancel.wait(600))))
    while cache.state("a").progress < 0.5:
        time.sleep(0.01)
    cache.close()
    assert was_stopped == [True], "the second waited for the first, and is not begun"
    assert cache.start("c", _writer(10)).state == "absent"


def test_leftovers_of_a_crash_are_deleted(tmp_path: Path) -> None:
    old, new = tmp_path / ".tmp-old.mp4", tmp_path / ".tmp-new.mp4"
    old.touch()
    new.touch()
    os.utime(old, (1, 1))
    ProxyCache(tmp_path).close()
    assert [path.name for path in tmp_path.iterdir()] == [new.name]
