"""Shared by all tests: shapes in signatures are checked at run time where beartype is installed."""

from __future__ import annotations

import contextlib
import os

# Several processes run tests side by side, and threads that wait for each other cost more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

# Triton reads it when it is imported, by whatever test comes first: without a GPU kernels run in its interpreter.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

with contextlib.suppress(ImportError):
    import beartype  # noqa: F401
    from jaxtyping import install_import_hook

    rooms = [f"holdfast.{room}" for room in ("nn", "optim", "data", "models", "rl", "probes")]
    # Data and networks that only one study uses; its parts import their types for readers only.
    rooms += [f"holdfast.studies.lists.{file}" for file in ("model", "tasks")]
    rooms += [
        f"holdfast.studies.sharpness.{file}" for file in ("clrs_text", "item_sets", "retrieval_net", "token_encoder")
    ]
    install_import_hook(rooms, "beartype.beartype")
