"""One stream of a file, demuxed and decoded however damaged it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet

from scanonce.media.clock import Splices
from scanonce.media.container import codec_name, find_video_stream, open_container
from scanonce.storage.errors import UnreadableVideo

MAX_ERRORS_IN_A_ROW = 200

_SENSIBLE_PACKET_BYTES = 256 << 20


class StreamDecoder:
    """Demuxes and decodes one stream. Errors are counted; too many without a frame between them end it."""

    def __init__(self, container: InputContainer, stream: Any) -> None:
        self.container = container
        self.stream = stream
        self.num_errors = 0
        self.gave_up = False
        """Whether there were `MAX_ERRORS_IN_A_ROW`."""
        self.is_read_whole = False
        """Whether the demuxer has come to the end of the file."""
        self.on_error: Callable[[], object] = lambda: None
        """Is called with every error."""
        self._num_errors_in_a_row = 0
        self.splices = Splices(container.format.name)
        """Its shift is that of the packets that came last."""

    @classmethod
    def of_video(cls, path: Path, threads: int = 0) -> StreamDecoder:
        """Open a file and decode its main video track, with ``threads`` threads or as many as the decoder likes.

        Raises:
            UnreadableVideo: there is none.
        """
        container = open_container(path)
        try:
            stream = find_video_stream(container)
        except BaseException:
            container.close()
            raise
        stream.thread_type = "AUTO"
        stream.thread_count = threads
        return cls(container, stream)

    @property
    def orders_by_dts(self) -> bool:
        """Whether times of frames are their decoding time stamps: AVI numbers frames in the order of decoding."""
        return bool(self.container.format.name == "avi")

    def close(self) -> None:
        """Close the file; may be called twice."""
        self.container.close()

    def restart(self) -> None:
        """Forget errors, after a seek."""
        self._num_errors_in_a_row = 0
        self.gave_up = False
        self.splices = Splices(self.container.format.name)

    def frames(self) -> Iterator[Any]:
        """All frames from the current position to the end of the file."""
        is_flushed = False
        for packet in self.packets():
            if packet.stream_index == self.stream.index:
                is_flushed = not packet.size
                yield from self.decode(None if is_flushed else packet)
        if not is_flushed:  # the mark of the end may be missing, see `packets`
            yield from self.decode(None)

    def decode(self, packet: Packet[Any] | None) -> list[Any]:
        """Frames that come out when ``packet`` goes in; None flushes the decoder.

        Raises:
            MemoryError: the decoder reached a memory limit, which is no damage of the file.
        """
        try:
            frames: list[Any] = self.stream.codec_context.decode(packet)
        except MemoryError:  # also one of FFmpeg's
            raise
        except av.FFmpegError:
            self.count_error()
            return []
        if frames:
            self._num_errors_in_a_row = 0
        return frames

    def packets(self) -> Iterator[Packet[Any]]:
        """The packets of the file; PyAV marks the end of each stream with an empty one."""
        while not self.gave_up:
            try:
                for packet in self.container.demux():
                    self.splices.mend(packet)
                    yield packet
                    if self.gave_up:
                        return
                self.is_read_whole = True
                return
            except IndexError:
                # at the end of the file, PyAV fails on a track that began in the middle of it
                self.is_read_whole = True
                return
            except MemoryError:
                if not _has_room():
                    raise
                self.count_error()  # a packet that claims to be larger than any
            except av.FFmpegError:  # the next packet may be readable again
                self.count_error()

    def count_error(self) -> None:
        """Count a packet or frame that could not be used."""
        self.num_errors += 1
        self._num_errors_in_a_row += 1
        self.gave_up |= self._num_errors_in_a_row >= MAX_ERRORS_IN_A_ROW
        self.on_error()

    def describe_no_frame(self) -> UnreadableVideo:
        """The error of a video track of which nothing can be decoded."""
        return UnreadableVideo(
            f"it has a {codec_name(self.stream)} video track but no frame of it can be decoded: "
            "copy or download it again"
        )


def _has_room() -> bool:
    """Whether there is memory left for packets of any sensible size."""
    try:
        np.empty(_SENSIBLE_PACKET_BYTES, np.uint8)  # not written to, so nothing is really taken
    except MemoryError:
        return False
    return True
