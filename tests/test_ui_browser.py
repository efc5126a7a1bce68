"""The pages as a person uses them: real browser, real server, films indexed by the command line."""

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import av
import pytest

pytest.importorskip("playwright", reason="no browser test without `pip install playwright`")

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect

from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.layout import IndexLayout
from scanonce.storage.records import Line
from scanonce.training.world.films import (
    FilmSpec,
    TruthLine,
    ground_truth,
    random_library,
    render_film,
)
from scanonce.training.world.scene import FRAMES_PER_SECOND
from scanonce.ui import jobs
from tests.browser import HOW_TO_INSTALL, Watched, find_chromium, open_browser
from tests.ui_server import ROOT, Server

pytestmark = pytest.mark.skipif(find_chromium() is None, reason=HOW_TO_INSTALL)

WAIT_MS = 180_000.0
SCRIPT = "<img src=x onerror=alert(1)>"
LATER = "later.mp4"
NOWHERE = "interest rates and regret"
"""What no film shows."""
NUM_FILMS = 6
FRAME = 1 / FRAMES_PER_SECOND
FINISH_FADES = """
    document.getAnimations()
        .filter(each => Number.isFinite(each.effect.getComputedTiming().endTime))
        .forEach(each => each.finish())
"""


@dataclass(frozen=True, slots=True)
class Shown:
    """The server, its library, and the ground truth."""

    url: str
    index: Path
    films: Path
    held_back: Path
    """A film that is not in the folder at first."""
    truth: tuple[TruthLine, ...]
    """Only the queries that a single frame can answer."""
    browser: Browser

    def question(self, name: str) -> TruthLine:
        """Return the first query for a film."""
        return next(line for line in self.truth if line.path == name)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    root, home = tmp_path_factory.mktemp("library"), tmp_path_factory.mktemp("browser")
    films, index = root / "films", root / "index"
    truth = render_films(films)
    held_back = (films / LATER).rename(root / LATER)
    command = [sys.executable, "-m", "scanonce.ui.cli", "index", str(films), "--index", str(index)]
    subprocess.run(
        [*command, "--encoder", "bundled"],
        cwd=ROOT,
        env={**os.environ, "HOME": str(home)},
        check=True,
        timeout=600,
        stdout=subprocess.DEVNULL,
    )
    with Server(index, home) as server, open_browser(home) as browser:
        yield Shown(server.url, index, films, held_back, truth, browser)


def render_films(folder: Path) -> tuple[TruthLine, ...]:
    """Render films of three scenes each, one with a script as its name; return the queries a frame can answer."""
    films = [
        FilmSpec(film.scenes[:3], film.joints[:2], film.seed)
        for film in random_library(seed=4, num_films=NUM_FILMS)
    ]
    names = [f"film_{number:03d}.mp4" for number in range(NUM_FILMS)]
    shown = dict(zip(names, [*names[:3], f"{SCRIPT}.mp4", names[4], LATER], strict=True))
    folder.mkdir()
    for film, name in zip(films, shown.values(), strict=True):
        render_film(film, folder / name)
    return tuple(
        replace(line, path=shown[line.path])
        for line in ground_truth(films, seed=4)
        if not line.needs_time
    )


@pytest.fixture
def page(shown: Shown) -> Iterator[Page]:
    """A page that must not log an error, open a dialog, or send a request to another host."""
    watched = Watched(urlsplit(shown.url).netloc)
    context = shown.browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(WAIT_MS)
    expect.set_options(timeout=WAIT_MS)
    yield watched.listen(context)
    context.close()
    assert watched.requests
    assert not watched.problems()


def ask(page: Page, text: str) -> Locator:
    """Type a query and press Enter; return the cards."""
    box = page.get_by_label("What does the moment show?")
    box.fill(text)
    box.press("Enter")
    expect(page).to_have_url(re.compile(r"[?&]q="))
    cards = page.locator(".grid .card")
    expect(cards.first).to_be_visible()
    return cards


