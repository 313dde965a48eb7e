"""How stubborn a language model is and how easily swayed: trials of a two-stage design, and what they say.

`run` asks the questions of a `Plan` of whoever answers (a `Responder`) and keeps every answer in a `Store`, from which
`trials_of` reads them; `simulate` makes trials of observers with known parameters. `analyze` says what trials show:
bias towards its own earlier answer, weights of agreeing and contradicting advice beside those of an ideal observer,
calibration, and what could mislead. `mask_own_answer`, `fuse` and `Reconsider` let a model reconsider without these
biases. Nothing here needs torch, and nothing but responders behind an endpoint uses the network; for a model in process
import `holdfast.confidence.responders.huggingface`. After arXiv 2507.03120 and doi 10.1038/s42256-026-01217-9.
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
    ask_with,
    attribute_to_other,
    fuse,
    mask_own_answer,
)
from holdfast.confidence.diagnostics import Caution, ProbabilityAsymmetry
from holdfast.confidence.difficulty import Difficulty, find_difference
from holdfast.confidence.duplicates import RepeatNoise
from holdfast.confidence.experiment import ask_first, run
from holdfast.confidence.export import export_requests, request_records
from holdfast.confidence.extraction import (
    NoLogprobs,
    OptionReading,
    read_choice,
    read_logits,
    read_samples,
    read_top_logprobs,
)
from holdfast.confidence.intervals import Estimate, holm
from holdfast.confidence.latitude import ATTRIBUTION, latitude_questions
from holdfast.confidence.observers import PRESETS, Observer, advice_log_odds, ideal, simulate
from holdfast.confidence.plan import PILOT, PILOT_QUESTIONS, PUBLISHED, Condition, Plan, PlanCost, TrialDesign
from holdfast.confidence.questions import Question, check_questions, read_questions, write_questions
from holdfast.confidence.responders import (
    Answer,
    Ask,
    Backend,
    ChatResponder,
    Responder,
    SampledResponder,
    SimulatedResponder,
    SystemOneResponder,
    simulated_questions,
)
from holdfast.confidence.results import Results, UnusableAnswers, results_of, trials_of
from holdfast.confidence.store import Run, Store
from holdfast.confidence.templates import TEMPLATES, Template
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
    "ATTRIBUTION",
    "COLUMNS",
    "DISPLAYS",
    "PILOT",
    "PILOT_QUESTIONS",
    "PRESETS",
    "PUBLISHED",
    "TEMPLATES",
    "Advice",
    "Analysis",
    "Answer",
    "Ask",
    "Backend",
    "Calibration",
    "Caution",
    "Cell",
    "ChangeOfMind",
    "ChatResponder",
    "ChoiceModel",
    "Comparison",
    "Condition",
    "Contrasts",
    "Design",
    "Difficulty",
    "Display",
    "Estimate",
    "ModelScore",
    "NoLogprobs",
    "Observer",
    "OptionReading",
    "Plan",
    "PlanCost",
    "ProbabilityAsymmetry",
    "Question",
    "Readings",
    "Reconsider",
    "Reconsidered",
    "Reliability",
    "RepeatNoise",
    "Responder",
    "Results",
    "Run",
    "SampledResponder",
    "SimulatedResponder",
    "Source",
    "Store",
    "SystemOneResponder",
    "Template",
    "TrialDesign",
    "Trials",
    "UnusableAnswers",
    "Update",
    "Verdict",
    "advice_log_odds",
    "analyze",
    "ask_first",
    "ask_with",
    "attribute_to_other",
    "auroc",
    "brier_score",
    "calibrate",
    "check_questions",
    "choice_design",
    "compare",
    "concatenate",
    "contrast",
    "expected_calibration_error",
    "export_requests",
    "find_difference",
    "fit_choices",
    "fit_temperature",
    "fuse",
    "holm",
    "ideal",
    "latitude_questions",
    "log_odds",
    "mask_own_answer",
    "pooled_regression",
    "read_choice",
    "read_logits",
    "read_questions",
    "read_samples",
    "read_top_logprobs",
    "read_trials",
    "reliability",
    "request_records",
    "results_of",
    "run",
    "simulate",
    "simulated_questions",
    "trials_of",
    "write_questions",
    "write_trials",
]
