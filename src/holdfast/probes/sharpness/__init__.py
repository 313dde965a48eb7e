"""How far attention has dispersed: in any function that yields logits, and in whole models of transformers."""

from holdfast.probes.sharpness.fit_model import ModelTemperature, fit_model_temperature, model_logits
from holdfast.probes.sharpness.model_report import ModelHead, ModelRemedy, ModelSharpnessReport
from holdfast.probes.sharpness.of_function import Answers, HeadSharpness, Remedy, SharpnessReport, probe_sharpness
from holdfast.probes.sharpness.of_model import probe_model_sharpness

__all__ = [
    "Answers",
    "HeadSharpness",
    "ModelHead",
    "ModelRemedy",
    "ModelSharpnessReport",
    "ModelTemperature",
    "Remedy",
    "SharpnessReport",
    "fit_model_temperature",
    "model_logits",
    "probe_model_sharpness",
    "probe_sharpness",
]