def open_moment(page: Page, shown: Shown, line: TruthLine) -> Locator:
    """Ask a query, open the first moment, and wait until the player has sought it."""
    page.goto(shown.url)
    cards = ask(page, line.query)
    expect(cards.first.locator("a.open")).to_have_text(line.path)
    cards.first.locator("a.open").click()
    return wait_for_player(page)


def wait_for_player(page: Page) -> Locator:
    video = page.locator("video")
    expect(video).to_be_visible()
    page.wait_for_function("video => video.readyState >= 1 && !video.seeking", arg=handle(video))
    return video


def handle(locator: Locator) -> object:
    return locator.element_handle()


def now(video: Locator) -> float:
    """Return the time of the player in seconds."""
    return float(video.evaluate("video => video.currentTime"))


def test_the_first_request_to_a_server_may_be_any_page(shown: Shown, page: Page) -> None:
    page.goto(f"{shown.url}library")
    expect(page.locator("tbody tr")).to_have_count(NUM_FILMS - 1)
    expect(page.get_by_text("Page not found")).to_have_count(0)


def test_the_theme_and_the_options_of_the_pages_are_in_effect(shown: Shown, page: Page) -> None:
    page.goto(f"{shown.url}library")
    expect(page.get_by_role("button", name="Index now")).to_have_css(
        "background-color", "rgb(11, 114, 133)"
    )
    expect(page.locator(".stMarkdown").first).to_contain_text("5 videos")


def test_an_upright_image_does_not_make_a_card_higher(shown: Shown) -> None:
    style = (ROOT / "ui/pages/assets/grid.css").read_text()
    upright = "<svg xmlns='http://www.w3.org/2000/svg' width='90' height='160'/>"
    page = shown.browser.new_page()
    page.set_content(
        f"<style>{style}</style><div class='card' style='width: 320px'><div class='picture'>"
        + f'<img src="data:image/svg+xml,{upright}">'
    )
    page.wait_for_function("[...document.images].every(image => image.naturalHeight == 160)")
    picture = page.locator(".picture")
    width, height = picture.evaluate("each => [each.offsetWidth, each.offsetHeight]")
    assert height == pytest.approx(width * 9 / 16, abs=1)
    expect(picture.locator("img")).to_have_css("object-fit", "contain")
    page.close()


def test_a_query_opens_its_moment_and_a_click_on_the_strip_jumps(shown: Shown, page: Page) -> None:
    line = shown.question("film_001.mp4")
    video = open_moment(page, shown, line)
    assert line.start_seconds - 0.5 <= now(video) < line.end_seconds

    length = float(video.evaluate("video => video.duration"))
    box = page.locator("canvas").bounding_box()
    assert box is not None
    for share in (0.85, 0.2):
        page.mouse.click(box["x"] + share * box["width"], box["y"] + 36)
        page.wait_for_function(
            "([video, time]) => Math.abs(video.currentTime - time) < 0.15",
            arg=[handle(video), share * length],
        )
    expect(page.get_by_role("link", name="Results")).to_be_visible()
    page.get_by_role("link", name="Results").click()
    expect(page.locator(".grid .card").first.locator("a.open")).to_have_text(line.path)
    expect(page.get_by_label("What does the moment show?")).to_have_value(line.query)


def test_the_out_point_moves_and_the_clip_is_cut_there(shown: Shown, page: Page) -> None:
    open_moment(page, shown, shown.question("film_002.mp4"))
    clip = page.get_by_role("link", name="Clip", exact=True)
    before, address = cut_of(clip), clip_address(clip)
    out = page.locator('[data-end="out"]')
    for step in ("-1s", "+1f", "+1f"):
        out.locator(f'[data-step="{step}"]').click()
    expect(clip).not_to_have_attribute("href", address)
    start, end = cut_of(clip)
    assert start == before[0]
    assert end == pytest.approx(before[1] - 1 + 2 * FRAME, abs=1.01 * FRAME)

    with page.context.expect_event("download") as download:
        clip.click()
    path = download.value.path()
    with av.open(str(path)) as file:
        assert [stream.type for stream in file.streams] == ["video", "audio"]
        assert file.streams.video[0].codec_context.name == "h264"
        num_frames = sum(1 for _ in file.decode(video=0))
    assert num_frames * FRAME == pytest.approx(end - start, abs=1.01 * FRAME)


