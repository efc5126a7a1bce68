"""What holds for the repository as a whole: names, layers, documents."""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import scanonce.storage.errors
from scanonce.storage.errors import ScanonceError
from scanonce.ui.cli import app

ROOT = Path(__file__).parents[1]
PACKAGES = ["storage", "models", "indexer", "search", "training", "ui"]
PUBLIC = {
    "storage": ["Moment", "ScanonceError", "Span", "Video"],
    "search": ["SearchEngine"],
}


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_is_the_one_in_this_repository(package: str) -> None:
    module = importlib.import_module(f"scanonce.{package}")
    assert Path(str(module.__file__)).parent.resolve() == ROOT / package


@pytest.mark.parametrize("package", PUBLIC)
def test_public_names_are_few_and_exist(package: str) -> None:
    module = importlib.import_module(f"scanonce.{package}")
    assert sorted(module.__all__) == PUBLIC[package]
    for name in module.__all__:
        assert inspect.getdoc(getattr(module, name)), f"{package}.{name} says nothing of itself"


def test_every_error_is_drawn_in_the_tree() -> None:
    drawing = str(scanonce.storage.errors.__doc__)
    errors = [
        value
        for value in vars(scanonce.storage.errors).values()
        if isinstance(value, type) and issubclass(value, ScanonceError)
    ]
    assert len(errors) > 5
    for error in errors:
        assert error.__name__ in drawing


def test_every_command_and_option_is_documented() -> None:
    text = (ROOT / "docs/cli.md").read_text()
    group = typer.main.get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        assert f"## `scanonce {name}" in text, name
        for parameter in command.params:
            for option in parameter.opts:
                assert not option.startswith("--") or option == "--help" or option in text, (
                    name,
                    option,
                )


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from scanonce.ui.cli import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'numpy', 'faiss', 'av', 'sqlalchemy', 'pydantic', 'PIL'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines()[-1] == "HEAVY []"


def test_a_planted_back_import_fails_the_layers(tmp_path: Path) -> None:
    """The contract is worth something only if it can fail."""
    import shutil

    shutil.copytree(
        ROOT / "scanonce",
        tmp_path / "scanonce",
        ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"),
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    lint = Path(sys.executable).with_name("lint-imports")

    def check() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [lint, "--no-cache"], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    assert check().returncode == 0, check().stdout
    with (tmp_path / "scanonce/search/notes.py").open("a") as file:
        file.write("\nfrom scanonce.indexer import library  # noqa\n")
    broken = check()
    assert broken.returncode != 0
    assert "scanonce.search.notes" in broken.stdout


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert "make test" in (ROOT / ".ci/run").read_text()
    assert "make test" in (ROOT / "README.md").read_text()
