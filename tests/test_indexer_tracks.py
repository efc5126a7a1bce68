"""The second pass: real speech and real text of small videos, and runs that are stopped, repeated and damaged."""

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from scanonce.indexer import tracks as second_pass
from scanonce.indexer.passages import split_passages
from scanonce.indexer.settings import IndexerSettings
from scanonce.indexer.tracks import TracksReport, make_tracks
from scanonce.indexer.written import WrittenLines
from scanonce.media.tracks import Picture
from scanonce.models.tracks.settings import TrackSettings
from scanonce.models.tracks.speech import (
    RATE,
    SpokenLine,
    _Repeats,
    compression,
    load_speech_model,
    offline_folder,
    quietest,
)
from scanonce.models.tracks.text_in_images import ReadText
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.layout import IndexLayout
from scanonce.storage.records import Line, MadeTrack
from tests.colours import write_film
from tests.indexes import build_index
from tests.spoken import speech, write_with_audio
from tests.test_media_tracks import SRT, page
from tests.videos import write_images

NO_MEANING = TrackSettings(text_model="off")


class FakeSpeech:
    """Says what its class attribute says, whatever it hears; counts the seconds."""

    name = "fake"
    heard: list[float] = []  # noqa: RUF012 - reset by the fixture

    def transcribe(
        self, audio: Iterable[NDArray[np.int16]], on_progress: object = None
    ) -> Iterator[SpokenLine]:
        samples = sum(len(piece) for piece in audio)
        self.heard.append(samples / RATE)
        if samples:
            yield SpokenLine(0.0, 900.0, "we met on Discord", 0.8, "en")
            yield SpokenLine(900.0, 901.0, "after the end", 0.8, "en")


@pytest.fixture
def fake_speech(monkeypatch: pytest.MonkeyPatch) -> type[FakeSpeech]:
    FakeSpeech.heard = []
    monkeypatch.setattr(second_pass, "load_speech_model", lambda *_: FakeSpeech())
    return FakeSpeech


def run(layout: IndexLayout, *names: MadeTrack, **options: object) -> TracksReport:
    given = {"settings": NO_MEANING, "indexer": IndexerSettings()}
    return make_tracks(layout, names, **{**given, **options})  # type: ignore[arg-type]


def lines(layout: IndexLayout, track: MadeTrack) -> list[Line]:
    with Catalog.open(layout.catalog, read_only=True) as catalog:
        videos = catalog.videos()
        return [line for video in videos for line in catalog.lines.of(video.video_id, [track])]


def test_subtitles_are_read_once_and_again_if_a_file_comes_or_changes(tmp_path: Path) -> None:
    films, layout = tmp_path / "films", IndexLayout(tmp_path / "index")
    write_film(films / "a.mp4", [("red", 2)])
    write_film(films / "b.mp4", [("blue", 3)])
    build_index(layout, films)
    assert run(layout, "subtitle").made == {"subtitle": 2}
    assert run(layout, "subtitle").made == {"subtitle": 0}
    (films / "b.srt").write_text(SRT, encoding="utf-8")
    report = run(layout, "subtitle")
    assert (report.made, report.num_lines) == ({"subtitle": 1}, 3)
    found = lines(layout, "subtitle")
    assert [line.start_seconds for line in found] == [0.5, 1.0, 2.0]
    assert all(line.end_seconds <= 3.0 for line in found)
    (films / "b.srt").unlink()
    assert run(layout, "subtitle").num_lines == 0
    assert lines(layout, "subtitle") == []


def test_lines_move_with_their_video_and_a_copy_costs_nothing(
    tmp_path: Path, fake_speech: type[FakeSpeech]
) -> None:
    films, layout = tmp_path / "films", IndexLayout(tmp_path / "index")
    films.mkdir()
    hum = (np.full(16_000, 900, np.int16), RATE)
    write_with_audio(films / "a.mp4", [hum], 2.0)
    build_index(layout, films)
    run(layout, "said")
    (films / "sub").mkdir()
    (films / "a.mp4").rename(films / "sub/c.mp4")
    shutil.copy(films / "sub/c.mp4", films / "d.mp4")
    build_index(layout, films)
    assert run(layout, "said").made == {"said": 0}
    (line,) = lines(layout, "said")
    assert (line.text, line.start_seconds, line.end_seconds) == ("we met on Discord", 0.0, 2.0)
    assert len(fake_speech.heard) == 1


