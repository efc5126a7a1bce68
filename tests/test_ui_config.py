"""The configuration file."""

import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from scanonce.search.settings import SearchSettings
from scanonce.storage.errors import ConfigError
from scanonce.ui.config import Config, read_config
from scanonce.ui.server.server import ensure_home
from tests.command import scanonce

ROOT = Path(__file__).parents[1]


def test_config_toml_is_printed_by_the_command_and_has_every_default() -> None:
    printed = scanonce("config").stdout
    assert printed == (ROOT / "config.toml").read_text()
    assert tomllib.loads(printed) == Config().model_dump(mode="json")


def test_every_setting_is_described() -> None:
    def check(model: type[BaseModel]) -> None:
        for name, field in model.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                check(field.annotation)
            else:
                assert field.description, f"{model.__name__}.{name}"

    check(Config)


def test_every_key_in_config_toml_has_a_comment_above_with_its_bounds() -> None:
    text = (ROOT / "config.toml").read_text()
    lines = text.splitlines()
    assert max(map(len, lines)) <= 120
    for number, line in enumerate(lines):
        if " = " in line and not line.startswith(("#", " ")):
            assert lines[number - 1].startswith("#"), line
    assert "Allowed: 1 to 1,000.\ntop = 10" in text
    assert "Allowed: above 0.\nstall_seconds = 60.0" in text
    assert "Allowed: 0 to 1,024.\ndecode_workers = 0" in text


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("[search]\ntopp = 3", "search.topp"),
        ("[serch]\ntop = 3", "serch"),
        ("[search]\ntop = 0", "search.top = 0"),
        ('[indexer]\ndecoder = "ffmpeg"', "indexer.decoder = 'ffmpeg'"),
        ("[indexer]\nclip_scales_seconds = [8, 4]", "must rise"),
        ("[indexer]\nextensions = ['.MP4']", "without the dot"),
        ("[indexer]\nextensions = ['']", "at least 1 character"),
        ("[indexer]\ndecode_workers = 100_000", "less than or equal to 1024"),
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


def test_a_missing_configuration_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path / "none.toml")


def test_a_setting_of_an_earlier_version_is_ignored_with_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[search]\nretriever = "anchors"\ntop = 3\n[storage]\nanchor_index = true\n')
    assert read_config(path) == Config(search=SearchSettings(top=3))
    storage, search = capsys.readouterr().err.splitlines()
    assert storage.startswith(f"scanonce: storage.anchor_index in {path} is ignored")
    assert search.startswith(f"scanonce: search.retriever in {path} is ignored")


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


@pytest.mark.usefixtures("no_home")
@pytest.mark.parametrize(
    "command", [("status",), ("index", "~/films"), ("ui", "--no-browser"), ("search", "a fish")]
)
def test_without_a_home_folder_a_whole_path_is_asked_for(command: tuple[str, ...]) -> None:
    ran = scanonce(*command)
    assert ran.returncode == 1
    assert "the home folder is not known" in ran.stderr


@pytest.mark.usefixtures("no_home")
def test_without_a_home_folder_a_whole_path_is_enough(tmp_path: Path) -> None:
    assert "there is no index" in scanonce("status", "--index", tmp_path / "none").stderr
    ensure_home()
    assert Path.home().is_dir(), "Streamlit reads its settings there"
    assert not list(Path.home().iterdir())
