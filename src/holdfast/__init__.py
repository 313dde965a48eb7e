"""Neural networks that hold up at lengths, tasks, data streams and pressures they were not trained for.

Importing the package is free: it loads neither torch nor any other heavy dependency.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.card import Card, CheckSettings
    from holdfast.card.checking import check

__version__ = "1.0.0"

__all__ = ["Card", "CheckSettings", "__version__", "check"]


def __getattr__(name: str) -> Any:
    """Load what answers `holdfast.check` when it is first asked for."""
    if name in ("Card", "CheckSettings", "check"):
        from holdfast import card

        return getattr(card, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Names that there are, whether loaded or not."""
    return sorted({*globals(), *__all__})
