"""The configuration file."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from scanonce.storage.errors import ConfigError
from scanonce.ui.config import Config, read_config

ROOT = Path(__file__).parents[1]


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def test_config_toml_has_every_key_with_its_default_and_no_other() -> None:
    written = flatten(tomllib.loads((ROOT / "config.toml").read_text()))
    defaults = flatten(Config().model_dump(mode="json"))
    assert written == defaults


def test_every_setting_says_what_it_does() -> None:
    def check(model: type[BaseModel]) -> None:
        for name, field in model.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                check(field.annotation)
            else:
                assert field.description, f"{model.__name__}.{name}"

    check(Config)


def test_every_key_in_config_toml_has_a_comment_above() -> None:
    lines = (ROOT / "config.toml").read_text().splitlines()
    for number, line in enumerate(lines):
        if " = " in line and not line.startswith(("#", " ")):
            assert lines[number - 1].startswith("#"), line


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("[search]\ntopp = 3", "search.topp"),
        ("[serch]\ntop = 3", "serch"),
        ("[search]\ntop = 0", "search.top = 0"),
        ('[indexer]\ndecoder = "ffmpeg"', "indexer.decoder = 'ffmpeg'"),
        ("[indexer]\nclip_scales_seconds = [8, 4]", "must rise"),
        ("[indexer]\nextensions = ['.MP4']", "without the dot"),
        ("not toml", "not valid TOML"),
    ],
)
def test_a_wrong_key_or_value_is_refused_by_name(tmp_path: Path, content: str, named: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert named in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_configuration_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path / "none.toml")


def test_the_environment_names_another_file_and_the_option_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first.toml", tmp_path / "second.toml"
    first.write_text("[search]\ntop = 3")
    second.write_text("[search]\ntop = 4")
    monkeypatch.setenv("SCANONCE_CONFIG", str(first))
    assert read_config().search.top == 3
    assert read_config(second).search.top == 4


def test_environment_variables_that_look_like_settings_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("INDEX_DIR", "/elsewhere")
    monkeypatch.setenv("SEARCH", '{"top": 99}')
    assert Config() == read_config(ROOT / "config.toml")