def clip_address(link: Locator) -> str:
    return link.get_attribute("href") or ""


def cut_of(link: Locator) -> tuple[float, float]:
    """Return start and end of the clip that a link cuts."""
    found = re.search(r"/(\d+)-(\d+)\.mp4$", clip_address(link))
    assert found, clip_address(link)
    return int(found[1]) / 1000, int(found[2]) / 1000


def test_the_transcript_follows_the_player_moves_it_and_is_searched(
    shown: Shown, page: Page
) -> None:
    said = [(1.0, 2.5, "Bonjour. We met"), (2.5, 4.0, f"at a caf\u00e9. {SCRIPT}")]
    said += [(100.0 + k, 101.0 + k, f"line {k}") for k in range(10_000)]
    layout = IndexLayout.of(shown.index)
    with Catalog.open(layout.catalog) as catalog:
        video_id = next(each.video_id for each in catalog.videos() if each.path.name != LATER)
        lines = [Line(video_id, "said", *each) for each in said]
        catalog.lines.put(video_id, "said", lines, source="test")
    page.goto(f"{shown.url}moment?v={video_id}&a=2.6&b=2.8")
    video = wait_for_player(page)
    current = page.locator(".lines [aria-current]")
    expect(current).to_contain_text(SCRIPT)
    page.locator(".transcript .words").fill("CAFE")
    expect(page.locator(".transcript .count")).to_have_text("1 of 10,002 lines")
    expect(page.locator(".lines mark")).to_have_text("caf\u00e9")
    page.locator(".lines button:visible").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("video => Math.abs(video.currentTime - 2.5) < 0.05", arg=handle(video))
    page.locator(".transcript .words").fill("")
    expect(page.locator(".transcript .count")).to_have_text("10,002 lines")

    clip = page.get_by_role("link", name="Clip", exact=True)
    before = clip_address(clip)
    page.locator(".snap").click()  # not by its role, which is looked up in ten thousand lines
    expect(clip).not_to_have_attribute("href", before)
    start, end = cut_of(clip)
    assert start == pytest.approx(1.0 + 1.5 * 8 / 15, abs=0.001)  # after the full stop of the line
    assert end == pytest.approx(2.5 + 1.5 * 10 / (11 + len(SCRIPT)), abs=0.001)
    with page.expect_download() as download:
        page.get_by_role("link", name="download as SRT").click()
    text = Path(download.value.path()).read_text("utf-8")
    assert text.startswith("1\n00:00:01,000 --> 00:00:02,500\nBonjour. We met\n")
    with Catalog.open(layout.catalog) as catalog:  # other tests search images alone
        catalog.lines.remove("said")


def test_an_address_can_be_shared(shown: Shown, page: Page) -> None:
    line = shown.question("film_000.mp4")
    page.goto(f"{shown.url}?q={line.query.replace(' ', '+')}")
    expect(page.locator(".card a.open").first).to_have_text(line.path)
    page.set_viewport_size({"width": 420, "height": 800})
    expect(page.locator(".card").first).to_be_visible()
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 420


def test_a_script_in_a_name_or_a_query_is_shown_as_text(shown: Shown, page: Page) -> None:
    name = f"{SCRIPT}.mp4"
    open_moment(page, shown, shown.question(name))
    expect(page.get_by_text(name, exact=True).first).to_be_visible()
    page.goto(f"{shown.url}library")
    expect(page.get_by_role("link", name=name)).to_be_visible()
    page.goto(shown.url)
    ask(page, SCRIPT)
    assert page.locator("img[src='x']").count() == 0


