"""Kernels are taken unasked only where they have been timed, and once they agree with PyTorch on the device at hand.

A compiler, a driver or a GPU that nobody has tried may make other numbers of a right kernel. So each kind of call is
tried once a process, on a small case of odd sizes, before the kernels compute the first one of their own accord.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterable

import torch
from torch import Tensor
from torch._subclasses import FakeTensor

MEASURED = ((9, 0),)
"""Compute capabilities at which the kernels have been timed."""

_AGREES: dict[Hashable, bool] = {}


class KernelWarning(UserWarning):
    """Kernels are not taken by themselves, for they disagree with PyTorch."""


def measured(tensor: Tensor) -> bool:
    """Whether kernels were timed, and faster, on the tensor's device and in its dtype."""
    if not tensor.is_cuda or tensor.dtype not in (torch.float16, torch.bfloat16) or torch.version.hip is not None:
        return False
    if isinstance(tensor, FakeTensor):  # it has no numbers for a kernel
        return False
    return torch.cuda.get_device_capability(tensor.device) in MEASURED


def agrees(kernels: str, like: Tensor, key: Hashable, pairs: Callable[[], Iterable[tuple[Tensor, Tensor]]]) -> bool:
    """Whether kernels agree with float64 on the device of a tensor and in its dtype; warns where they do not.

    Nothing is tried while a CUDA graph is captured: until then, no.

    Arguments:
        kernels: their name, for the warning.
        like: a tensor of the call.
        key: what else distinguishes kinds of calls.
        pairs: outputs of a small case, each with what it should be in float64.
    """
    kind = (kernels, like.device, like.dtype, key)
    if kind not in _AGREES:
        if like.is_cuda and torch.cuda.is_current_stream_capturing():
            return False
        _AGREES[kind] = _tried(kernels, like, pairs)
    return _AGREES[kind]


def _tried(kernels: str, like: Tensor, pairs: Callable[[], Iterable[tuple[Tensor, Tensor]]]) -> bool:
    limit = 1e-3 + 2 * torch.finfo(like.dtype).eps
    try:
        with torch.inference_mode(False), torch.autocast(like.device.type, enabled=False):
            far = max(_distance(found, exact) for found, exact in pairs())
        wrong = "" if far <= limit else f"are {far:.2g} from it, relative, above {limit:.2g}"
    except Exception as error:
        wrong = f"fail with {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    if wrong:
        text = (
            f"the Triton kernels of {kernels} are left out: on {like.device}, in {like.dtype}, a small case was tried"
        )
        warnings.warn(f"{text} beside PyTorch, and they {wrong}", KernelWarning, stacklevel=2)
    return not wrong


def _distance(found: Tensor, exact: Tensor) -> float:
    """Relative, in the 2-norm; infinite where a number is not finite."""
    distance = (found.double() - exact).norm() / exact.norm()
    return float(distance.nan_to_num(torch.inf, torch.inf))
