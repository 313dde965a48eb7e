"""How stubborn a language model is and how easily swayed: trials of a two-stage design, and what they say.

`simulate` makes trials of observers with known parameters, `analyze` says what trials show: bias towards its own
earlier answer, weights of agreeing and contradicting advice beside those of an ideal observer, calibration, and what
could mislead. `mask_own_answer`, `fuse` and `Reconsider` let a model reconsider without these biases. Nothing here
needs a network or torch. After arXiv 2507.03120 and doi 10.1038/s42256-026-01217-9.
"""

from holdfast.confidence.analysis import Analysis, Update, analyze
from holdfast.confidence.calibration import (
    Calibration,
    Reliability,
    auroc,
    brier_score,
    calibrate,
    expected_calibration_error,
    fit_temperature,
    reliability,
)
from holdfast.confidence.cells import Cell, ChangeOfMind
from holdfast.confidence.choices import ChoiceModel, Design, choice_design, fit_choices
from holdfast.confidence.comparison import Comparison, ModelScore, compare, pooled_regression
from holdfast.confidence.contrasts import COLUMNS, Contrasts, contrast
from holdfast.confidence.deliberation import (
    Reconsider,
    Reconsidered,
    attribute_to_other,
    fuse,
    mask_own_answer,
)
from holdfast.confidence.diagnostics import Caution, ProbabilityAsymmetry
from holdfast.confidence.extraction import (
    NoLogprobs,
    OptionReading,
    read_choice,
    read_logits,
    read_samples,
    read_top_logprobs,
)
from holdfast.confidence.intervals import Estimate, holm
from holdfast.confidence.observers import PRESETS, Observer, advice_log_odds, ideal, simulate
from holdfast.confidence.trials import (
    ADVICE,
    DISPLAYS,
    Advice,
    Display,
    Readings,
    Source,
    Trials,
    concatenate,
    log_odds,
)
from holdfast.confidence.trials_file import read_trials, write_trials
from holdfast.confidence.verdicts import Verdict

__all__ = [
    "ADVICE",
    "COLUMNS",
    "DISPLAYS",
    "PRESETS",
    "Advice",
    "Analysis",
    "Calibration",
    "Caution",
    "Cell",
    "ChangeOfMind",
    "ChoiceModel",
    "Comparison",
    "Contrasts",
    "Design",
    "Display",
    "Estimate",
    "ModelScore",
    "NoLogprobs",
    "Observer",
    "OptionReading",
    "ProbabilityAsymmetry",
    "Readings",
    "Reconsider",
    "Reconsidered",
    "Reliability",
    "Source",
    "Trials",
    "Update",
    "Verdict",
    "advice_log_odds",
    "analyze",
    "attribute_to_other",
    "auroc",
    "brier_score",
    "calibrate",
    "choice_design",
    "compare",
    "concatenate",
    "contrast",
    "expected_calibration_error",
    "fit_choices",
    "fit_temperature",
    "fuse",
    "holm",
    "ideal",
    "log_odds",
    "mask_own_answer",
    "pooled_regression",
    "read_choice",
    "read_logits",
    "read_samples",
    "read_top_logprobs",
    "read_trials",
    "reliability",
    "simulate",
    "write_trials",
]
