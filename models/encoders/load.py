"""The two towers of a checkpoint behind one narrow interface, and how one is found by name.

    encoder = load_encoder("bundled")
    frames = encoder.encode_frames(images)          # [N, H, W, 3] uint8 -> [N, dim]
    query = unit(encoder.encode_texts(["a red car at night"]))

Both return *raw* projected features, as the published SOONet wants its frames; `models.clip4clip.pooling.unit` makes
embeddings.
"""

from __future__ import annotations

from scanonce.models.encoders.hub import find_folder
from scanonce.models.encoders.protocol import ClipEncoder, Towers
from scanonce.models.settings import ModelSettings


def load_encoder(
    name: str, settings: ModelSettings | None = None, *, towers: Towers = "both"
) -> ClipEncoder:
    """The encoder of that name, ready on its device.

    Args:
        name: ``bundled``, a local folder, or a hub id such as ``openai/clip-vit-base-patch32``.
        settings: device, number format and what computes the vision tower.
        towers: what is needed; the other tower's memory is given back.

    Raises:
        EncoderUnavailable: not on this machine, and the hub cannot be reached.
        EncoderError: the folder is not a dual encoder we can use, or the OpenVINO asked for is not installed.
    """
    folder = find_folder(name)
    settings = settings or ModelSettings()
    # torch and transformers take seconds to import
    if settings.backend == "openvino" and towers != "text":  # the text tower is torch's anyway
        from scanonce.models.encoders.openvino import OpenVinoEncoder

        return OpenVinoEncoder(name, folder, settings, towers=towers)
    from scanonce.models.encoders.clip import TransformersEncoder

    return TransformersEncoder(name, folder, settings, towers=towers)
