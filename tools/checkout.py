"""Puts this checkout on the import path: a script that imports this finds comfy_scoft and the tests' helpers, and can
print any name to any console."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path += [str(ROOT), str(ROOT / "tests")]

from comfy_scoft.common.console import printable_streams  # noqa: E402  (needs the path above)

printable_streams()
