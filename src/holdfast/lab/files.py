"""The files of a store: flushed when written, read only where they are plain files, some sealed with a checksum."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SEAL = "sha256"
"""Last entry of a sealed document: the checksum of the rest."""


def read(path: Path) -> bytes:
    """All of a file. A pipe, a socket or a device in its place is not waited for.

    Errors:
        OSError: it is not there, is no plain file or cannot be read.
    """
    if path.exists() and not path.is_file():
        raise OSError(f"{path.name} is no plain file")
    return path.read_bytes()


def write(path: Path, content: bytes) -> None:
    """Write a file through to the disk.

    Errors:
        OSError: it cannot be written.
    """
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def checksum(content: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def to_bytes(document: Any) -> bytes:
    """A document as JSON for people and programs to read. Half a surrogate pair, which UTF-8 lacks, is escaped."""
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode("utf-8", "backslashreplace")


def from_bytes(content: bytes) -> Any:
    """The document in a file.

    Errors:
        ValueError: it is not JSON, or nested too deep to be a document of ours.
    """
    try:
        return json.loads(content.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def seal(document: Mapping[str, Any]) -> bytes:
    """A document with the checksum of its own bytes as the last entry."""
    return to_bytes({**document, SEAL: checksum(to_bytes(document))})


def unseal(content: bytes) -> dict[str, Any]:
    """The document that was sealed.

    Errors:
        ValueError: a byte of it has changed.
    """
    document = from_bytes(content)
    if not isinstance(document, dict) or SEAL not in document:
        raise ValueError("it has no checksum")
    inner = {name: value for name, value in document.items() if name != SEAL}
    if seal(inner) != content:
        raise ValueError("its checksum differs")
    return inner
