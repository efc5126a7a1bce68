"""Set-up that tests share. No test reads or writes the user's own directory or configuration."""

import atexit
import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import hypothesis
import pytest

if TYPE_CHECKING:
    from scanonce.storage.catalog.catalog import Catalog

# No deadline, because machines are busy. The same examples each time, so that a failure is due to the change and not to
# chance; HYPOTHESIS_PROFILE=explore searches for new examples.
hypothesis.settings.register_profile("same", deadline=None, derandomize=True)
hypothesis.settings.register_profile("explore", deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# Before these packages are imported: no network, no progress bars, no threads that keep spinning.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Text banks of test encoders are kept for one run only: their code may change under the same fingerprint.
os.environ["HF_ASSETS_CACHE"] = tempfile.mkdtemp(prefix="scanonce-tests-")
atexit.register(shutil.rmtree, os.environ["HF_ASSETS_CACHE"], ignore_errors=True)


@pytest.fixture(autouse=True)
def own_home(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Set an empty home, and no configuration but that of the repository."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SCANONCE_CONFIG", raising=False)
    yield
    leftovers = [path for path in home.rglob("*") if path.is_file() and ".cache" not in path.parts]
    assert not leftovers, f"a test wrote into the home directory: {leftovers}"


@pytest.fixture
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the reports of errors that nobody expected, for a test that expects one."""
    return tmp_path_factory.mktemp("reports")


@pytest.fixture(autouse=True)
def no_reports(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[None]:
    """Fail a test in which an error that nobody expected became a sentence, unless it asks for ``reports``."""
    import scanonce.ui.reports

    is_expected = "reports" in request.fixturenames
    folder: Path = (
        request.getfixturevalue("reports") if is_expected else tmp_path_factory.mktemp("x")
    )
    monkeypatch.setattr(scanonce.ui.reports, "folder", lambda: folder)
    monkeypatch.setattr(scanonce.ui.reports, "_saved", {})
    yield
    if not is_expected:
        assert [path.read_text() for path in folder.iterdir()] == []


@pytest.fixture
def catalog_path(tmp_path: Path) -> Path:
    return tmp_path / "catalog.sqlite"


@pytest.fixture
def catalog(catalog_path: Path) -> "Iterator[Catalog]":
    """An open catalogue with the library /films; `tests.catalogs` has videos for it."""
    from scanonce.storage.catalog.catalog import Catalog

    with Catalog.open(catalog_path) as opened:
        opened.add_library(Path("/films"))
        yield opened


@pytest.fixture(scope="module")
def one_faiss_thread() -> Iterator[None]:
    """See `tests.oracle.one_training_thread`."""
    from tests.oracle import one_training_thread

    with one_training_thread():
        yield


_LONGEST = (
    "test_ui_browser.py",
    "test_training_held_out.py",
    "test_crashes.py",
    "test_ui_cli.py",
    "test_ui_watching.py",
    "test_ui_routes.py",
    "test_training_finetune_clip.py",
    "test_media_cut.py",
    "test_ui_jobs.py",
    "test_media_workers.py",
)
"""Files of tests that take longest, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first, so that no process is left alone with one of them at the end."""
    order = {name: number for number, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="a skipped test is a failure")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.skipped and item.config.getoption("--no-skips"):
        report.outcome = "failed"
        report.longrepr = f"skipped with --no-skips: {report.longrepr}"


SHARED_VIDEOS = Path(__file__).parents[2] / "shared/data/videos"


@pytest.fixture(scope="session")
def shared_videos() -> Path:
    """The folder of real videos; without it the test is skipped."""
    if not SHARED_VIDEOS.is_dir():
        pytest.skip("the folder of real videos is not on this machine")
    return SHARED_VIDEOS


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a user without a home folder: neither HOME nor an entry in the list of users."""

    def unknown(uid: int) -> NoReturn:
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
