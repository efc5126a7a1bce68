"""How many frames an encoder encodes a second on this machine.

frames_per_second(load_encoder("bundled", towers="vision"))
"""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from scanonce.models.encoders.protocol import ClipEncoder


def frames_per_second(encoder: ClipEncoder, seconds: float = 2.0) -> float:
    """Encode random frames as the indexer does, with as many calls at once as suit the device.

    Args:
        encoder: an encoder with its vision tower.
        seconds: least time to measure, after one round that is not counted.
    """
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (encoder.batch_frames, 90, 160, 3), np.uint8)
    batches = [encoder.preprocessing.resize(frames)] * encoder.max_concurrency
    rounds = 0
    with ThreadPoolExecutor(encoder.max_concurrency) as pool:
        list(pool.map(encoder.encode_frames, batches))
        started = time.perf_counter()
        while (passed := time.perf_counter() - started) < seconds or not rounds:
            list(pool.map(encoder.encode_frames, batches))
            rounds += 1
    return rounds * len(batches) * encoder.batch_frames / passed