def test_the_start_page_opens_last_searches_and_new_videos(shown: Shown, page: Page) -> None:
    line = shown.question("film_000.mp4")
    page.goto(shown.url)
    for query in (line.query, SCRIPT):
        page.goto(shown.url)  # no cards of the query before
        ask(page, query)
    page.goto(shown.url)
    searches = page.get_by_role("list", name="last searches").get_by_role("link")
    expect(searches.first).to_contain_text(SCRIPT)
    searches.nth(1).click()
    expect(page.get_by_label("What does the moment show?")).to_have_value(line.query)
    expect(page.locator(".card a.open").first).to_have_text(line.path)

    page.goto(shown.url)
    videos = page.get_by_role("list", name="newest videos").get_by_role("link")
    expect(videos).to_have_count(NUM_FILMS - 1)
    page.wait_for_function(
        "link => link.querySelector('img').naturalWidth > 0", arg=handle(videos.first)
    )
    videos.first.click()
    wait_for_player(page)


def test_the_rest_of_the_nearest_moments_is_one_click_away(shown: Shown, page: Page) -> None:
    page.goto(f"{shown.url}?q={NOWHERE.replace(' ', '+')}")
    # the heading: the live region says the same
    heading = page.get_by_role("strong").filter(has_text="No good match. The nearest:")
    expect(heading).to_be_visible()
    cards = page.locator(".grid .card")
    expect(cards).to_have_count(4)
    page.get_by_role("button", name=re.compile(r"^Show \d+ more$")).click()
    expect(cards.nth(4)).to_be_visible()
    expect(page.locator(".divider")).to_have_count(0)


def test_a_card_brings_its_like_first_until_its_chip_is_taken_away(
    shown: Shown, page: Page
) -> None:
    page.goto(shown.url)
    cards = ask(page, shown.question("film_000.mp4").query)
    name = cards.nth(1).locator("a.open").inner_text()
    cards.nth(1).get_by_role("button", name=re.compile("^more like")).click()
    expect(page).to_have_url(re.compile(r"[?&]more=\d+-\d+-\d+"))
    chip = page.get_by_role("button", name=re.compile(f"more like {re.escape(name)}"))
    chip = chip.and_(page.locator(".st-key-judged button"))
    expect(chip).to_be_visible()
    expect(cards.first.locator("a.open")).to_have_text(name)
    page.reload()
    chip.click()
    expect(chip).to_have_count(0)
    expect(page).not_to_have_url(re.compile("more="))


def test_a_search_is_saved_and_pairs_are_compared(shown: Shown, page: Page) -> None:
    page.goto(shown.url)
    ask(page, shown.question("film_001.mp4").query)
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_role("button", name="Save this search").click()
    expect(page.get_by_text("Saved as")).to_be_visible()
    page.goto(f"{shown.url}saved")
    page.get_by_role("button", name="Run").click()
    expect(page.locator(".grid .card a.open").first).to_have_text("film_001.mp4")
    page.get_by_role("button", name="Remove").click()
    expect(page.get_by_text("No search is saved yet")).to_be_visible()
    page.goto(f"{shown.url}duplicates")
    page.get_by_role("button", name="Compare all videos").click()
    expect(page.get_by_text("0 pairs of near-duplicates")).to_be_visible()


def test_a_rectangle_on_the_picture_is_searched(shown: Shown, page: Page) -> None:
    line = shown.question("film_002.mp4")
    open_moment(page, shown, line)
    page.get_by_role("button", name="Search a part").click()
    sheet = page.locator(".draw").bounding_box()
    assert sheet is not None
    x, y = sheet["x"], sheet["y"]
    page.mouse.move(x + 0.2 * sheet["width"], y + 0.2 * sheet["height"])
    page.mouse.down()
    page.mouse.move(x + 0.8 * sheet["width"], y + 0.9 * sheet["height"], steps=3)
    page.mouse.up()
    expect(page.get_by_text("Like the part drawn at")).to_be_visible()
    expect(page.get_by_role("button", name="Search a part")).to_have_attribute(
        "aria-pressed", "false"
    )
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(page.get_by_text("Like the part drawn at")).to_have_count(0)