def test_a_damaged_file_gets_a_note_and_costs_no_other_file_anything(
    tmp_path: Path, fake_speech: type[FakeSpeech]
) -> None:
    films, layout = tmp_path / "films", IndexLayout(tmp_path / "index")
    films.mkdir()
    hum = (np.full(16_000, 900, np.int16), RATE)
    for name in ("a.mp4", "b.mp4"):
        write_with_audio(films / name, [hum], 2.0 if name == "a.mp4" else 3.0)
    build_index(layout, films)
    (films / "a.mp4").write_bytes(b"\0" * 1000)  # after it was indexed
    report = run(layout, "said")
    assert [(note.path.name, note.reason[:5]) for note in report.notes] == [("a.mp4", "said:")]
    assert [line.text for line in lines(layout, "said")] == ["we met on Discord"]
    assert run(layout, "said").made == {"said": 0}
    assert run(layout, "said", retry=True).made == {"said": 1}
    (films / "b.mp4").unlink()
    assert run(layout, "said", again=True).num_offline == 1


def test_a_run_that_is_stopped_keeps_what_was_read_and_the_next_one_goes_on(
    tmp_path: Path, fake_speech: type[FakeSpeech]
) -> None:
    films, layout = tmp_path / "films", IndexLayout(tmp_path / "index")
    films.mkdir()
    for number in range(3):
        hum = (np.full(16_000 + 1000 * number, 900, np.int16), RATE)
        write_with_audio(films / f"{number}.mp4", [hum], 2.0 + number)
    build_index(layout, films)

    def stop(progress: second_pass.TrackProgress) -> None:
        if progress.videos_done == 1:
            raise KeyboardInterrupt

    report = run(layout, "said", on_progress=stop)
    assert report.interrupted
    assert report.made == {"said": 1}
    assert run(layout, "said").made == {"said": 2}


def test_the_first_track_with_speech_is_taken_unless_another_is_asked_for(
    tmp_path: Path, fake_speech: type[FakeSpeech]
) -> None:
    films, layout = tmp_path / "films", IndexLayout(tmp_path / "index")
    films.mkdir()
    tracks = [(np.full(RATE * seconds, 900, np.int16), RATE) for seconds in (1, 2)]
    write_with_audio(films / "a.mkv", tracks, 3.0)
    build_index(layout, films)
    run(layout, "said")
    assert [round(seconds) for seconds in fake_speech.heard] == [1]
    run(layout, "said", again=True, settings=NO_MEANING.model_copy(update={"audio_track": 2}))
    assert [round(seconds) for seconds in fake_speech.heard] == [1, 2]
    seventh = NO_MEANING.model_copy(update={"audio_track": 7})
    assert "2 audio track(s)" in run(layout, "said", again=True, settings=seventh).notes[0].reason


# ---------------------------------------------------------------- real models


def needs_speech() -> None:
    pytest.importorskip("faster_whisper", reason="the extra speech is not installed")
    if offline_folder() is None:
        pytest.skip("the extra offline is not installed")


def test_real_speech_is_understood_and_found_with_its_time(tmp_path: Path) -> None:
    needs_speech()
    films, layout = tmp_path / "films", IndexLayout(tmp_path / "index")
    films.mkdir()
    samples, rate = speech("The yellow submarine is under the bridge. Please turn left now.")
    silence = np.zeros(3 * rate, np.int16)
    write_with_audio(films / "a.mp4", [(np.concatenate([silence, samples]), rate)], 10.0)
    build_index(layout, films)
    run(layout, "said")
    found = lines(layout, "said")
    text = " ".join(line.text for line in found).lower()
    assert "submarine" in text
    assert "turn left" in text
    assert 2.0 <= found[0].start_seconds <= 4.0
    assert all(line.end_seconds <= 10.0 for line in found)


def test_what_is_said_before_and_after_a_silence_is_two_lines() -> None:
    needs_speech()
    pieces = []
    for text in ("Please turn left at the old bridge.", "Remember to water the roses."):
        samples, rate = speech(text)
        at = np.arange(0, len(samples) - 1, rate / RATE)
        pieces += [np.interp(at, np.arange(len(samples)), samples).astype(np.int16)]
        pieces += [np.zeros(6 * RATE, np.int16)]
    first, second = list(load_speech_model("auto", "cpu").transcribe(pieces))
    assert "left" in first.text
    assert "roses" in second.text
    assert first.end_seconds < 4.0
    assert second.start_seconds > 6.0


