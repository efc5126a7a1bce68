"""The wheel as a user installs it: one name, and it works next to folders with the names of ours."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.house import NOT_BUILT, build_wheel, wheel_names
from tests.colours import write_film

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools writes a ``build`` folder next to what it builds."""
    source = tmp_path_factory.mktemp("source") / "repository"
    shutil.copytree(ROOT, source, symlinks=True, ignore=shutil.ignore_patterns(*NOT_BUILT))
    return build_wheel(source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel installed; what it depends on comes from this environment."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", folder, wheel], check=True)
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder of a user who has packages called as our rooms are, with a video next to them."""
    for name in ("models", "search", "storage", "ui"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('this is the user\\'s')\n")
    write_film(tmp_path / "Videos" / "film.mp4", [("red", 4), ("blue", 4)])
    return tmp_path


def run(site: Path, folder: Path, *arguments: str | Path) -> str:
    """What Python prints with the installed wheel before everything else, its home in the folder."""
    environment = {**os.environ, "PYTHONPATH": str(site), "HOME": str(folder)}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_one_name_and_its_files(wheel: Path, site: Path) -> None:
    assert wheel_names(wheel) == {"scanonce"}
    package = site / "scanonce"
    assert (package / "config.toml").read_text() == (ROOT / "config.toml").read_text()
    assert (package / "py.typed").exists()
    assert not [path for path in package.rglob("*") if path.is_symlink()]
    wanted = {
        path.relative_to(ROOT)
        for room in (ROOT / "scanonce").iterdir()
        if room.is_dir()
        for path in (ROOT / room.name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".md"
    }
    assert {path for path in wanted if not (package / path).exists()} == set()


def test_the_lines_of_the_readme_run(site: Path, elsewhere: Path) -> None:
    """An index names its own encoder: made with the bundled one, nothing has to be downloaded."""
    made = "import scanonce.ui.cli as cli; cli.main()"
    run(site, elsewhere, "-c", made, "index", "Videos", "--encoder", "bundled")
    readme = (ROOT / "README.md").read_text()
    (code,) = re.findall(r"## From Python\n.*?```python\n(.*?)```", readme, re.DOTALL)
    assert len(code.strip().splitlines()) <= 8
    script = elsewhere / "script.py"
    where = "import sys; sys.stderr = sys.stdout; print(scanonce.__file__)\n"
    script.write_text(code + where)
    printed = run(site, elsewhere, script)
    assert "film.mp4" in printed
    assert printed.splitlines()[-1].startswith(str(site))


def test_the_command_works(site: Path, elsewhere: Path) -> None:
    command = "from scanonce.ui.cli import main; main()"
    assert "index" in run(site, elsewhere, "-c", command, "--help")