def test_a_card_shows_its_moment_under_the_pointer_with_one_request(
    shown: Shown, page: Page
) -> None:
    page.goto(shown.url)
    expect(page.get_by_label("What does the moment show?")).to_be_focused()
    cards = ask(page, shown.question("film_001.mp4").query)
    expect(page).to_have_title(re.compile(" - Scanonce$"))
    image, box = cards.first.locator("img"), cards.first.bounding_box()
    assert box is not None
    page.wait_for_function("image => image.complete", arg=handle(image))
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.mouse.move(box["x"] + 5, box["y"] + 40)
    shown_pictures = set()
    for share in (0.05, 0.3, 0.6, 0.95):
        page.mouse.move(box["x"] + share * box["width"], box["y"] + 40 + 10 * share)
        if share == 0.05:  # the pictures come with the first move
            page.wait_for_function(
                "async image => { image.closest('.card').onpointermove({clientX: 0}); "
                "return image.src.startsWith('data:'); }",
                arg=handle(image),
            )
        shown_pictures.add(image.get_attribute("src"))
    assert len(shown_pictures) > 2
    served = [url for url in requests if urlsplit(url).scheme not in ("data", "blob")]
    assert [url for url in served if "/media/" in url] == [
        url for url in served if "/media/moments/" in url
    ]
    assert len(served) == 1
    for width, columns in ((1280, 4), (800, 2), (420, 1)):
        page.set_viewport_size({"width": width, "height": 800})
        page.wait_for_function(
            "([grid, count]) => getComputedStyle(grid).gridTemplateColumns.split(' ').length === count",
            arg=[handle(page.locator(".grid")), columns],
        )


def test_selects_are_trimmed_picked_and_survive_a_reload(shown: Shown, page: Page) -> None:
    video = open_moment(page, shown, shown.question("film_002.mp4"))
    box = page.locator(".pick").first.bounding_box()
    assert box is not None
    assert box["y"] + box["height"] < 800  # above the fold
    at = now(video)
    page.locator("canvas").focus()
    page.keyboard.press("Shift+ArrowRight")
    page.wait_for_function(
        "([video, time]) => !video.seeking && video.currentTime > time",
        arg=[handle(video), at + 0.9],
    )
    before = round(now(video) / FRAME)
    for key, step in (("ArrowRight", 1), ("ArrowRight", 1), ("ArrowLeft", -1)):
        page.keyboard.press(key)
        before += step
        page.wait_for_function(
            "([video, frame]) => !video.seeking && Math.floor(video.currentTime / frame[1] + 0.01) === frame[0]",
            arg=[handle(video), [before, FRAME]],
        )
    page.keyboard.press("i")
    page.wait_for_function(
        "start => Math.abs(Number(new URL(location.href).searchParams.get('a')) - start) < 0.001",
        arg=before * FRAME,
    )
    page.keyboard.press("p")
    expect(page.locator(".tray .count")).to_have_text("1 select")
    in_time = page.locator('[data-end="in"] .time')
    trimmed = in_time.inner_text()
    page.keyboard.press("n")  # the next result; the address names another moment
    page.wait_for_function(
        "start => Math.abs(Number(new URL(location.href).searchParams.get('a')) - start) > 0.001",
        arg=before * FRAME,
    )
    expect(in_time).not_to_have_text(trimmed)
    wait_for_player(page)
    page.locator(".player .pick").click()
    expect(page.locator(".tray .count")).to_have_text("2 selects")

    page.goto(f"{shown.url}library")
    page.locator(".tray summary").click()
    first = page.locator(".tray .row").first
    expect(first.locator(".times")).to_contain_text(f":{before % round(1 / FRAME):02d} \u2013")
    first.locator("input.rename").fill(SCRIPT)
    first.locator("input.rename").press("Enter")
    first.get_by_role("button", name=re.compile("^move down")).click()
    expect(page.locator(".tray .row").nth(1).locator("input.rename")).to_have_value(SCRIPT)
    page.reload()
    page.locator(".tray summary").click()
    expect(page.locator(".tray .row").nth(1).locator("input.rename")).to_have_value(SCRIPT)
    page.get_by_role("button", name="Export", exact=True).click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Clips (zip)").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert [name[:2] for name in archive.namelist()] == ["01", "02"]
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Remove all").click()
    expect(page.locator(".tray")).to_have_count(0)


