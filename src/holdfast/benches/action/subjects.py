"""The arms of a comparison: one step of control after episodes of several lengths, or whole windows of training."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from holdfast.benches.action.peers import TokenByToken, decision_transformer, nxai_stack
from holdfast.benches.action.settings import SIZES, TOKENS, dtype_of, transformer_of
from holdfast.benches.harness.timing import Arm
from holdfast.benches.sharpness.arms import kernels
from holdfast.nn import XLSTM, Backbone
from holdfast.nn.xlstm import xlstm_from_nxai
from holdfast.probes.fast_forward import again, fast_forward, kept_bytes, layers_of, with_room
from holdfast.probes.memory import free_memory

BEFORE = 8
"""Timesteps that are read twice, to tell what a state becomes."""

MEMORY = 0.6
"""Share of the free memory that keys and values may take."""

TOLERANCE = {"float32": 1e-3, "float64": 1e-6, "bfloat16": 0.2, "float16": 0.05}
"""Largest difference of outputs of one network computed in two ways, relative to the largest output; outputs have been
normed, and gates are exponential."""


@dataclass(frozen=True)
class Case:
    """What is measured.

    Arguments:
        size: of `SIZES`.
        batch: episodes side by side.
        device: where.
        dtype: of weights and tokens.
    """

    size: str
    batch: int
    device: str
    dtype: str

    def tokens(self, number: int, seed: int = 0) -> Tensor:
        """Random tokens of each episode."""
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(self.batch, number, SIZES[self.size].dim, generator=generator)
        return drawn.to(self.device, dtype_of(self.dtype))

    def placed(self, module: nn.Module) -> Any:
        """A module where it is to be, not training."""
        return module.to(self.device, dtype_of(self.dtype)).eval()


@dataclass
class Subject:
    """Arms that are timed in turn.

    Arguments:
        arms: by name and number of timesteps; 0: any number is the same.
        kept: bytes of state of each.
        left_out: arms that cannot be, and why.
        wrong: arms that answer otherwise than they should, which have no time.
    """

    arms: dict[tuple[str, int], Arm] = field(default_factory=dict)
    kept: dict[tuple[str, int], int] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def networks(case: Case, context: int) -> tuple[Any, Any, Any]:
    """Our xLSTM, NX-AI's with the same weights or `None`, and a transformer of about as many parameters."""
    shape = SIZES[case.size]
    stack = nxai_stack(shape, context)
    if stack is None:
        ours = XLSTM(shape)
    else:
        stack.reset_parameters()
        ours = xlstm_from_nxai(stack.state_dict())
        stack = case.placed(stack)
    return case.placed(ours), stack, case.placed(Backbone(transformer_of(shape)))


def steps(case: Case, timesteps: tuple[int, ...], *, window: int, recompute: int) -> Subject:
    """One step of control, a timestep's three tokens, after episodes of several lengths.

    `chunk`: our xLSTM, all tokens at once; `chunk-triton`: on a GPU, by the kernels of its mLSTM; `single`: the same
    one by one; `nxai`: NX-AI's step; `kv-cache`: a transformer whose keys and values are kept; `hf-window`:
    transformers' decision transformer over its last window; `hf-recompute`: over all timesteps.

    Arguments:
        case: sizes and place.
        timesteps: lengths of episodes.
        window: timesteps that `hf-window` reads.
        recompute: the most timesteps that `hf-recompute` reads.
    """
    subject, new = Subject(), case.tokens(TOKENS)
    ours, stack, transformer = networks(case, TOKENS)
    with torch.no_grad():
        early, late = _read(ours, case)
        for length in sorted({timesteps[0], timesteps[-1]}):
            state = fast_forward(early, late, max(length, 2 * BEFORE) * TOKENS)
            subject.arms["chunk", length] = Arm(_step(ours, new, state))
            subject.kept["chunk", length] = kept_bytes(state)
        if case.device == "cuda":
            subject.arms["chunk-triton", 0] = Arm(_step(ours, new, late), _by_kernels)
            with _by_kernels():
                answer = ours(new, late)[0]
            _check(subject, case, "chunk-triton", ours(new, late)[0], answer)
        subject.arms["single", 0] = Arm(_singles(ours, new, late))
        subject.kept["single", 0] = kept_bytes(late)
        _check(subject, case, "single", ours(new, late)[0], _singles(ours, new, late)())
        if stack is None:
            subject.left_out.append("nxai: the package xlstm is not installed")
        else:
            walked = TokenByToken(stack)
            history = case.tokens(2 * BEFORE * TOKENS)
            for token in history.split(TOKENS, 1):
                walked(token)
            subject.arms["nxai", 0] = Arm(_nxai(walked, new))
            _check(subject, case, "nxai", ours(new, late)[0], walked(new))
        _keys_and_values(subject, case, transformer, timesteps)
        _decision_transformers(subject, case, timesteps, window, recompute)
    return subject


