"""A list of links with captions -> images on disk: politely, resumably, and from public addresses only."""

from __future__ import annotations

from .collect import Doubles, collect
from .limits import Limits
from .links import Link, read_links

__all__ = ["Doubles", "Limits", "Link", "collect", "read_links"]
