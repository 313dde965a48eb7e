"""Weights of NX-AI's package: the same outputs, from values that the package computed and from the package itself."""

from __future__ import annotations

import json

import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.nn.xlstm import xlstm_from_nxai
from tests.nn.xlstm import nxai

GOLDEN = json.loads(nxai.FILE.read_text())
KERNEL, BIAS = (f"blocks.1.xlstm.slstm_cell.{name}" for name in ("_recurrent_kernel_", "_bias_"))


def weights() -> dict[str, torch.Tensor]:
    return nxai.drawn(GOLDEN["weights"])


def as_for_cuda(given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The sLSTM's weights as a stack of the backend `cuda` stores them."""
    heads, size = GOLDEN["shape"]["heads"], GOLDEN["shape"]["dim"] // GOLDEN["shape"]["heads"]
    bias = given[BIAS].view(4, heads, size).transpose(0, 1).flatten()
    return given | {KERNEL: given[KERNEL].mT.contiguous(), BIAS: bias}


def apart(answer: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative to all of the output: where a denominator is small, single numbers are worse, the package's too."""
    return ((answer.double() - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("stored", [dict, as_for_cuda])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_a_stack_with_its_weights_has_its_outputs(stored, dtype, tolerance):
    network = xlstm_from_nxai({name: tensor.to(dtype) for name, tensor in stored(weights()).items()})
    assert network.config.slstm_at == (1,)
    expected = torch.tensor(GOLDEN["output"], dtype=torch.float64)
    with torch.no_grad():
        output, state = network(nxai.inputs().to(dtype))
        first, state = network(nxai.inputs()[:, :5].to(dtype))
        rest, _ = network(nxai.inputs()[:, 5:].to(dtype), state)
    assert output.dtype == dtype
    for answer in (output, torch.cat([first, rest], 1)):
        assert apart(answer, expected) < tolerance


def test_a_stack_inside_a_model_and_masks_are_no_matter():
    inside = {f"net.stack.{name}": tensor for name, tensor in weights().items()}
    inside |= {"net.head.weight": torch.ones(2, 2), "net.stack.blocks.0.xlstm.mlstm_cell.causal_mask": torch.ones(4, 4)}
    network = xlstm_from_nxai(inside, prefix="net.stack.")
    for ours, theirs in zip(network.parameters(), xlstm_from_nxai(weights()).parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.requires_grad
    with torch.no_grad():
        network.blocks[0].mixer.skip.zero_()
    assert inside["net.stack.blocks.0.xlstm.learnable_skip"].any()  # no memory in common


SKIP = "blocks.2.xlstm.learnable_skip"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop(SKIP), f"a tensor {SKIP}, got none of that name"),
        (lambda w: w.pop(KERNEL), f"a tensor {KERNEL}, got none of that name"),
        (lambda w: w.pop("post_blocks_norm.weight"), "a tensor post_blocks_norm.weight, got none of that name"),
        (
            lambda w: w.update({SKIP: torch.ones(60)}),
            r"blocks.2.mixer.skip of shape \(64,\), for .*, got shape \(60,\)",
        ),
        (
            lambda w: w.update({"blocks.0.xlstm.proj_up.bias": torch.ones(128)}),
            "those of an xLSTMBlockStack alone, got besides blocks.0.xlstm.proj_up.bias",
        ),
        (lambda w: w.update({KERNEL: torch.ones(2, 4, 4)}), r"recurrent weights of shape \(2, 4, 16\) or \(2, 16, 4\)"),
        (lambda w: w.update({KERNEL: torch.ones(4, 2, 8)}), r"as many heads in all blocks, got \[2, 4\]"),
        (lambda w: w.clear(), r"names from blocks.0. on, behind the prefix, got blocks \[\]"),
    ],
)
def test_other_weights_are_refused_by_name(change, message):
    changed = weights()
    change(changed)
    with pytest.raises(ArgumentError, match=f"weights: expected {message}"):
        xlstm_from_nxai(changed)


def test_the_package_itself():
    """Where it is installed: that the stored values are its own, and other shapes with weights as it begins with."""
    xlstm = pytest.importorskip("xlstm")
    fresh = nxai.computed(xlstm)
    assert fresh["weights"] == GOLDEN["weights"]
    torch.testing.assert_close(torch.tensor(fresh["output"]), torch.tensor(GOLDEN["output"]), rtol=1e-12, atol=1e-12)
    cell = pytest.importorskip("xlstm.blocks.slstm.cell")
    for shape in (
        {"dim": 96, "layers": 4, "heads": 4, "slstm_at": [0, 2]},
        {"dim": 30, "layers": 2, "heads": 2, "slstm_at": []},
        {"dim": 12, "layers": 1, "heads": 3, "slstm_at": [0]},
    ):
        torch.manual_seed(0)
        module = nxai.stack(xlstm, **shape).double()
        for parameter in module.parameters():
            parameter.data = (parameter + 0.3 * torch.randn_like(parameter)).float().double()
        x = torch.randn(3, 40, shape["dim"]).double()
        stored = module.state_dict()
        network = xlstm_from_nxai(stored)
        with torch.no_grad():
            output, exact = network(x)[0], nxai.stepped(module, x)
            assert apart(output, exact) < 1e-10
            assert apart(output, module(x)) < 1e-5
            # How far float32 is off depends on the weights: no further here than there, but for the order of sums.
            answers = [module.float()(x.float()), nxai.stepped(module.float(), x.float())]
            theirs = max(apart(answer, exact) for answer in answers)
            assert apart(network.float()(x.float())[0], exact) < 4 * theirs
            module.double()
        for layer in shape["slstm_at"]:
            vanilla = module.blocks[layer].xlstm.slstm_cell
            for_cuda = cell.sLSTMCell_cuda(vanilla.config, skip_backend_init=True).double()
            for_cuda.recurrent_kernel[:] = vanilla.recurrent_kernel[:]
            for_cuda.bias[:] = vanilla.bias[:]
            for name, tensor in for_cuda.state_dict().items():
                stored[f"blocks.{layer}.xlstm.slstm_cell.{name}"] = tensor
        again = xlstm_from_nxai(stored)
        for ours, theirs in zip(again.parameters(), xlstm_from_nxai(module.state_dict()).parameters(), strict=True):
            assert torch.equal(ours, theirs)
