"""What the study of sharpness claims, and how each claim is tested."""

from __future__ import annotations

import math
from collections.abc import Callable

from holdfast.lab import Claim, Evidence, Results, equivalent, exact, mean_of, paired_difference, unusable
from holdfast.studies.sharpness.traces import beats_plain, gains_less_on_long_traces, inactive_on_long_traces

PAPER_ACCURACY = {
    "plain": {16: 98.6, 64: 94.3, 256: 81.3, 512: 70.1, 1024: 53.8, 2048: 35.7, 4096: 22.6, 16384: 12.4},
    "published": {16: 98.6, 64: 94.5, 256: 82.1, 512: 72.5, 1024: 57.7, 2048: 39.4, 4096: 24.9, 16384: 14.0},
}
"""Accuracy in per cent, from the paper's table of max-retrieval results."""

COMPARED = 1024
"""Size at which all normalisers are compared."""


def _gain(
    part: str, treatment: str, control: str, n: int, *, threshold: float = 0.0, less: bool = False
) -> Callable[[Results], Evidence]:
    """Test for the difference in accuracy of two arms at one size, paired over seeds."""

    def test(results: Results) -> Evidence:
        if "refit" in (treatment, control):
            refused = results.where(part=part, fit="refused")
            if refused:
                return unusable(f"no law for seed {refused[0]['seed']}: {refused[0]['reason']}")
        return paired_difference(
            results.by_seed("accuracy", part=part, arm=treatment, n=n),
            results.by_seed("accuracy", part=part, arm=control, n=n),
            threshold=threshold,
            alternative="less" if less else "greater",
            names=(f"{treatment} at n = {n}", f"{control} at n = {n}"),
        )

    return test


def _trained_gain(arm: str) -> Callable[[Results], Evidence]:
    """Test for the difference in accuracy at `COMPARED` items between networks trained with an arm and with softmax."""

    def test(results: Results) -> Evidence:
        return paired_difference(
            results.by_seed("accuracy", part="trained-with", arm=arm, n=COMPARED),
            results.by_seed("accuracy", part="retrieve", arm="plain", n=COMPARED),
            alternative="greater",
            names=(f"trained with {arm}", "trained with softmax"),
        )

    return test


def _with_traces(test: Callable[[Results], Evidence]) -> Callable[[Results], Evidence]:
    """A test for a part that only some scales have."""

    def judge(results: Results) -> Evidence:
        if getattr(results.config, "trace_seeds", None) == 0:
            return unusable("the language models are a part of the scale gpu only")
        return test(results)

    return judge


def _same_in_distribution(results: Results) -> Evidence:
    return equivalent(
        results.by_seed("accuracy", part="retrieve", arm="published", n=16),
        results.by_seed("accuracy", part="retrieve", arm="plain", n=16),
        margin=0.01,
        names=("published at n = 16", "plain at n = 16"),
    )


def _trained_slope(results: Results) -> Evidence:
    small, large = (results.by_seed("entropy", part="retrieve", arm="plain", n=n) for n in (1024, 4096))
    slope = {seed: (large[seed] - small[seed]) / math.log(4) for seed in small.keys() & large.keys()}
    return equivalent(slope, dict.fromkeys(slope, 1.0), margin=0.1, names=("the slope from n = 1024 to 4096", "one"))


def _needle_is(arm: str, n: int, holds: Callable[[float], bool], test: str) -> Callable[[Results], Evidence]:
    """Test for the winner's mass at margin 5."""

    def judge(results: Results) -> Evidence:
        rows = results.where(part="needle", arm=arm, n=n, margin=5.0)
        refused = results.where(part="needle", fit="refused")
        if not rows:
            return unusable(str(refused[0]["reason"]) if refused else f"no row for {arm} at n = {n} and margin 5")
        mass = float(rows[0]["winner"] or 0.0)
        return exact(holds=holds(mass), effect=mass, n=1, test=test)

    return judge


def _needle_cliff(results: Results) -> Evidence:
    rows = [results.where(part="needle", arm=arm, n=1024, margin=5.0) for arm in ("published", "plain")]
    if not all(rows):
        return unusable("no row for n = 1024 and margin 5")
    masses = [float(row[0]["winner"] or 0.0) for row in rows]
    return exact(
        holds=abs(masses[0] - masses[1]) <= 1e-12,
        effect=masses[0] - masses[1],
        n=1,
        test="closed form: published minus plain",
    )


def _no_exception(check: str) -> Callable[[Results], Evidence]:
    """Test for an inequality that allows no exception."""

    def test(results: Results) -> Evidence:
        rows = results.where(part="bounds", check=check)
        cases, exceptions = (sum(int(row[name] or 0) for row in rows) for name in ("cases", "exceptions"))
        return exact(holds=exceptions == 0, effect=float(exceptions), n=cases, test="number of exceptions")

    return test


def _encoder_slope(depth: int) -> Callable[[Results], Evidence]:
    """Test for the head that is farthest from a slope of one, in either style."""

    def test(results: Results) -> Evidence:
        styles = [results.by_seed("slope_error", part="bounds", style=style, depth=depth) for style in ("bert", "gpt")]
        worst = {seed: max(style[seed] for style in styles) for seed in set.intersection(*map(set, styles))}
        return mean_of(worst, threshold=0.05, alternative="less", name=f"the slope with {depth} layers")

    return test


LEMMA = "proved in the paper: lemma 2.1"

