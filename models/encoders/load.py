"""Loading an encoder by name.

    encoder = load_encoder("bundled")
    frames = encoder.encode_frames(images)          # [N, H, W, 3] uint8 -> [N, dim]
    query = unit(encoder.encode_texts(["a red car at night"]))

Both towers return *raw* projected features, which the published SOONet expects of its frames;
`scanonce.models.vectors.unit` makes embeddings of them.
"""

from pathlib import Path

from scanonce.models.encoders.hub import find_folder, split_width
from scanonce.models.encoders.protocol import ClipEncoder, Towers
from scanonce.models.offline_weights import CONCEPTS_NAME
from scanonce.models.settings import ModelSettings
from scanonce.storage.errors import EncoderError


def load_encoder(
    name: str, settings: ModelSettings | None = None, *, towers: Towers = "both"
) -> ClipEncoder:
    """Load an encoder onto its device.

    Args:
        name: ``bundled``, ``concepts``, a local folder, or a hub id such as ``openai/clip-vit-base-patch32``. A joint
            embedding model may have a width behind it, as in ``google/embeddinggemma-2@256``.
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
    return _load(name, folder, settings, towers)


def _load(name: str, folder: Path, settings: ModelSettings, towers: Towers) -> ClipEncoder:
    # torch and transformers take seconds to import
    from scanonce.models.encoders.files import read_family

    family, width = read_family(folder, name), split_width(name)[1]
    if width is not None and not family.is_joint:
        raise EncoderError(
            f'encoder "{name}": the vectors of {family.name} cannot be shortened to {width} numbers. '
            "Set models.dim to 0, and name the encoder without @."
        )
    if (family.patches or family.is_video) and settings.backend == "openvino":
        raise EncoderError(
            f'encoder "{name}": {family.name} runs in torch only. Set models.backend to "torch".'
        )
    if family.is_joint:
        from scanonce.models.encoders.joint import JointEncoder

        return JointEncoder(name, folder, settings, towers=towers, width=width)
    if family.is_video:
        from scanonce.models.encoders.video import VideoEncoder

        return VideoEncoder(name, folder, settings, towers=towers)
    if settings.backend == "openvino" and towers != "text":  # the text tower runs in torch anyway
        from scanonce.models.encoders.openvino import OpenVinoEncoder

        return OpenVinoEncoder(name, folder, settings, towers=towers)
    from scanonce.models.encoders.clip import TransformersEncoder

    return TransformersEncoder(name, folder, settings, towers=towers)
