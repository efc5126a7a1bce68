"""Loading an encoder by name.

    encoder = load_encoder("bundled")
    frames = encoder.encode_frames(images)          # [N, H, W, 3] uint8 -> [N, dim]
    query = unit(encoder.encode_texts(["a red car at night"]))

Both towers return *raw* projected features, which the published SOONet expects of its frames;
`scanonce.models.vectors.unit` makes embeddings of them.
"""

from scanonce.models.encoders.hub import find_folder
from scanonce.models.encoders.offline_weights import CONCEPTS_NAME
from scanonce.models.encoders.protocol import ClipEncoder, Towers
from scanonce.models.settings import ModelSettings


def load_encoder(
    name: str, settings: ModelSettings | None = None, *, towers: Towers = "both"
) -> ClipEncoder:
    """Load an encoder onto its device.

    Args:
        name: ``bundled``, ``concepts``, a local folder, or a hub id such as ``openai/clip-vit-base-patch32``.
        settings: device, number format and back end of the vision tower.
        towers: towers that are needed; the memory of the other one is released.

    Raises:
        EncoderUnavailable: the encoder is not on this machine, and the hub cannot be reached.
        EncoderError: the folder holds no usable dual encoder, or OpenVINO was asked for and is not installed.
    """
    settings = settings or ModelSettings()
    if name == CONCEPTS_NAME:  # computes in torch, whatever the back end of other encoders
        from scanonce.models.encoders.concepts import ConceptsEncoder

        return ConceptsEncoder(settings, towers=towers)
    folder = find_folder(name)
    # torch and transformers take seconds to import
    if settings.backend == "openvino" and towers != "text":  # the text tower runs in torch anyway
        from scanonce.models.encoders.openvino import OpenVinoEncoder

        return OpenVinoEncoder(name, folder, settings, towers=towers)
    from scanonce.models.encoders.clip import TransformersEncoder

    return TransformersEncoder(name, folder, settings, towers=towers)
