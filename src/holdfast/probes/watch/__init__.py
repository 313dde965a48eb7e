"""The cheap probes while a model trains, in the trainer's own log."""

from typing import TYPE_CHECKING

from holdfast.probes.watch.measures import watch_once
from holdfast.probes.watch.watching import Watch

if TYPE_CHECKING:
    from holdfast.probes.watch.huggingface import HoldfastCallback as HoldfastCallback

# Without the callback, so that `import *` needs none of the trainers.
__all__ = ["Watch", "watch_once"]


def __getattr__(name: str) -> object:
    """The callback of the Hugging Face Trainer, which needs a library that not everybody has."""
    if name == "HoldfastCallback":
        from holdfast.probes.watch.huggingface import HoldfastCallback

        return HoldfastCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
