"""Shared by all tests: shapes in signatures are checked at run time where beartype is installed."""

from __future__ import annotations

import contextlib

with contextlib.suppress(ImportError):
    import beartype  # noqa: F401
    from jaxtyping import install_import_hook

    rooms = [f"holdfast.{room}" for room in ("nn", "optim", "data", "models", "rl", "probes")]
    install_import_hook(rooms, "beartype.beartype")
