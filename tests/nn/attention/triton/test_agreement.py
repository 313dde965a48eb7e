"""What decides whether kernels are taken unasked; without a GPU by Triton's interpreter, as if it were fast."""

from __future__ import annotations

import warnings

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

from holdfast.nn import Adaptive, Plain, adaptive_attention, rat_attention
from holdfast.nn.attention.triton import agreement
from holdfast.nn.attention.triton import host as attention
from holdfast.nn.attention.triton import kernels as compiled
from holdfast.nn.rat.triton import host as rat

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (torch.cuda.is_available() or compiled.INTERPRETED), reason="no kernel runs here"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::holdfast.nn.CorrectionInactiveWarning"),
    pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning"),
]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def fast_device(monkeypatch):
    """One where the kernels were timed, and where nothing has been tried yet."""
    monkeypatch.delenv(attention.VARIABLE, raising=False)
    monkeypatch.setattr(agreement, "_AGREES", {})
    for module in (attention, rat):
        monkeypatch.setattr(module, "measured", lambda tensor: True)


def numbers(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).to(DEVICE, torch.float16)


def attended(normaliser):
    with torch.no_grad():
        return adaptive_attention(
            numbers(1, 2, 9, 16), numbers(1, 1, 9, 16), numbers(1, 1, 9, 16), causal=True, normaliser=normaliser
        )


def chunked():
    gate = numbers(1, 9, 2, 16).float().sigmoid()
    return rat_attention(numbers(1, 9, 1, 16), numbers(1, 9, 1, 16), numbers(1, 9, 2, 16), gate, chunk_size=4)


CALLS = {"attention": (attention, lambda: attended(Adaptive())), "RAT": (rat, chunked)}


@pytest.mark.parametrize("name", CALLS)
def test_kernels_that_agree_are_taken_and_tried_once(name, monkeypatch):
    module, call = CALLS[name]
    ran, compute = [], module.compute
    monkeypatch.setattr(module, "compute", lambda *words, **options: ran.append(1) or compute(*words, **options))
    call()
    tried = len(ran)
    assert tried > 1
    assert list(agreement._AGREES.values()) == [True]
    call()
    assert len(ran) == tried + 1


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("how", ["a little", "not a number", "an error"])
def test_kernels_that_disagree_are_left_out_with_a_warning(name, how, monkeypatch):
    module, call = CALLS[name]
    with monkeypatch.context() as context:
        context.setenv(attention.VARIABLE, "reference")
        expected = call()
    compute = module.compute

    def wrong(*words, **options):
        if how == "an error":
            raise RuntimeError("out of resource: shared memory")
        answer = compute(*words, **options)
        output = answer if name == "attention" else answer.output
        output.data[..., -1, 0] += 1.0 if how == "a little" else torch.nan
        return answer

    monkeypatch.setattr(module, "compute", wrong)
    with pytest.warns(agreement.KernelWarning, match=f"kernels of {name} are left out"):
        found = call()
    torch.testing.assert_close(found, expected, rtol=5e-3, atol=5e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", agreement.KernelWarning)
        call()


def test_what_has_a_kernel_of_its_own_or_is_transformed_is_left_alone(monkeypatch):
    attended(Plain())
    torch.func.vmap(lambda x: adaptive_attention(x, x, x))(numbers(2, 1, 1, 5, 16))
    monkeypatch.setenv(attention.VARIABLE, "reference")
    chunked()
    assert agreement._AGREES == {}