def test_keys_are_explained_and_an_offline_file_still_shows_its_pictures(
    shown: Shown, page: Page
) -> None:
    film = shown.films / "film_000.mp4"
    page.goto(shown.url)
    cards = ask(page, shown.question(film.name).query)
    cards.first.locator("a.open").focus()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    expect(page.get_by_label("What does the moment show?")).to_be_focused()
    away = film.rename(shown.films.parent / film.name)
    try:
        cards.first.locator("a.open").click()
        expect(page.get_by_text("The file is not where it was indexed")).to_be_visible()
        expect(page.get_by_text(str(film))).to_be_visible()
        pictures = page.get_by_role("list", name="stored pictures").locator("img")
        expect(pictures).to_have_count(6)
        page.wait_for_function("image => image.naturalWidth > 0", arg=handle(pictures.first))
    finally:
        away.rename(film)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(shown: Shown, scheme: Literal["light", "dark"]) -> None:
    context = shown.browser.new_context(
        viewport={"width": 1280, "height": 800}, color_scheme=scheme
    )
    context.set_default_timeout(WAIT_MS)
    page, found = context.new_page(), []
    query = shown.question("film_001.mp4").query.replace(" ", "+")
    number = finding_id(shown, "film_001.mp4")
    for address, sign in (
        (f"?q={query}", ".grid .card"),
        (f"moment?v={number}&a=0&b=2&q={query}", ".player canvas"),
        ("library", "tbody tr"),
    ):
        page.goto(shown.url + address)
        expect(page.locator(sign).first).to_be_visible()
        expect(page.locator("[data-test-script-state=notRunning]")).to_be_attached()
        expect(page.locator("[data-stale=true]")).to_have_count(0)
        page.evaluate(FINISH_FADES)  # a text that fades in has little contrast for a moment
        result = Axe().run(page, options={"resultTypes": ["violations"]})
        found += [
            (address, each["id"], [node["html"][:160] for node in each["nodes"]][:3])
            for each in result.response["violations"]
            if each["impact"] in ("serious", "critical")
        ]
    context.close()
    assert found == []


def finding_id(shown: Shown, name: str) -> int:
    with Catalog.open(IndexLayout.of(shown.index).catalog, read_only=True) as catalog:
        return next(each.video_id for each in catalog.videos() if each.path.name == name)


@pytest.mark.parametrize("address", ["moment?v=99999&a=1&b=2", "moment?v=../7", "moment"])
def test_an_unknown_moment_gets_a_plain_message(shown: Shown, page: Page, address: str) -> None:
    page.goto(shown.url + address)
    expect(page.get_by_text("There is no such video in this library")).to_be_visible()
    assert page.locator("video").count() == 0


def test_an_indexing_run_is_shown_to_its_end_and_searches_work_meanwhile(
    shown: Shown, page: Page
) -> None:
    page.goto(f"{shown.url}library")
    expect(page.locator("tbody tr")).to_have_count(NUM_FILMS - 1)
    shown.held_back.rename(shown.films / LATER)
    page.get_by_role("button", name="Index now").click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()

    page.get_by_role("link", name="Search").click()
    line = shown.question("film_004.mp4")
    expect(ask(page, line.query).first.locator("a.open")).to_have_text(line.path)
    job = jobs.read(shown.index)
    assert job is not None
    assert job.alive, "the search should have been over before the run"

    page.get_by_role("link", name="Library").click()
    expect(page.get_by_text("Last run: 1 video indexed")).to_be_visible()
    expect(page.locator("tbody tr")).to_have_count(NUM_FILMS)
    page.get_by_role("link", name="Search").click()
    line = shown.question(LATER)
    expect(ask(page, line.query).first.locator("a.open")).to_have_text(line.path)
