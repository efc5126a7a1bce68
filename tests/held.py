"""The command as a process that cannot end before its test has seen it at work.

    python -m tests.held index FILMS ...

As soon as a video is stored, the encoder waits until there is a file at the path in ``HELD_UNTIL``. All progress is
written at once, since none follows while it waits. Ctrl-C ends it as usual, even if the parent process ignores that
signal.
"""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from scanonce.models.encoders.clip import TransformersEncoder
from scanonce.storage.catalog.catalog import Catalog
from scanonce.ui import jobs
from scanonce.ui.cli import main

GATE = "HELD_UNTIL"


def _hold(gate: Path) -> None:
    stored = threading.Event()
    record, encode = Catalog.record_indexed, TransformersEncoder.encode_frames

    def recorded(self: Catalog, *arguments: Any, **options: Any) -> int:
        video_id = record(self, *arguments, **options)
        stored.set()
        return video_id

    def held(self: TransformersEncoder, frames: Any) -> Any:
        while stored.is_set() and not gate.exists():
            time.sleep(0.01)
        return encode(self, frames)

    Catalog.record_indexed = recorded  # type: ignore[method-assign]
    TransformersEncoder.encode_frames = held  # type: ignore[method-assign]


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    jobs._WRITE_SECONDS = 0.0
    _hold(Path(os.environ[GATE]))
    main()
