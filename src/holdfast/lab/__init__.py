"""The lab: runs studies in parallel, stores what they measure, judges their claims and writes the report."""

from holdfast.lab.results import Failure, Results
from holdfast.lab.study import Claim, Config, Figure, Outcome, Paper, Study, Trial
from holdfast.lab.verdict import (
    Evidence,
    Status,
    Verdict,
    equivalent,
    exact,
    mean_of,
    paired_difference,
    unusable,
)

__all__ = [
    "Claim",
    "Config",
    "Evidence",
    "Failure",
    "Figure",
    "Outcome",
    "Paper",
    "Results",
    "Status",
    "Study",
    "Trial",
    "Verdict",
    "equivalent",
    "exact",
    "mean_of",
    "paired_difference",
    "unusable",
]
