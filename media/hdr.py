"""HDR and wide-gamut colours as a BT.709 screen shows them: a look-up table for FFmpeg's ``haldclut`` filter.

The table goes from R'G'B' codes to linear light relative to white (PQ and HLG: 203 cd/m2, BT.2408), to BT.709
primaries, through a tone curve, and back to codes of a BT.1886 screen:

>>> light_of(np.array([0.5807]), "pq").round(2)  # the code of 203 cd/m2
array([1.])
>>> roll_off(np.array([0.5, 1.0, PEAK])).round(3)  # half of white is kept, brighter light is compressed
array([0.5  , 0.875, 1.   ])
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorTrc
from numpy.typing import NDArray

Transfer = Literal["pq", "hlg", "sdr"]
Primaries = Literal["bt2020", "p3", "bt709"]
Colours = tuple[Transfer, Primaries]
Floats = NDArray[np.float64]

WHITE_NITS = 203.0
"""Light of white paper in HDR video, cd/m2 (BT.2408)."""
PEAK = 1000.0 / WHITE_NITS
"""Light relative to white that becomes the brightest colour; more is clipped."""
CUBE_SIDE = 64
"""Values of each channel in the table: a quarter of an 8-bit step from exact on average, five steps at most in
pictures; more in the darkest channel of colours at the edge of BT.709."""

_KNEE = 0.75  # light above it is compressed
_SCREEN_GAMMA = 2.4  # BT.1886
_HLG_PEAK_NITS = 1000.0
_HLG_SYSTEM_GAMMA = 1.2  # of a screen of 1,000 cd/m2 (BT.2100)
_LUMA_2020 = np.array([0.2627, 0.6780, 0.0593])
_TO_BT709 = {
    "bt2020": np.array(  # BT.2087
        [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
    ),
    "p3": np.array([[1.2249, -0.2249, 0.0], [-0.0421, 1.0421, 0.0], [-0.0196, -0.0786, 1.0983]]),
    "bt709": np.eye(3),
}


def colours_of(frame: VideoFrame) -> Colours | None:
    """Return what has to be mapped to BT.709; None if the colours of the frame are shown as they are."""
    primaries: Primaries = "bt709"
    if frame.color_primaries == ColorPrimaries.SMPTE432:
        primaries = "p3"
    elif frame.color_primaries == ColorPrimaries.BT2020:
        primaries = "bt2020"
    if frame.color_trc in (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67):
        if frame.color_primaries == ColorPrimaries.UNSPECIFIED:
            primaries = "bt2020"
        return ("pq" if frame.color_trc == ColorTrc.SMPTE2084 else "hlg"), primaries
    return None if primaries == "bt709" else ("sdr", primaries)


def light_of(codes: Floats, transfer: Transfer) -> Floats:
    """Return light relative to white for R'G'B' codes in [0, 1].

    Args:
        codes: ``[..., 3]``; of grey, one channel is enough.
        transfer: PQ (SMPTE ST 2084) and HLG by BT.2100, of a screen of 1,000 cd/m2; or BT.1886.
    """
    if transfer == "pq":
        power = codes ** (32 / 2523)
        linear = np.maximum(power - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * power)
        return np.asarray(10_000 / WHITE_NITS * linear ** (16384 / 2610))
    if transfer == "hlg":
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(codes <= 0.5, codes**2 / 3, (np.exp((codes - c) / a) + b) / 12)
        luma = scene @ _LUMA_2020 if codes.shape[-1] == 3 else scene[..., 0]
        gain = _HLG_PEAK_NITS / WHITE_NITS * luma ** (_HLG_SYSTEM_GAMMA - 1)
        return np.asarray(gain[..., None] * scene)
    return np.asarray(codes**_SCREEN_GAMMA)


def roll_off(light: Floats) -> Floats:
    """Return light in [0, 1] for light relative to white: kept up to a knee, from there Reinhard's extended curve.

    The curve has the slope 1 at the knee, and is 1 at `PEAK`.
    """
    room = 1.0 - _KNEE
    above, peak = (np.clip(light, _KNEE, PEAK) - _KNEE) / room, (PEAK - _KNEE) / room
    return np.minimum(light, _KNEE) + room * above * (1 + above / peak**2) / (1 + above)


def to_bt709(codes: Floats, colours: Colours) -> Floats:
    """Return ``[n, 3]`` BT.709 codes for ``[n, 3]`` codes, both R'G'B' in [0, 1].

    The tone curve takes the brightest channel and scales all three by the same, so that hues stay.
    Colours outside of BT.709 are clipped.
    """
    transfer, primaries = colours
    light = np.maximum(light_of(codes, transfer) @ _TO_BT709[primaries].T, 0)
    if transfer != "sdr":
        brightest = light.max(axis=-1, keepdims=True)
        light *= roll_off(brightest) / np.maximum(brightest, 1e-9)
    return np.asarray(np.clip(light, 0, 1) ** (1 / _SCREEN_GAMMA))


@cache
def hald_image(colours: Colours) -> NDArray[np.uint16]:
    """Return the table as ``[512, 512, 3]``: in the order of its pixels, red changes fastest and blue slowest."""
    steps = np.linspace(0, 1, CUBE_SIDE)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
    codes = np.stack([red, green, blue], axis=-1).reshape(-1, 3)
    side = round(CUBE_SIDE**1.5)
    table = np.round(to_bt709(codes, colours) * 65535).astype(np.uint16)
    return table.reshape(side, side, 3)
