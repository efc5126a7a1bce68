"""The models of an index: loads those it was made with, or those for a new index."""

from dataclasses import dataclass

from scanonce.indexer.settings import IndexerSettings
from scanonce.models.encoders.hub import head_digest
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
    """Return the name of the encoder to load: ``asked``, else that of the index, else that of the settings."""
    return asked or (known.encoder if known else settings.encoder)


def load_models(
    known: Manifest | None,
    settings: ModelSettings,
    sampling: IndexerSettings,
    *,
    encoder: str | None = None,
    from_scratch: bool = False,
) -> LoadedModels:
    """Load the encoder and the localiser.

    Args:
        known: the manifest of the index; None if there is no index yet.
        settings: names of the models for a new index; device and number format.
        sampling: settings of the index, which a trained localiser has to fit.
        encoder: name of another encoder than that of the index.
        from_scratch: load the localiser of the settings, not that of the index.

    Raises:
        EncoderError: the encoder cannot be loaded.
        LocaliserError: the localiser cannot be loaded, or does not fit.
    """
    loaded = load_encoder(encoder_name(known, encoder, settings), settings, towers="vision")
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
    return LoadedModels(loaded, localiser)


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
