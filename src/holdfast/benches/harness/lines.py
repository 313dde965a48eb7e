"""A file of JSON lines that holds whatever was finished, however the run ends."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.benches.harness.report import finite


def append_line(path: Path, document: Mapping[str, Any]) -> None:
    """Write one document on a line of its own, down to the disk, in one call: several processes may do so."""
    line = json.dumps(finite(document), allow_nan=False) + "\n"
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":  # somebody died while writing
            line = "\n" + line
        os.write(file, line.encode())
        os.fsync(file)
    finally:
        os.close(file)
