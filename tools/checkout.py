"""Puts this checkout on the import path: a script that imports this finds comfy_scoft and the tests' helpers."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path += [str(ROOT), str(ROOT / "tests")]
