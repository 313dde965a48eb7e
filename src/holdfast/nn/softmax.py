"""The softmax with a temperature for each row, and the entropy that decides it.

Both begin alike: shift each row by its maximum, in float32 or better, and know which keys are hidden. From there

    H = ln s - t / s    with  s = sum exp z  and  t = sum z exp z
    weights = exp(beta(H) z) / sum exp(beta(H) z)
"""

from __future__ import annotations

import math
import warnings

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from holdfast.errors import ArgumentError
from holdfast.nn.masking import hidden_keys
from holdfast.nn.temperature import PUBLISHED, AdaptiveTemperature

INACTIVE_SHARE = 0.1
"""Share of rows above the law's reach from which `adaptive_softmax` warns."""


class CorrectionInactiveWarning(UserWarning):
    """Many rows have an entropy beyond the reach of the law, which leaves them as they are."""


def adaptive_softmax(
    logits: Float[Tensor, "*shape"],
    dim: int = -1,
    *,
    mask: Bool[Tensor, "*mask"] | None = None,
    temperature: AdaptiveTemperature | None = None,
    detach: bool = True,
) -> Float[Tensor, "*shape"]:
    """Softmax with an inverse temperature that each row's own entropy decides.

    Statistics are taken in float32 (float64 for float64 logits). On the CPU, outside `torch.compile`, the
    first call that finds more than a tenth of the rows beyond the law's reach warns; elsewhere that look
    would cost a synchronisation, and `inactive_share` takes it on demand.

    Arguments:
        logits: already scaled, biased and softcapped; float16, bfloat16, float32 or float64. A logit of -inf,
            or of at most half the dtype's lowest value, counts as masked. Keys of other documents must be
            masked, and attention sinks included, for both count in the entropy.
        dim: the dimension of the keys.
        mask: True = visible; broadcasts to the shape of `logits`.
        temperature: the law; `None`: the published one.
        detach: treat beta as a constant in the backward pass. The paper's code does not: `False` follows it.

    Returns:
        weights of the shape and dtype of `logits` that sum to 1 along `dim`; zeros in a row without a visible
        key; NaN in a row with a visible NaN or +inf, and in no other.

    Errors:
        ArgumentError: no keys, another dtype, or a mask that does not fit.

    Source: arXiv 2410.01104, section 3 and figure 4.
    """
    law = PUBLISHED if temperature is None else temperature
    _check_softmax(logits, dim, mask)
    shifted, hidden, empty = shifted_rows(logits, dim, mask)
    entropy = row_entropy(shifted.detach() if detach else shifted, hidden, empty, dim)
    if not torch.compiler.is_compiling() and logits.device.type == "cpu":
        _warn_if_inactive(entropy, empty, law)
    # beta > 0, so that the shifted row's maximum stays 0 and needs no second pass.
    beta = law.beta(entropy).to(shifted.dtype)
    weight = (beta * shifted).exp().masked_fill(hidden, 0.0)
    total = weight.sum(dim, keepdim=True).masked_fill(empty, 1.0)
    return (weight / total).to(logits.dtype)


def entropy_of(
    logits: Float[Tensor, "*shape"], dim: int = -1, *, mask: Bool[Tensor, "*mask"] | None = None
) -> Float[Tensor, "*rows"]:
    """Shannon entropy, in nats, of softmax(logits) along a dimension.

    Arguments:
        logits: float16, bfloat16, float32 or float64. A logit of -inf, or of at most half the dtype's lowest
            value, counts as masked.
        dim: the dimension of the keys.
        mask: True = visible; broadcasts to the shape of `logits`.

    Returns:
        the entropy of each row, without `dim`, in float64 for float64 logits and in float32 for the others.
        0 for a row without a visible key; NaN for a row with a visible NaN or +inf.

    Errors:
        ArgumentError: no keys, another dtype, or a mask that does not fit.

    Source: arXiv 2410.01104, figure 4, without its 1e-9 inside the logarithm, which biases H by n x 1e-9 and
    is 0 in float16.
    """
    _check_softmax(logits, dim, mask)
    shifted, hidden, empty = shifted_rows(logits, dim, mask)
    return row_entropy(shifted, hidden, empty, dim).squeeze(dim).to(shifted.dtype)


