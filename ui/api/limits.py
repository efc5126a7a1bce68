"""Limits of the HTTP API: the size of a request, the time of an answer, and how much is done at once."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import Any, ParamSpec, TypeVar

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

P = ParamSpec("P")
T = TypeVar("T")


class TooBusy(Exception):
    """As much is waiting as may wait."""


class TooSlow(Exception):
    """The answer took longer than it may take."""


class Lane:
    """Threads for one kind of work, with a limit on how much of it waits and how long one answer takes.

    Work that is too slow keeps its thread until it ends, since threads cannot be stopped, but nobody waits for it.
    """

    def __init__(self, name: str, threads: int, *, waiting: int, seconds: float) -> None:
        """
        Args:
            name: of the threads.
            threads: how much is done at once.
            waiting: how much may wait for a thread; more is refused.
            seconds: how long an answer may take, with its waiting.
        """
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._most, self._seconds = threads + waiting, seconds
        self._taken = 0
        self._lock = Lock()

    async def run(self, do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in a thread, and return what it returns.

        Raises:
            TooBusy: nothing more may wait.
            TooSlow: it took too long.
        """
        with self._lock:
            if self._taken >= self._most:
                raise TooBusy
            self._taken += 1
        future = self._pool.submit(partial(do, *args, **kwargs))
        future.add_done_callback(self._release)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self._seconds)
        except TimeoutError as error:
            if future.done() and not future.cancelled():
                raise  # the function itself raised it
            raise TooSlow from error

    def close(self) -> None:
        """Drop what waits."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _release(self, _: "Future[Any]") -> None:
        with self._lock:
            self._taken -= 1


class BodyTime:
    """ASGI middleware that refuses a body that comes too slowly. How long it may be is a limit of the application."""

    def __init__(self, app: ASGIApp, seconds: float = 60.0) -> None:
        """
        Args:
            app: the application, which answers an HTTPException.
            seconds: how long a body may take.
        """
        self._app, self._seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        end = asyncio.get_running_loop().time() + self._seconds
        is_complete = False

        async def timed() -> Message:
            nonlocal is_complete
            if (
                is_complete
            ):  # what follows is the end of the connection, which may take as long as it likes
                return await receive()
            try:
                async with asyncio.timeout_at(end):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, "the body of the request came too slowly") from None
            is_complete = not message.get("more_body", False)
            return message

        await self._app(scope, timed, send)
