"""The state that all pages share."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scanonce.search.training_free import TrainingFree
from scanonce.ui.config import Config
from scanonce.ui.pages.session import Shared
from tests.colours import ColourEncoder
from tests.ui_library import build_library


def test_a_slow_search_keeps_no_other_viewer_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scanonce.search.engine.load_encoder", lambda *_, **__: ColourEncoder())
    shared = Shared(build_library(tmp_path).root, Config())
    is_slow, may_end = threading.Event(), threading.Event()
    locate = TrainingFree.locate

    def slow(self: TrainingFree, query: object, *arguments: object, **options: object) -> object:
        if threading.current_thread().name.startswith("slow"):
            is_slow.set()
            assert may_end.wait(600)
        return locate(self, query, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(TrainingFree, "locate", slow)
    with ThreadPoolExecutor(1, "slow") as pool:
        try:
            waiting = pool.submit(lambda: shared.engine.search("red"))
            assert is_slow.wait(600)
            quick = shared.engine.search("red")
            assert not waiting.done()
        finally:
            may_end.set()
        assert waiting.result().moments == quick.moments
    shared.library.close()
