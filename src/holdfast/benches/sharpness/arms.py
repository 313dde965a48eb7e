"""The arms that both benches of attention compare, and the check without which no time is reported.

- `sdpa`: PyTorch's fused attention, without adaptation; on a GPU its flash kernel. The peer.
- `cudnn`: the same by cuDNN, on a GPU that has it.
- `off`: ours with the plain softmax, which tells what the law costs.
- `adaptive`: ours with the published law: the Triton kernel on a GPU, tiles of logits on a CPU.
- `eager`: ours in PyTorch's own operations, on a GPU: what the kernel replaces.
"""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

from holdfast.benches.harness.timing import Arm
from holdfast.errors import ArgumentError
from holdfast.nn import CorrectionInactiveWarning, Plain, adaptive_attention, attention_weights

Kernels = Literal["triton", "reference"]

VARIABLE = "HOLDFAST_KERNELS"

ENTROPY = 3.5
"""Entropy in nats that rows of the inputs have, near enough, at any length: the published law acts there."""

PRODUCTS = ("mm", "bmm", "addmm", "baddbmm", "matmul")

ROWS = 16
"""Queries of each head that are compared with float64."""


@dataclass(frozen=True)
class Case:
    """One call of attention.

    Arguments:
        batch: sequences.
        heads: query heads.
        kv_heads: key heads, which divide them.
        queries: queries of each sequence; the last one stands at the last key.
        keys: keys of each sequence.
        head_dim: dimensions of a head.
        dtype: of all tensors, by its name in torch.
        causal: a query sees no key after it.
        padding: keys at the left that a mask hides, for all arms.
    """

    batch: int
    heads: int
    kv_heads: int
    queries: int
    keys: int
    head_dim: int
    dtype: str
    causal: bool
    padding: int = 0

    def tensors(self, device: str) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value, normally distributed, always the same.

        Logits of standard deviation s make the entropy of a long row ln n - s^2 / 2.
        """
        generator = torch.Generator(device).manual_seed(self.keys)
        options: dict[str, Any] = {"generator": generator, "device": device, "dtype": getattr(torch, self.dtype)}
        query = torch.randn(self.batch, self.heads, self.queries, self.head_dim, **options)
        key, value = (torch.randn(self.batch, self.kv_heads, self.keys, self.head_dim, **options) for _ in range(2))
        spread = math.sqrt(max(1.0, 2 * (math.log(self.keys) - ENTROPY)))
        return spread * query, key, value

    def mask(self, device: str) -> Tensor | None:
        """True = visible, (queries, keys): causality and padding, where there is padding."""
        if not self.padding:
            return None
        mask = torch.ones(self.queries, self.keys, dtype=torch.bool, device=device)
        if self.causal:
            mask = mask.tril(self.keys - self.queries)
        mask[:, : self.padding] = False
        return mask


@dataclass(frozen=True)
class Comparison:
    """The arms of one case, checked.

    Arguments:
        arms: what may be timed; the peer is `sdpa`.
        errors: distance of each of our arms from float64, relative, in the 2-norm over the rows looked at.
        wrong: why an arm must not be timed, by its name.
        peer: which of PyTorch's kernels `sdpa` is: `"flash"`, or the `"usual"` one that PyTorch chooses.
    """

    arms: dict[str, Arm]
    errors: dict[str, float]
    wrong: dict[str, str]
    peer: str


def device_of(device: str) -> str:
    """What `"auto"` is here: `"cuda"` where there is a GPU."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ArgumentError("device", "cpu, since this machine has no CUDA device", device)
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def check_sizes(heads: int, kv_heads: int, **sizes: int) -> None:
    """Sizes are positive, and key heads divide query heads."""
    for name, number in {"heads": heads, "kv_heads": kv_heads, **sizes}.items():
        if number < 1:
            raise ArgumentError(name, "at least 1", number)
    if heads % kv_heads:
        raise ArgumentError("kv_heads", f"a number that divides heads = {heads}", kv_heads)


