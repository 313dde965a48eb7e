"""Shared by the tests of Rainbow."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Signatures are not checked meanwhile: a training of thousands of calls takes seconds, not minutes."""
    try:
        from jaxtyping import config
    except ImportError:
        yield
        return
    config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", False)
