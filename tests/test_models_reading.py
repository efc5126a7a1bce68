"""How queries are read: by the real tokenizer classes, and what is said about it."""

import pytest

from benchmarks.tiny_encoders import make_encoder
from scanonce.models.encoders.clip import TransformersEncoder
from scanonce.models.encoders.load import load_encoder
from scanonce.models.encoders.reading import Reading
from scanonce.models.settings import ModelSettings
from scanonce.search.notes import notes
from scanonce.search.unread import unread_lines

KINDS = ["clip", "metaclip2", "siglip", "siglip2", "chinese-clip", "tipsv2", "qwen3-vl-embedding"]
ENGLISH = "a red car drives past the house"
CHINESE = "一辆红色的汽车在夜里驶过房子"
RUSSIAN = "красная машина едет ночью мимо дома"


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TransformersEncoder]:
    root = tmp_path_factory.mktemp("reading")
    settings = ModelSettings(dtype="float32", device="cpu")
    loaded = {}
    for name in KINDS:
        encoder = load_encoder(str(make_encoder(name, root / name)), settings, towers="text")
        assert isinstance(encoder, TransformersEncoder)
        loaded[name] = encoder
    return loaded


@pytest.mark.parametrize("name", KINDS)
def test_sentences_of_the_training_are_read(
    encoders: dict[str, TransformersEncoder], name: str
) -> None:
    reading = encoders[name].read(ENGLISH)
    assert reading.unread == ()
    assert notes(ENGLISH, reading) == ()


def test_chinese_is_read_by_a_chinese_encoder(encoders: dict[str, TransformersEncoder]) -> None:
    assert encoders["chinese-clip"].read(CHINESE).unread == ()


@pytest.mark.parametrize("name", [name for name in KINDS if name != "chinese-clip"])
def test_a_sentence_in_an_unknown_script_is_said_once(
    encoders: dict[str, TransformersEncoder], name: str
) -> None:
    reading = encoders[name].read(CHINESE)
    (line,) = unread_lines(reading)[:1]
    assert line.startswith("the encoder of this index hardly reads Chinese characters: ")
    assert "scanonce encoders --language" in line


@pytest.mark.parametrize("name", KINDS)
def test_cyrillic_is_said_once_too(encoders: dict[str, TransformersEncoder], name: str) -> None:
    reading = encoders[name].read(RUSSIAN)
    assert reading.scripts == ("Cyrillic",)
    assert sum("hardly reads Cyrillic" in line for line in unread_lines(reading)) == 1


def test_the_words_of_the_query_are_named_as_they_were_typed(
    encoders: dict[str, TransformersEncoder],
) -> None:
    reading = encoders["siglip2"].read("a red car past the ZYXWVUQJ")
    assert reading.unread == ("ZYXWVUQJ",)
    assert "“ZYXWVUQJ”" in notes("", reading)[0]


def test_a_text_without_spaces_that_is_too_long_is_said(
    encoders: dict[str, TransformersEncoder],
) -> None:
    reading = encoders["chinese-clip"].read(CHINESE * 20)
    assert reading.is_cut
    assert unread_lines(reading) == [
        "only the beginning is read: the encoder takes no longer sentence"
    ]


def test_another_language_in_the_same_script_is_said_by_its_share() -> None:
    reading = Reading(("rotes", "fährt", "nachts"), num_words=4, num_read=4)
    (line,) = unread_lines(reading)
    assert line.startswith("the encoder of this index knows 1 of these 4 words: ask in a language")