@contextlib.contextmanager
def kernels(wanted: Kernels) -> Iterator[None]:
    """Choose our implementation, and be quiet about rows at which the law cannot act."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = wanted
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CorrectionInactiveWarning)
            yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def compare(case: Case, device: str, ours: Kernels, *, eager: bool) -> Comparison:
    """Make the arms of a case, and check ours against float64.

    Arguments:
        case: the call.
        device: `"cpu"` or `"cuda"`.
        ours: what computes `off` and `adaptive`.
        eager: with the arm `eager` too.
    """
    query, key, value = case.tensors(device)
    mask = case.mask(device)
    causal = case.causal and mask is None
    gqa = case.heads != case.kv_heads

    def sdpa() -> Tensor:
        return scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=causal and case.queries > 1, enable_gqa=gqa
        )

    def off() -> Tensor:
        return adaptive_attention(query, key, value, mask=mask, causal=causal, normaliser=Plain())

    def adaptive() -> Tensor:
        return adaptive_attention(query, key, value, mask=mask, causal=causal)

    own = {"off": Arm(off, lambda: kernels(ours)), "adaptive": Arm(adaptive, lambda: kernels(ours))}
    if eager:
        own["eager"] = Arm(adaptive, lambda: kernels("reference"))
    rows, plain, sharpened = _exact(query, key, value, mask, case.causal)
    tolerance = 1e-3 + 2 * torch.finfo(query.dtype).eps
    if not _distance(plain, sharpened) > 4 * tolerance:
        raise ArgumentError("lengths", "inputs on which the law changes the output", f"{case.keys} keys")
    errors: dict[str, float] = {}
    wrong: dict[str, str] = {}
    for name, arm in own.items():
        try:
            expected = plain if name == "off" else sharpened
            errors[name], why = _error(arm, rows, expected, kernel=ours == "triton" and name != "eager")
            if not why and not errors[name] <= tolerance:
                why = f"its distance from float64 is {errors[name]:.2g}, above {tolerance:.2g}"
        except Exception as error:
            why = f"{type(error).__name__}: {error}".splitlines()[0]
        if why:
            wrong[name] = why
    arms = _fused(sdpa) if device == "cuda" else {}
    peer = "flash" if "sdpa" in arms else "usual"
    arms = {"sdpa": Arm(sdpa)} | arms | {name: arm for name, arm in own.items() if name not in wrong}
    return Comparison(arms, errors, wrong, peer)


def _fused(sdpa: Callable[[], Tensor]) -> dict[str, Arm]:
    """The peer by the flash kernel, and by cuDNN's, where these take the inputs."""
    arms: dict[str, Arm] = {}
    for name, backend in (("sdpa", SDPBackend.FLASH_ATTENTION), ("cudnn", SDPBackend.CUDNN_ATTENTION)):
        arm = Arm(sdpa, lambda backend=backend: sdpa_kernel(backend))  # type: ignore[misc]
        with contextlib.suppress(RuntimeError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch warns about every reason why a kernel refuses
            with arm.setting():
                arm.call()
            torch.cuda.synchronize()
            arms[name] = arm
    return arms


def _exact(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Some rows, and the output there without and with the law: all scores in memory, in float64."""
    queries, keys = query.shape[2], key.shape[2]
    rows = torch.linspace(0, queries - 1, min(ROWS, queries), device=query.device).long()
    columns = torch.arange(keys, device=query.device).expand(len(rows), keys)
    visible = columns <= rows[:, None] + (keys - queries) if causal else columns >= 0
    if mask is not None:
        visible = visible & mask[rows]
    asked, k, v = query[:, :, rows].double(), key.double(), value.double()
    with kernels("reference"):
        tables = (
            attention_weights(asked, k, mask=visible, normaliser=Plain()),
            attention_weights(asked, k, mask=visible),
        )
    groups = query.shape[1] // key.shape[1]
    plain, sharpened = (
        (weights.reshape(key.shape[0], key.shape[1], groups * len(rows), keys) @ v).view(*asked.shape[:3], -1)
        for weights in tables
    )
    return rows, plain, sharpened


def _distance(output: Tensor, expected: Tensor) -> float:
    """Relative, in the 2-norm."""
    return float(torch.linalg.vector_norm(output.double() - expected) / torch.linalg.vector_norm(expected))


def _error(arm: Arm, rows: Tensor, expected: Tensor, *, kernel: bool) -> tuple[float, str]:
    """Distance from float64, and what else is wrong: unwritten output, or not the kernel that was asked for.

    Memory that nobody has written to holds NaN during the call.
    """
    torch.use_deterministic_algorithms(True, warn_only=True)  # this is what fills fresh memory
    try:
        with arm.setting(), warnings.catch_warnings(), torch.no_grad(), _Products() as products:
            warnings.simplefilter("ignore")
            output = arm.call()
    finally:
        torch.use_deterministic_algorithms(False)
    assert isinstance(output, Tensor)
    distance = _distance(output[:, :, rows], expected)
    if not bool(output.isfinite().all()):
        return distance, "its output is not finite everywhere"
    if kernel and products.names:
        return distance, f"the kernel did not run: PyTorch computed {products.names[0]}"
    return distance, ""


class _Products(TorchDispatchMode):
    """Records the products of matrices that PyTorch computes: while a kernel of ours runs there are none."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in PRODUCTS or "attention" in name:
            self.names.append(name)
        return func(*args, **(kwargs or {}))