def test_noise_and_music_are_no_speech() -> None:
    needs_speech()
    rng = np.random.default_rng(0)
    times = np.arange(20 * RATE) / RATE
    notes = 440 * 2 ** (np.array([0, 4, 7, 12, 7, 4])[(times * 2).astype(int) % 6] / 12)
    music = sum(np.sin(2 * np.pi * notes * k * times) / k for k in (1, 2, 3)) * 4000
    noise = rng.normal(0, 3000, 20 * RATE)
    model = load_speech_model("auto", "cpu")
    for sound in (music, noise, np.zeros(20 * RATE)):
        assert list(model.transcribe([sound.astype(np.int16)])) == []


def test_real_text_in_images_is_read_with_its_time_on_screen(tmp_path: Path) -> None:
    pytest.importorskip("rapidocr", reason="the extra ocr is not installed")
    films, layout = tmp_path / "films", IndexLayout(tmp_path / "index")
    films.mkdir()
    first, second = ((40, "Common Crawl"),), ((40, "Common Crawl"), (250, "Discord server"))
    images = [page(*slide, noise=k) for slide in (first, second, ()) for k in range(30)]
    write_images(films / "talk.mp4", images, options={"crf": "20"})
    build_index(layout, films)
    run(layout, "written")
    found = {line.text: line for line in lines(layout, "written")}
    assert set(found) == {"Common Crawl", "Discord server"}
    assert found["Common Crawl"].start_seconds == 0.0
    assert found["Common Crawl"].end_seconds == pytest.approx(6.0, abs=1.0)
    assert found["Discord server"].start_seconds == pytest.approx(3.0, abs=1.0)


# ---------------------------------------------------------------- parts


def test_a_line_that_is_said_again_and_again_is_dropped() -> None:
    repeats = _Repeats()
    said = ["Thank you.", "thank you", "Thank you!", "thank you", "Bye.", "Thank you."]
    assert [repeats.is_one(text) for text in said] == [False, False, True, True, False, False]
    assert compression("la la la la " * 20) > 2.4
    assert compression("We went to common crawl and looked for all the image URLs in it") < 1.5


def test_audio_is_cut_where_it_is_quiet() -> None:
    samples = np.full(60 * RATE, 3000, np.int16)
    samples[50 * RATE : 51 * RATE] = 0
    assert 50 * RATE <= quietest(samples) <= 51 * RATE
    assert quietest(samples[:100]) == 100


def picture(seconds: float, since: float) -> Picture:
    blocks = np.full((2, 2), since, np.float32)
    return Picture(seconds, blocks, np.zeros((100, 200, 3), np.uint8), 0, 100)


def row(text: str, top: float = 10.0, confidence: float = 0.9) -> ReadText:
    return ReadText(text, confidence, 5.0, top, 90.0, top + 12)


def test_half_read_variants_and_flicker_are_one_line() -> None:
    written = WrittenLines()
    assert written.add(picture(0.0, 0.0), [row("Hello wor")])
    assert not written.add(picture(2.0, 1.0), [row("Hello world", confidence=0.95)])
    assert not written.add(picture(4.0, 3.0), [])  # one picture without it
    assert not written.add(picture(6.0, 5.0), [row("HeIlo world")])
    assert written.add(picture(8.0, 7.0), [row("Good bye")])
    written.add(picture(10.0, 9.0), [row("Good bye")])
    found = written.finish(1, 12.0)
    assert [(line.text, line.start_seconds, line.end_seconds) for line in found] == [
        ("Hello world", 0.0, 7.0),
        ("Good bye", 7.0, 12.0),
    ]


def test_equal_texts_at_two_places_are_two_lines() -> None:
    written = WrittenLines()
    written.add(picture(0.0, 0.0), [row("LAION", 10.0), row("LAION", 70.0), row("?", 40.0)])
    assert len(written.finish(1, 5.0)) == 2


def test_short_lines_are_joined_to_passages() -> None:
    texts = [
        "one two",
        "three four",
        "a sentence of its own that has as many words as it needs",
        "x",
    ]
    said = [Line(1, "said", 2.0 * k, 2.0 * k + 2, text) for k, text in enumerate(texts)]
    assert split_passages(said) == [3, 1]
    far = [Line(1, "said", 100.0 * k, 100.0 * k + 1, "a word") for k in range(3)]
    assert split_passages(far) == [1, 1, 1]
    assert split_passages([]) == []