def inactive_share(entropy: Float[Tensor, "*rows"], temperature: AdaptiveTemperature | None = None) -> float:
    """Share of rows whose entropy lies at or above the highest one at which the law acts.

    Such rows are too dispersed for the law and get a plain softmax: for the published law from 5.9445 nats,
    or about 381 equally weighted keys, on. Reads the tensor's values, so that it synchronises with an
    accelerator.

    Arguments:
        entropy: in nats, as `entropy_of` gives it; rows with NaN are left out.
        temperature: the law; `None`: the published one.

    Returns:
        a share from 0 to 1; 0 where there are no rows, or where the law has no upper end. 1 for a law that
        never acts.
    """
    law = PUBLISHED if temperature is None else temperature
    known = entropy.detach()[~entropy.detach().isnan()]
    if known.numel() == 0:
        return 0.0
    interval = law.active_interval
    if interval is None:
        return 1.0
    return (known >= interval[1]).double().mean().item()


def shifted_rows(logits: Tensor, dim: int = -1, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Shift each row by its maximum, in float32 or better.

    Returns:
        z - max z of the shape of `logits`, finite, 0 at hidden keys; which keys are hidden; which rows have
        no visible key (size 1 along `dim`).
    """
    x = logits.to(torch.promote_types(logits.dtype, torch.float32))
    # Masks write -inf, or finfo.min plus a score, which beta would make overflow. NaN counts as visible.
    hidden = hidden_keys(logits)
    if mask is not None:
        hidden = hidden | ~mask
    empty = hidden.all(dim, keepdim=True)
    # Nothing depends on the shift, so it needs no gradient.
    top = x.detach().masked_fill(hidden, -math.inf).amax(dim, keepdim=True).masked_fill(empty, 0.0)
    # The floor keeps a spread beyond the dtype's range from meeting exp(-inf) as -inf * 0.
    shifted = (x - top).masked_fill(hidden, 0.0).clamp(min=torch.finfo(x.dtype).min / 4)
    return shifted, hidden, empty


def row_entropy(shifted: Tensor, hidden: Tensor, empty: Tensor, dim: int = -1) -> Tensor:
    """Entropy in nats, `dim` kept: H = ln s - t / s, with s = sum e^z and t = sum z e^z, z shifted."""
    weight = shifted.exp().masked_fill(hidden, 0.0)
    # Sums of thousands of float32 terms lose the digits that the law's slope then multiplies.
    wide = shifted.dtype if shifted.device.type == "mps" else torch.float64
    s = weight.sum(dim, keepdim=True, dtype=wide).masked_fill(empty, 1.0)
    t = (shifted * weight).sum(dim, keepdim=True, dtype=wide)
    return s.log() - t / s


def _check_softmax(logits: Tensor, dim: int, mask: Tensor | None) -> None:
    """Refuse arguments that have no softmax."""
    if logits.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise ArgumentError("logits", "float16, bfloat16, float32 or float64", str(logits.dtype))
    if not -logits.ndim <= dim < logits.ndim:
        raise ArgumentError("dim", f"a dimension of logits of shape {tuple(logits.shape)}", dim)
    if logits.shape[dim] == 0:
        raise ArgumentError("logits", f"at least one key along dim {dim}", f"shape {tuple(logits.shape)}")
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise ArgumentError("mask", "bool (True = visible)", str(mask.dtype))
    pairs = zip(reversed(mask.shape), reversed(logits.shape), strict=False)
    if mask.ndim > logits.ndim or not all(have in (1, want) for have, want in pairs):
        raise ArgumentError("mask", f"a shape that broadcasts to {tuple(logits.shape)}", f"shape {tuple(mask.shape)}")


_warned: set[AdaptiveTemperature] = set()


def _warn_if_inactive(entropy: Tensor, empty: Tensor, law: AdaptiveTemperature) -> None:
    """Warn, once a law, that many rows are beyond its reach."""
    if law in _warned:
        return
    try:
        interval = law.active_interval
        if interval is None or interval[1] == math.inf:
            return
        beyond = int((entropy.detach() >= interval[1]).sum())
        rows = int((~empty).sum()) if beyond else 0
    except RuntimeError:  # inside vmap, or with fake tensors, there are no values to look at
        return
    if beyond > INACTIVE_SHARE * rows:
        _warned.add(law)
        warnings.warn(
            f"correction inactive: {beyond} of {rows} attention rows have an entropy above {interval[1]:.4f} "
            "nats, where this law leaves the softmax as it is; fit_temperature fits one that reaches further "
            "(said once a law)",
            CorrectionInactiveWarning,
            stacklevel=3,
        )
