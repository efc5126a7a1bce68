"""What is on disk, and the types everyone shares."""

from storage.errors import ScanonceError
from storage.records import Moment, Span, Video

__all__ = ["Moment", "ScanonceError", "Span", "Video"]
