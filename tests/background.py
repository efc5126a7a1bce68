"""A function in a thread of the test, and waiting for its effects."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def in_background(
    function: Callable[[], object], stop: threading.Event, seconds: float = 300
) -> Iterator[None]:
    """Run a function in a thread; at the end, stop it and fail if it has raised anything.

    Args:
        function: runs until the event is set.
        stop: the event.
        seconds: the time in which it has to end, long enough for a busy machine.
    """
    failed: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(seconds)
    assert not thread.is_alive()
    assert not failed, failed


def wait_for(
    is_so: Callable[[], bool], seconds: float = 600, state: Callable[[], str] = lambda: ""
) -> None:
    """Wait until a condition holds.

    Args:
        is_so: the condition.
        seconds: the time after which the test fails.
        state: text for the failure.
    """
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until, state() or "it did not happen"
        time.sleep(0.02)
