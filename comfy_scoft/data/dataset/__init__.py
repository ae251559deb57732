"""The data layer: folders of images and words -> records -> aligned tensors, and back to a folder."""

from __future__ import annotations

from .find import holds_dataset
from .folder import DATASET_PARTS, counts, load_folder
from .images import EXTENSIONS, MAX_PIXELS, aligned, bucket, check_image, image_size, open_image
from .save import from_images, save_dataset

__all__ = [
    "DATASET_PARTS",
    "EXTENSIONS",
    "MAX_PIXELS",
    "aligned",
    "bucket",
    "check_image",
    "counts",
    "from_images",
    "holds_dataset",
    "load_folder",
    "open_image",
    "image_size",
    "save_dataset",
]
