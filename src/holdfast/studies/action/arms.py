"""The backbones that policies differ in, at the same number of parameters.

xlstm10      mLSTM blocks: xLSTM[1:0]
xlstm11      some of them sLSTM blocks: xLSTM[1:1] on small scales, what the paper calls xLSTM[7:1] on large ones
transformer  attention in a sliding window of as many timesteps as it is trained on, which is how such policies are run
rat          recurrence in chunks, attention across them
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.errors import ArgumentError

if TYPE_CHECKING:
    from holdfast.models.action.config import BackboneShape

ARMS = {"xlstm10": "xLSTM[1:0]", "xlstm11": "xLSTM[1:1]", "transformer": "transformer", "rat": "RAT"}
"""Arms, and how figures call them."""

COLOURS = {"xlstm10": "C0", "xlstm11": "C2", "transformer": "C1", "rat": "C3"}

PUBLISHED = {"16M": (512, 4, 8), "48M": (768, 6, 12), "206M": (1280, 10, 20)}
"""Width, layers and heads of the published transformers; xLSTM has twice the layers, without feed-forward ones."""

SIZES = ("tiny", "small", *PUBLISHED)


def backbone_of(arm: str, size: str, tokens: int) -> BackboneShape:
    """The backbone of an arm.

    Arguments:
        arm: its name.
        size: one of `SIZES`; "tiny" only runs, "small" has about 60,000 parameters.
        tokens: of the windows that it is trained on.

    Errors:
        ArgumentError: there is no such arm or size.
    """
    from holdfast.nn import XLSTM_SIZES, BackboneConfig, XLSTMConfig

    if arm not in ARMS:
        raise ArgumentError("arm", f"one of {', '.join(ARMS)}", repr(arm))
    if size not in SIZES:
        raise ArgumentError("size", f"one of {', '.join(SIZES)}", repr(size))
    if arm in ("xlstm10", "xlstm11"):
        if size in PUBLISHED:
            return XLSTM_SIZES[size if arm == "xlstm10" else f"{size}-slstm"]
        dim = 16 if size == "tiny" else 64 if arm == "xlstm10" else 54
        return XLSTMConfig(dim=dim, layers=2, heads=2, slstm_at=() if arm == "xlstm10" else (1,))
    dim, layers, heads = PUBLISHED.get(size, (16 if size == "tiny" else 48, 2, 4))
    mixer, groups = ("window", 2) if arm == "transformer" else ("rat", 1)
    return BackboneConfig(
        mixers=(mixer,) * layers, dim=dim, heads=heads, qk_groups=groups, chunk_size=16, window=tokens
    )
