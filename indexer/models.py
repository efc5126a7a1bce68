"""The models of an index: loads those it was made with, or those for a new index."""

from dataclasses import dataclass

from scanonce.indexer.settings import IndexerSettings
from scanonce.models.encoders.check import check_encoder
from scanonce.models.encoders.hub import head_digest, with_width
from scanonce.models.encoders.load import load_encoder
from scanonce.models.encoders.protocol import ClipEncoder
from scanonce.models.settings import ModelSettings
from scanonce.models.soonet.trained import NO_LOCALISER, TrainedLocaliser, choose_localiser
from scanonce.storage.manifest import Manifest


@dataclass(frozen=True, slots=True)
class LoadedModels:
    """The models that index videos."""

    encoder: ClipEncoder
    """The encoder with its vision tower."""
    localiser: TrainedLocaliser | None

    def are_of(self, manifest: Manifest) -> bool:
        """Whether an index was made with these models."""
        localiser = self.localiser.name if self.localiser else None
        mine = (self.encoder.name, self.encoder.fingerprint, localiser)
        return (manifest.encoder, manifest.fingerprint, manifest.localiser) == mine


def encoder_name(known: Manifest | None, asked: str | None, settings: ModelSettings) -> str:
    """Return the name of the encoder to load: ``asked``, else that of the index, else that of the settings.

    The name of an index has its width (`models.encoders.hub.split_width`); the others get that of the settings.
    """
    if known and not asked:
        return known.encoder
    return with_width(asked or settings.encoder, settings.dim)


def load_models(
    known: Manifest | None,
    settings: ModelSettings,
    sampling: IndexerSettings,
    *,
    encoder: str | None = None,
    from_scratch: bool = False,
) -> LoadedModels:
    """Load the encoder and the localiser, and check both unless they were checked before.

    Args:
        known: the manifest of the index; None if there is no index yet.
        settings: names of the models for a new index; device and number format.
        sampling: settings of the index, which a trained localiser has to fit.
        encoder: name of another encoder than that of the index.
        from_scratch: load the localiser of the settings, not that of the index.

    Raises:
        EncoderError: the encoder cannot be loaded, or one of its sides does not work.
        LocaliserError: the localiser cannot be loaded, or does not fit.
    """
    name = encoder_name(known, encoder, settings)
    loaded = load_encoder(name, settings, towers="vision")

    def load_text() -> ClipEncoder:
        return load_encoder(name, settings, towers="text")

    check_encoder(loaded, load_text)
    if known is None or from_scratch:
        named = settings.localiser
    elif known.fingerprint == loaded.fingerprint:
        named = known.localiser or NO_LOCALISER
    else:  # another encoder, which indexing will refuse: the localiser of the index does not fit it
        named = NO_LOCALISER
    localiser = choose_localiser(
        named,
        fingerprint=loaded.fingerprint,
        dim=loaded.dim,
        sampling=sampling.sampling,
        fps=sampling.sample_fps,
        device=settings.device,
    )
    if localiser is not None and (known is None or localiser.name != known.localiser):
        check_texts(localiser, load_text())
    return LoadedModels(loaded, localiser)


def check_texts(localiser: TrainedLocaliser, encoder: ClipEncoder) -> None:
    """Check that a localiser reads the texts of an encoder, which is loaded with its text tower.

    Raises:
        LocaliserError: the texts have another width than it reads.
    """
    localiser.texts(encoder.encode_text_features(["a door opens"]))


def make_manifest(
    encoder: ClipEncoder, settings: IndexerSettings, localiser: TrainedLocaliser | None = None
) -> Manifest:
    """Return the manifest of a new index with this encoder, these settings and this localiser."""
    digest, reranks = head_digest(encoder.head_files), False
    if digest is not None:
        from scanonce.models.clip4clip.head_files import (
            only_reranks,
        )  # torch takes seconds to import

        reranks = only_reranks(encoder.head_files)
    return Manifest(
        encoder=encoder.name,
        fingerprint=encoder.fingerprint,
        dim=encoder.dim,
        sampling=settings.sampling,
        sample_fps=settings.sample_fps,
        clip_scales_seconds=settings.clip_scales_seconds,
        clip_stride_ratio=settings.clip_stride_ratio,
        localiser=localiser.name if localiser else None,
        anchors=f"{localiser.folder}-0" if localiser else None,
        exact_times=True,
        head=None if reranks else digest,
        reranker=digest if reranks else None,
    )
