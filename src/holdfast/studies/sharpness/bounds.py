"""The inequalities behind the argument, on random rows and in random encoders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from holdfast.lab import Outcome
from holdfast.lab.seeds import ROWS, TOKENS, generator_for
from holdfast.lab.trial import Record

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class BoundsConfig:
    """Inequalities on random rows and in random encoders.

    Arguments:
        device: where the encoders run, such as "cpu" or "cuda".
        rows: random rows of logits for each size.
        row_sizes: items in these rows.
        sizes: tokens in the encoders' inputs.
        vocabulary: number of tokens.
        dim: width of the encoders.
        heads: heads a layer.
        depths: layers of the encoders.
    """

    device: str = "cpu"
    rows: int = 1000
    row_sizes: tuple[int, ...] = (2, 3, 5, 16, 64, 257, 1024)
    sizes: tuple[int, ...] = (512, 2048, 8192)
    vocabulary: int = 16
    dim: int = 64
    heads: int = 4
    depths: tuple[int, ...] = (1, 3)


def run_bounds(config: BoundsConfig, seed: int) -> Outcome:
    """Count exceptions to the inequalities.

    Records: for the checks `dispersion` (lemma 2.1 in its tight form), `entropy` (H >= ln n - spread),
    `monotone` (entropy falls as beta rises) and `spectral` (proposition 3.1) the number of `cases`, of
    `exceptions`, and the least `slack`, in nats (for `spectral`: the least bound over spread). For every
    encoder (`style`, `depth`) the mean and the worst `slope` of a head's entropy against ln n. Curve:
    `heads`, one row a head and length.
    """
    rows = _check_rows(config, seed)
    slopes, heads, encoder_checks = _check_encoders(config, seed)
    return Outcome([*_merged(rows + encoder_checks), *slopes], {"heads": heads})


Check: TypeAlias = "tuple[str, Tensor]"
"""Name of an inequality, and by how much each case keeps it: negative is an exception."""

ROUNDING = 1e-9
"""Nats by which float64 arithmetic may miss an inequality that is tight."""


def _row_checks(logits: Float[Tensor, "row n"]) -> list[Check]:
    """Slack, in nats, of the inequalities that hold for any row of logits, by how far apart they are.

    With d the greatest minus the least logit, max weight <= e^d / (e^d + n - 1), min weight >= 1 / (1 + (n -
    1) e^d) and H >= ln n - d. These are lemma 2.1 of the paper without its slack.
    """
    import torch

    from holdfast.nn import entropy_of

    n = logits.shape[-1]
    log_weight = logits.log_softmax(dim=-1)
    spread = logits.amax(dim=-1) - logits.amin(dim=-1)
    most = -torch.log1p((n - 1) * torch.exp(-spread))
    least = -spread - torch.log((n - 1) + torch.exp(-spread))
    return [
        ("dispersion", most - log_weight.amax(dim=-1)),
        ("dispersion", log_weight.amin(dim=-1) - least),
        ("entropy", entropy_of(logits) - (math.log(n) - spread)),
    ]


def _check_rows(config: BoundsConfig, seed: int) -> list[Check]:
    import torch

    from holdfast.nn import entropy_of

    generator = generator_for(seed, ROWS)
    checks = []
    for n in config.row_sizes:
        shape = (config.rows, n)
        scale = 10 ** (3 * torch.rand(config.rows, 1, generator=generator, dtype=torch.float64) - 2)
        normal = torch.randn(shape, generator=generator, dtype=torch.float64)
        one_up = torch.zeros(shape, dtype=torch.float64)
        one_up[:, 0] = 1
        # Two-level rows meet the inequalities with equality, once from above and once from below.
        for kind in (normal, one_up, -one_up):
            logits = scale * kind
            checks += _row_checks(logits)
            betas = torch.logspace(-1, 1, 21, dtype=torch.float64)
            entropies = torch.stack([entropy_of(beta * logits) for beta in betas])
            checks.append(("monotone", (entropies[:-1] - entropies[1:]).flatten()))
    return checks


def _check_encoders(config: BoundsConfig, seed: int) -> tuple[list[Record], list[Record], list[Check]]:
    import numpy as np
    import torch

    from holdfast.nn import entropy_of
    from holdfast.studies.sharpness.token_encoder import TokenEncoder

    slopes: list[Record] = []
    heads: list[Record] = []
    checks: list[Check] = []
    for style, causal in (("bert", False), ("gpt", True)):
        for depth in config.depths:
            encoder = TokenEncoder(
                vocabulary=config.vocabulary,
                dim=config.dim,
                heads=config.heads,
                layers=depth,
                causal=causal,
                generator=generator_for(seed, TOKENS, depth),
            ).to(config.device)
            stream = torch.randint(config.vocabulary, (max(config.sizes),), generator=generator_for(seed, TOKENS))
            entropies: dict[tuple[int, int], list[float]] = {}
            for n in config.sizes:
                # The same queries end every sequence, one of each token, so that lengths can be compared.
                tokens = torch.cat([stream[: n - config.vocabulary], torch.arange(config.vocabulary)])
                with torch.no_grad():
                    seen = encoder.head_logits(tokens[None].to(config.device), queries=config.vocabulary)
                for layer, each in enumerate(seen):
                    checks.append(("spectral", (each.bound / each.spread).double().cpu().flatten() - 1))
                    for query in range(config.vocabulary):
                        rows = each.logits[0, :, query, each.visible[query]].double()
                        checks += [(name, slack.cpu()) for name, slack in _row_checks(rows)]
                    weights = each.logits[0].softmax(dim=-1)
                    for head in range(config.heads):
                        entropy = entropy_of(each.logits[0, head]).mean().item()
                        entropies.setdefault((layer, head), []).append(entropy)
                        row: dict[str, Any] = {"style": style, "depth": depth, "layer": layer, "head": head}
                        row |= {"n": n, "entropy": entropy, "max_weight": weights[head].max().item()}
                        row |= {"spread": each.spread[0, head].max().item()}
                        row |= {"bound": each.bound[0, head].max().item()}
                        heads.append(row)
            # Averaged over queries, a causal head sees fewer tokens than n by the same number at every length.
            seen_tokens = [math.log(n - (config.vocabulary - 1) / 2 * causal) for n in config.sizes]
            fitted = [float(np.polyfit(seen_tokens, values, 1)[0]) for values in entropies.values()]
            worst = max(abs(slope - 1) for slope in fitted)
            slopes.append({"style": style, "depth": depth, "slope": float(np.mean(fitted)), "slope_error": worst})
    return slopes, heads, checks


def _merged(checks: Sequence[Check]) -> list[Record]:
    """One record for each inequality."""
    import torch

    records: list[Record] = []
    for name in dict.fromkeys(name for name, _ in checks):
        slack = torch.cat([values for other, values in checks if other == name])
        records.append(
            {
                "check": name,
                "cases": slack.numel(),
                # Not `slack < ...`: a NaN is an exception too.
                "exceptions": int((~(slack >= -ROUNDING)).sum()),
                "slack": slack.min().item() + (1 if name == "spectral" else 0),
            }
        )
    return records
