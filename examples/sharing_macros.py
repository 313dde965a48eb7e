"""Macros: macro-actions for an environment of one's own, which of them are the same, and a penalty that says so.

An agent on a grid has four moves, each of them four times, and 24 walks that come back to where they began. The probe
finds from its values which actions are one; with the groups, the penalty lets them share what is learnt of each.
"""

import torch

from holdfast.probes.macros import MacrosSettings, probe_macros, similarity_of
from holdfast.probes.macros.demonstration import loops_on_a_grid
from holdfast.rl import masp_penalty

if __name__ == "__main__":
    values, macros = loops_on_a_grid()  # of an agent of your own: logged_values(q, action=..., episode=...)
    report = probe_macros(values, macros=macros, settings=MacrosSettings(resamples=20))
    print(report.verdict)

    # Values that agree within the groups cost nothing; noise, which tells actions apart that are the same, does.
    matrix = similarity_of(report).matrix().detach()
    q = torch.as_tensor(values.q, dtype=matrix.dtype)
    noise = 0.1 * torch.randn(q.shape, generator=torch.Generator().manual_seed(0))
    exact, noisy = masp_penalty(q, matrix), masp_penalty(q + noise, matrix)
    print(f"penalty on the exact values {exact:.5f}, with noise {noisy:.5f}")
