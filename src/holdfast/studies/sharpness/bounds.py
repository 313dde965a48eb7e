"""Part `bounds`: the inequalities behind the argument, on random rows and in random encoders."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from holdfast.lab import Claim, Evidence, Outcome, Part, Results, Trial, exact, mean_of
from holdfast.lab.results import Values
from holdfast.lab.seeds import generator_for
from holdfast.studies.sharpness.streams import ROWS, TOKENS

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from holdfast.lab import Record
    from holdfast.studies.sharpness.study import SharpnessConfig

Check: TypeAlias = "tuple[str, Tensor]"
"""Name of an inequality, and by how much each case keeps it: negative is an exception."""

ROUNDING = 1e-9
"""Nats by which float64 arithmetic may miss an inequality that is tight."""


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


def trials(config: SharpnessConfig) -> Iterator[Trial[BoundsConfig]]:
    """One trial a seed."""
    gpu = 1.0 if config.bounds.device.startswith("cuda") else 0.0
    for seed in config.seed_range:
        yield Trial(seed, config.bounds, cost=500.0, gpu=gpu)


def run(trial: Trial[BoundsConfig]) -> Outcome:
    """Count exceptions to the inequalities.

    Records: for the checks `dispersion` (lemma 2.1 in its tight form), `entropy` (H >= ln n - spread),
    `monotone` (entropy falls as beta rises) and `spectral` (proposition 3.1) the number of `cases`, of
    `exceptions`, and the least `slack`, in nats (for `spectral`: the least bound over spread). For every
    encoder (`style`, `depth`) the mean and the worst `slope` of a head's entropy against ln n. Curve:
    `heads`, one row a head and length.
    """
    rows = _check_rows(trial.config, trial.seeds[0])
    slopes, heads, encoder_checks = _check_encoders(trial.config, trial.seeds[0])
    return Outcome([*_merged(rows + encoder_checks), *slopes], {"heads": heads})


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
                    by_layer = encoder.head_logits(tokens[None].to(config.device), queries=config.vocabulary)
                for layer, seen in enumerate(by_layer):
                    checks.append(("spectral", (seen.bound / seen.spread).double().cpu().flatten() - 1))
                    for query in range(config.vocabulary):
                        rows = seen.logits[0, :, query, seen.visible[query]].double()
                        checks += [(name, slack.cpu()) for name, slack in _row_checks(rows)]
                    weights = seen.logits[0].softmax(dim=-1)
                    for head in range(config.heads):
                        entropy = entropy_of(seen.logits[0, head]).mean().item()
                        entropies.setdefault((layer, head), []).append(entropy)
                        row: dict[str, Any] = {"style": style, "depth": depth, "layer": layer, "head": head}
                        row |= {"n": n, "entropy": entropy, "max_weight": weights[head].max().item()}
                        row |= {"spread": seen.spread[0, head].max().item()}
                        row |= {"bound": seen.bound[0, head].max().item()}
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


def _no_exception(name: str, text: str, check: str, paper: str) -> Claim:
    """The claim that an inequality has no exception."""

    def test(results: Results) -> Evidence:
        rows = results.where(part="bounds", check=check)
        cases, exceptions = (sum(int(row[name] or 0) for row in rows) for name in ("cases", "exceptions"))
        return exact(
            holds=exceptions == 0,
            effect=float(exceptions),
            n=cases,
            test="number of exceptions",
            failed=results.failed(part="bounds"),
        )

    return Claim(name, text, test, paper=paper, family="exact")


def _slope(depth: int) -> Callable[[Results], Evidence]:
    """Test for the head that is farthest from a slope of one, in either style."""

    def test(results: Results) -> Evidence:
        styles = [results.by_seed("slope_error", part="bounds", style=style, depth=depth) for style in ("bert", "gpt")]
        return mean_of(
            Values.of(max, *styles), threshold=0.05, alternative="less", name=f"the slope with {depth} layers"
        )

    return test


CLAIMS = (
    *(
        Claim(
            f"disperses-{depth}",
            f"In random encoders of {depth} layer{'s' * (depth > 1)}, GPT and BERT style, the entropy of every head "
            "grows with ln n at a slope within 0.05 of one.",
            _slope(depth),
            paper="attention must disperse in the limit (theorem 2.2)",
            family="dispersion",
        )
        for depth in (1, 3)
    ),
    _no_exception(
        "weights-bounded",
        "No weight leaves [1 / (1 + (n - 1) e^d), e^d / (e^d + n - 1)], with d the spread of the row's logits.",
        "dispersion",
        "proved in the paper: lemma 2.1",
    ),
    _no_exception(
        "entropy-bounded",
        "No row has an entropy below ln n - d, with d the spread of its logits.",
        "entropy",
        "follows from lemma 2.1",
    ),
    _no_exception(
        "spread-bounded",
        "No row's logit spread exceeds 2 sigma(Q) sigma(K) |y| max|x| / sqrt(head width).",
        "spectral",
        "proved in the paper: proposition 3.1",
    ),
    _no_exception(
        "entropy-monotone",
        "A lower temperature never raises the entropy of a row.",
        "monotone",
        "proved in the paper (section 3)",
    ),
)

part = Part("bounds", trials, run, claims=CLAIMS)
