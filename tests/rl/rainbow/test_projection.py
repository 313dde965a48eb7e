"""The projection of distributions, beside a loop over their atoms."""

from __future__ import annotations

import pytest
import torch

from holdfast.rl.rainbow.projection import project, project_by_loop


# A place among 51 atoms is known to about 50 roundings of its number.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
@pytest.mark.parametrize("atoms", [2, 5, 51])
def test_it_is_that_of_the_loop(atoms: int, dtype: torch.dtype, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(0)
    support = torch.linspace(-10, 10, atoms, dtype=dtype)
    probabilities = torch.randn(64, atoms, generator=generator).to(dtype).mul(2).softmax(-1)
    returns = torch.randn(64, generator=generator).to(dtype) * 6
    discounts = torch.rand(64, generator=generator).to(dtype)
    discounts[:8], returns[8:12], returns[12:16] = 0.0, 100.0, -100.0
    projected = project(probabilities, returns, discounts, support)
    torch.testing.assert_close(
        projected, project_by_loop(probabilities, returns, discounts, support), atol=tolerance, rtol=0
    )
    torch.testing.assert_close(projected.sum(1), torch.ones(64, dtype=dtype), atol=tolerance, rtol=0)
    assert (projected >= 0).all()


def test_an_atom_that_falls_on_another_keeps_all_its_mass() -> None:
    support = torch.linspace(-10, 10, 21)
    probabilities = torch.eye(21)[[3, 10, 20]]
    shifted = project(probabilities, torch.tensor([2.0, -4.0, 1.0]), torch.ones(3), support)
    assert torch.equal(shifted, torch.eye(21)[[5, 6, 20]])


def test_the_mean_is_that_of_the_target_inside_of_the_support() -> None:
    generator = torch.Generator().manual_seed(1)
    support = torch.linspace(-10, 10, 51, dtype=torch.float64)
    probabilities = torch.randn(32, 51, generator=generator, dtype=torch.float64).softmax(-1)
    returns = torch.rand(32, generator=generator, dtype=torch.float64) * 4 - 2
    discounts = torch.rand(32, generator=generator, dtype=torch.float64) * 0.8
    projected = project(probabilities, returns, discounts, support)
    torch.testing.assert_close(projected @ support, returns + discounts * (probabilities @ support))