def windows(case: Case, tokens: int, *, train: bool) -> Subject:
    """Whole windows: forward, or forward and backward.

    `xlstm`: ours; `xlstm-triton`: on a GPU, by the kernels of its mLSTM; `nxai`: NX-AI's parallel form, with the
    same weights; `transformer`: of about as many parameters.

    Arguments:
        case: sizes and place.
        tokens: of each window.
        train: whether gradients of all weights are computed.
    """
    subject, x = Subject(), case.tokens(tokens)
    ours, stack, transformer = networks(case, tokens)
    calls: dict[str, tuple[nn.Module, Callable[[], Tensor]]] = {
        "xlstm": (ours, lambda: ours(x)[0]),
        "transformer": (transformer, lambda: transformer(x)[0]),
    }
    if stack is None:
        subject.left_out.append("nxai: the package xlstm is not installed")
    else:
        calls["nxai"] = (stack, lambda: stack(x))
    for name, (module, call) in calls.items():
        subject.arms[name, tokens] = Arm(_gradients(module, call) if train else torch.no_grad()(call))
    if case.device == "cuda":
        subject.arms["xlstm-triton", tokens] = replace(subject.arms["xlstm", tokens], setting=_by_kernels)
        with torch.no_grad():
            expected = ours(x)[0]
            with _by_kernels():
                _check(subject, case, "xlstm-triton", expected, ours(x)[0], tokens)
    if stack is not None:
        with torch.no_grad():
            _check(subject, case, "nxai", calls["xlstm"][1](), calls["nxai"][1](), tokens)
    return subject


def _read(network: Any, case: Case) -> tuple[Any, Any]:
    """States after some timesteps, and after more."""
    history = case.tokens(2 * BEFORE * TOKENS)
    _, early = network(history[:, : BEFORE * TOKENS])
    _, late = network(history[:, BEFORE * TOKENS :], early)
    return early, late


def _step(network: Any, new: Tensor, state: Any) -> Callable[[], Tensor]:
    """The next timestep, the same one at every call."""

    def call() -> Tensor:
        with torch.no_grad():
            output: Tensor = network(new, again(state))[0]
        return output

    return call


def _by_kernels() -> AbstractContextManager[None]:
    return kernels("triton")


def _singles(network: Any, new: Tensor, state: Any) -> Callable[[], Tensor]:
    """The same token by token."""

    def call() -> Tensor:
        outputs, after = [], state
        with torch.no_grad():
            for token in new.split(1, 1):
                output, after = network(token, after)
                outputs.append(output)
        return torch.cat(outputs, 1)

    return call


def _nxai(walked: TokenByToken, new: Tensor) -> Callable[[], Tensor]:
    """Their state goes on from call to call: its size stays."""
    return torch.no_grad()(lambda: walked(new))


def _keys_and_values(subject: Subject, case: Case, transformer: Any, timesteps: tuple[int, ...]) -> None:
    """All lengths whose keys and values fit into memory; they share it, since each step begins from its own length."""
    early, late = _read(transformer, case)
    per_timestep = (kept_bytes(late) - kept_bytes(early)) / BEFORE
    free = free_memory(torch.device(case.device))
    fits = [length for length in timesteps if free is None or per_timestep * length <= MEMORY * free]
    for length in timesteps:
        if length not in fits:
            needed = per_timestep * length / 2**30
            subject.left_out.append(f"kv-cache, {length} timesteps: {needed:.3g} GiB of keys and values do not fit")
    if not fits:
        return
    most = max(*fits, 2 * BEFORE)
    whole = with_room(fast_forward(early, late, most * TOKENS), TOKENS)
    for length in fits:
        state = _shortened(whole, length * TOKENS)
        subject.arms["kv-cache", length] = Arm(_step(transformer, case.tokens(TOKENS), state))
        subject.kept["kv-cache", length] = kept_bytes(state)


def _shortened(state: Any, tokens: int) -> Any:
    """The state after fewer tokens, in the memory of the one after more."""
    kept: tuple[Any, ...] = layers_of(state)
    layers = tuple(
        replace(
            layer,
            seen=torch.full_like(layer.seen, tokens),
            longest=tokens,
            cache=replace(layer.cache, used=tokens, appended=[0], age=0),
        )
        for layer in kept
    )
    return replace(state, layers=layers)


def _decision_transformers(
    subject: Subject, case: Case, timesteps: tuple[int, ...], window: int, recompute: int
) -> None:
    shape, dtype = SIZES[case.size], dtype_of(case.dtype)
    read = {("hf-window", 0): window, **{("hf-recompute", n): n for n in timesteps if n <= recompute}}
    for key, number in read.items():
        step = decision_transformer(shape, case.batch, number, case.device, dtype)
        if step is None:
            subject.left_out.append("hf-window, hf-recompute: transformers is not installed")
            return
        subject.arms[key] = Arm(torch.no_grad()(step))
    skipped = [n for n in timesteps if n > recompute]
    if skipped:
        subject.left_out.append(f"hf-recompute, {', '.join(map(str, skipped))} timesteps: above {recompute}")


def _gradients(module: nn.Module, call: Callable[[], Tensor]) -> Callable[[], object]:
    """Forward and backward, as in training."""
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    return lambda: torch.autograd.grad(call().sum(), weights, allow_unused=True)


def _check(subject: Subject, case: Case, name: str, ours: Tensor, theirs: Tensor, length: int = 0) -> None:
    """An arm that computes something else is not timed."""
    error = float((ours.double() - theirs.double()).abs().max() / ours.double().abs().max())
    if not error <= TOLERANCE[case.dtype]:
        subject.wrong.append(f"{name}: differs from ours by {error:.2g} of the largest output")
        del subject.arms[name, length]
