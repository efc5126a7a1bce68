"""What is on disk, and the types everyone shares."""

from scanonce.storage.errors import ScanonceError
from scanonce.storage.records import Moment, Span, Video

__all__ = ["Moment", "ScanonceError", "Span", "Video"]
