"""The index on disk, and the types all packages share.

Why it is as it is: docs/decisions.md, "Storage".
"""

from scanonce.storage.errors import ScanonceError
from scanonce.storage.records import Moment, Span, Video

__all__ = ["Moment", "ScanonceError", "Span", "Video"]
