"""A list of links with captions -> images on disk: rate-limited, resumable, and from public addresses only."""

from __future__ import annotations

from .collect import Duplicates, collect
from .limits import Limits
from .links import Link, read_links

__all__ = ["Duplicates", "Limits", "Link", "collect", "read_links"]
