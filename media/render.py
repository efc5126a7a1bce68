"""Decoded frames as they are shown: not interlaced, cropped, in BT.709 colours, upright, with square pixels."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from scanonce.media.filters import ColourFilter, FrameFilter
from scanonce.media.geometry import Geometry
from scanonce.media.hdr import colours_of


class Renderer:
    """Renders the frames of one video, each for itself."""

    def __init__(self, geometry: Geometry, threads: int = 1) -> None:
        """``threads`` map the colours of HDR video; 0 for as many as there are cores."""
        self._geometry = geometry
        self._field = FrameFilter(("field", "type=top"))
        crop = geometry.crop
        self._crop = FrameFilter(
            (
                "crop",
                f"w=in_w-{crop.left + crop.right}:h=in_h-{crop.top + crop.bottom}"
                f":x={crop.left}:y={crop.top}",
            )
        )
        self._to_bt709 = ColourFilter(threads)

    def image(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """Return ``[output_height, output_width, 3]`` RGB.

        Raises:
            av.FFmpegError, ValueError: the format of the frame cannot be converted.
        """
        geometry = self._geometry
        width, height = geometry.output_width, geometry.output_height
        if geometry.transpose:
            width, height = height, width
        is_reduced = geometry.output_height < geometry.height
        # averaging: 43 dB from the exact path at 224 pixels, and twice as fast as bicubic
        method = "AREA" if is_reduced else "BICUBIC"
        shown = self._in_bt709(self._shown_part(frame), width, height, method)
        rgb = shown.reformat(width, height, "rgb24", interpolation=method, threads=1).to_ndarray()
        return np.ascontiguousarray(self._turned(cast("NDArray[np.uint8]", rgb)))

    def yuv420(self, frame: VideoFrame, width: int, height: int) -> VideoFrame:
        """Return ``height x width``, both even, in 8 bit YUV 4:2:0 of limited range; SDR colours keep their matrix."""
        stored = (height, width) if self._geometry.transpose else (width, height)
        shown = self._in_bt709(self._shown_part(frame), *stored, "BICUBIC")
        is_yuv = shown.format.name.startswith(("yuv", "nv", "p0", "p2", "p4"))
        limited = shown.reformat(
            *stored,
            format="yuv420p",
            interpolation="BICUBIC",
            dst_colorspace=None if is_yuv else "ITU709",
            dst_color_range="MPEG",
        )
        upright = self._turned_yuv420(limited, width, height)
        upright.color_primaries, upright.color_trc = shown.color_primaries, shown.color_trc
        return upright

    def _shown_part(self, frame: VideoFrame) -> VideoFrame:
        if self._geometry.crop and (frame.width, frame.height) == self._geometry.stored_size:
            frame = self._crop(frame)
        return self._field(frame) if frame.interlaced_frame else frame

    def _in_bt709(self, frame: VideoFrame, width: int, height: int, method: str) -> VideoFrame:
        """Return an HDR or wide-gamut frame at its new size in BT.709; others as they are."""
        colours = colours_of(frame)
        if colours is None:
            return frame
        small = frame.reformat(width, height, "rgb48le", interpolation=method, threads=1)
        return self._to_bt709(small, colours)

    def _turned(self, plane: NDArray[Any]) -> NDArray[Any]:
        """Turn ``[height, width, ...]`` upright."""
        if self._geometry.transpose:
            plane = plane.swapaxes(0, 1)
        if self._geometry.flip_x:
            plane = plane[:, ::-1]
        return plane[::-1] if self._geometry.flip_y else plane

    def _turned_yuv420(self, frame: VideoFrame, width: int, height: int) -> VideoFrame:
        geometry = self._geometry
        if not (geometry.transpose or geometry.flip_x or geometry.flip_y):
            return frame
        columns, rows = (height, width) if geometry.transpose else (width, height)
        area = width * height
        y, u, v = np.split(frame.to_ndarray().reshape(-1), (area, area + area // 4))
        planes = [y.reshape(rows, columns)]
        planes += [plane.reshape(rows // 2, columns // 2) for plane in (u, v)]
        turned = np.concatenate([self._turned(plane).reshape(-1) for plane in planes])
        result = VideoFrame.from_ndarray(turned.reshape(height * 3 // 2, width), format="yuv420p")
        result.colorspace, result.color_range = frame.colorspace, frame.color_range
        return result
