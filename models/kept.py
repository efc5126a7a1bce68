"""Files of what takes a moment to compute for an encoder, kept in the cache of the Hugging Face hub."""

import logging
from pathlib import Path

from huggingface_hub import cached_assets_path

logger = logging.getLogger(__name__)


def kept_file(kind: str, fingerprint: str, name: str) -> Path | None:
    """Return the path of a file that is kept for an encoder, which need not exist yet.

    Args:
        kind: the name of a folder.
        fingerprint: that of the encoder.
        name: of the file.

    Returns:
        None if nothing can be kept on this machine: no home folder, or a cache that cannot be read and written.
    """
    try:
        path = cached_assets_path("scanonce", namespace=kind, subfolder=fingerprint[:32]) / name
        path.exists()  # an error if the folder may not be entered
    except (OSError, RuntimeError, ValueError) as error:  # the others: no home, a file in the way
        logger.debug("nothing is kept of %s: %s", kind, error)
        return None
    return path
