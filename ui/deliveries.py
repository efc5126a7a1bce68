"""Matches of saved searches in new videos, delivered by a command or a webhook in threads of their own.

    deliveries = Deliveries([run_command(["notify-send", "Scanonce"])], report=print)
    deliveries.put(b'{"name": "boats"}')         # returns at once
    deliveries.close()

What cannot be delivered is tried again after a second, two, four and so on. A queue is bounded: while a place does not
answer, the oldest messages for it are dropped, with a line.
"""

import subprocess
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias

from scanonce.ui.webhook import Refusal

Send: TypeAlias = Callable[[bytes], Refusal | None]
"""Delivers a message; returns None if it was taken."""

MOST_WAITING = 1000
"""Messages that wait for one place."""
TRIES = 8
"""Times that a message is tried: over two minutes."""
_FIRST_PAUSE_SECONDS = 1.0
_COMMAND_SECONDS = 60.0
_CLOSE_SECONDS = 5.0


def run_command(words: Sequence[str]) -> Send:
    """Return what runs a command for each message, without a shell, with the message on standard input.

    Args:
        words: the program and its arguments.
    """

    def send(message: bytes) -> Refusal | None:
        try:
            subprocess.run(
                words,
                input=message,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=_COMMAND_SECONDS,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode("utf-8", "replace").strip().splitlines()
            what = f"exit code {error.returncode}" + (f": {said[-1]}" if said else "")
            return Refusal(f"{words[0]} ended with {what}", may_pass=False)
        except subprocess.TimeoutExpired:
            return Refusal(f"{words[0]} took over {_COMMAND_SECONDS:.0f} s", may_pass=False)
        except (OSError, ValueError) as error:
            return Refusal(f"{words[0]} cannot be run: {error}", may_pass=False)
        return None

    return send


class Deliveries:
    """A queue and a thread for each place; `put` never waits."""

    def __init__(
        self,
        sends: Sequence[Send],
        *,
        report: Callable[[str], object],
        first_pause_seconds: float = _FIRST_PAUSE_SECONDS,
    ) -> None:
        """Start the threads.

        Args:
            sends: the places.
            report: called with a line for people if a message is given up.
            first_pause_seconds: until the second try; each further pause is twice as long.
        """
        self._places = [_Place(send, report, first_pause_seconds) for send in sends]

    def put(self, message: bytes) -> None:
        """Queue a message for all places."""
        for place in self._places:
            place.put(message)

    def close(self, seconds: float = _CLOSE_SECONDS) -> None:
        """Deliver what waits for at most some seconds; pauses before another try are left out."""
        for place in self._places:
            place.end()
        for place in self._places:
            place.thread.join(seconds)


class _Place:
    """The queue and the thread of one place."""

    def __init__(self, send: Send, report: Callable[[str], object], pause_seconds: float) -> None:
        self._send, self._report, self._pause_seconds = send, report, pause_seconds
        self._waiting: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._is_ending = threading.Event()
        self.thread = threading.Thread(target=self._run, name="delivery", daemon=True)
        self.thread.start()

    def put(self, message: bytes) -> None:
        with self._changed:
            is_full = len(self._waiting) == MOST_WAITING
            if is_full:
                self._waiting.popleft()
            self._waiting.append(message)
            self._changed.notify()
        if is_full:
            self._report(f"{MOST_WAITING:,} messages wait: the oldest is dropped")

    def end(self) -> None:
        with self._changed:
            self._is_ending.set()
            self._changed.notify()

    def _run(self) -> None:
        while (message := self._next()) is not None:
            self._deliver(message)

    def _next(self) -> bytes | None:
        """Wait for a message; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_ending.is_set())
            return self._waiting.popleft() if self._waiting else None

    def _deliver(self, message: bytes) -> None:
        pause = self._pause_seconds
        for number in range(1, TRIES + 1):
            refusal = self._send(message)
            if refusal is None:
                return
            if not refusal.may_pass or number == TRIES or self._is_ending.wait(pause):
                self._report(f"a message is given up: {refusal.reason}")
                return
            pause *= 2
