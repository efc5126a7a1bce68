"""Shared by tests: indexes as a caller opens them."""

from scanonce.models.clip4clip.pooling import open_pooling
from scanonce.storage.index import Index
from scanonce.storage.layout import IndexLayout
from scanonce.storage.settings import StorageSettings


def publish_all(layout: IndexLayout, settings: StorageSettings) -> None:
    """Bring the vector index in line with the catalogue."""
    with Index.open(layout, open_pooling) as index:
        index.publish(settings)