CLAIMS = (
    *(
        Claim(
            f"rises-{n}",
            f"The published law raises the accuracy of a trained network at n = {n} (difference > 0).",
            _gain("retrieve", "published", "plain", n),
            paper=f"{plain:.1f} % to {published:.1f} %, +{(published - plain) / 100:.3f} (max-retrieval table)",
            family="published law",
        )
        for n, plain, published in (
            (n, PAPER_ACCURACY["plain"][n], PAPER_ACCURACY["published"][n]) for n in (256, 512, 1024)
        )
    ),
    Claim(
        "same-16",
        "At n = 16, the largest size trained on, the published law changes the accuracy by less than 0.01.",
        _same_in_distribution,
        paper="98.6 % both, p = 0.4 (max-retrieval table)",
        family="published law",
    ),
    *(
        Claim(
            f"refit-{n}",
            f"A law refitted to the network without labels beats the published one at n = {n} (difference > 0).",
            _gain("retrieve", "refit", "published", n),
            paper="not tried: one polynomial is used for all",
            family="refit law",
        )
        for n in (1024, 4096)
    ),
    Claim(
        "hard-1024",
        "Hard attention, switched on in the trained network, is less accurate than softmax at n = 1024.",
        _gain("retrieve", "hard", "plain", 1024, less=True),
        paper="zero temperature escapes dispersion but is reported as not viable",
        family="hard attention",
    ),
    Claim(
        "refit-log-n",
        "The refitted law beats log-n scaling, switched on in the same network, at n = 1024 (difference > 0).",
        _gain("retrieve", "refit", "log-n", 1024),
        paper="not tried",
        family="alternatives",
    ),
    *(
        Claim(
            f"trained-{arm}",
            f"A network trained with {name} is more accurate at n = 1024 than one trained with softmax from the same "
            "start on the same sets (difference > 0).",
            _trained_gain(arm),
            paper=paper,
            family="alternatives",
        )
        for arm, name, paper in (
            ("published", "the published law, gradient through it included,", "done for CLRS-Text only: mostly better"),
            ("ssmax", "scalable softmax", "not tried; proposed in arXiv 2501.19399"),
            ("entmax", "1.5-entmax", "not tried; proposed for lengths in arXiv 2506.16640"),
            ("scale-invariant", "scale-invariant attention", "not tried; proposed in arXiv 2505.17083"),
        )
    ),
    Claim(
        "disperses-trained",
        "In the trained network entropy grows with ln n at a slope within 0.1 of one from n = 1024 to 4096.",
        _trained_slope,
        paper="attention must disperse in the limit (theorem 2.2)",
        family="dispersion",
    ),
    *(
        Claim(
            f"disperses-{depth}",
            f"In random encoders of {depth} layer{'s' * (depth > 1)}, GPT and BERT style, the entropy of every head "
            "grows with ln n at a slope within 0.05 of one.",
            _encoder_slope(depth),
            paper="attention must disperse in the limit (theorem 2.2)",
            family="dispersion",
        )
        for depth in (1, 3)
    ),
    Claim(
        "weights-bounded",
        "No weight leaves [1 / (1 + (n - 1) e^d), e^d / (e^d + n - 1)], with d the spread of the row's logits.",
        _no_exception("dispersion"),
        paper=LEMMA,
        family="exact",
    ),
    Claim(
        "entropy-bounded",
        "No row has an entropy below ln n - d, with d the spread of its logits.",
        _no_exception("entropy"),
        paper="follows from lemma 2.1",
        family="exact",
    ),
    Claim(
        "spread-bounded",
        "No row's logit spread exceeds 2 sigma(Q) sigma(K) |y| max|x| / sqrt(head width).",
        _no_exception("spectral"),
        paper="proved in the paper: proposition 3.1",
        family="exact",
    ),
    Claim(
        "entropy-monotone",
        "A lower temperature never raises the entropy of a row.",
        _no_exception("monotone"),
        paper="proved in the paper (section 3)",
        family="exact",
    ),
    Claim(
        "needle-256",
        "The published law gives a winner by 5 nats at least 0.99 of the weight among 256 items (softmax: 0.37).",
        _needle_is("published", 256, lambda mass: mass >= 0.99, "closed form: weight of the winner"),
        paper="no such figure",
        family="exact",
    ),
    Claim(
        "needle-cliff",
        "Among 1024 items the published law leaves that winner as softmax does, to 1e-12: it has stopped acting.",
        _needle_cliff,
        paper="not mentioned; follows from the published coefficients",
        family="exact",
    ),
    Claim(
        "needle-refit",
        "A law refitted to such rows, held constant beyond the entropies it has seen, gives that winner at least "
        "0.9 among 1024 items.",
        _needle_is("refit", 1024, lambda mass: mass >= 0.9, "closed form: weight of the winner"),
        paper="not tried",
        family="exact",
    ),
    *(
        Claim(
            f"control-{n}",
            f"Where the answer is an average, the published law raises the accuracy by less than 0.01 at n = {n}.",
            _gain("control", "published", "plain", n, threshold=0.01, less=True),
            paper="no such experiment",
            family="control",
        )
        for n in (64, 256)
    ),
    *(
        Claim(
            f"traces-{name}",
            text,
            _with_traces(test),
            paper=paper,
            family="language models",
        )
        for name, text, test, paper in (
            (
                "adaptive",
                "Beyond the sizes trained on, language models trained with the published law write algorithms out more "
                "accurately than those trained with softmax (difference > 0).",
                beats_plain,
                "most of 30 algorithms are better with Gemma 2B on CLRS-Text (figure only)",
            ),
            (
                "long",
                "The law gains less on bubble sort, whose traces are long, than on the other tasks.",
                gains_less_on_long_traces,
                "bubble sort is a named exception",
            ),
            (
                "inactive",
                "On bubble sort more attention rows are beyond the law's reach than on the other tasks.",
                inactive_on_long_traces,
                "suspected as the reason for the exceptions",
            ),
        )
    ),
)
