"""Folders of images with captions -> `Dataset`, and back to a folder."""

from __future__ import annotations

from .find import has_metadata, holds_dataset
from .folder import DATASET_PARTS, counts, load_folder
from .save import from_images, save_dataset

__all__ = ["DATASET_PARTS", "counts", "from_images", "has_metadata", "holds_dataset", "load_folder", "save_dataset"]
