"""Whether a network can still learn: metrics of its features, and its learning speed beside that of a fresh copy."""

from holdfast.probes.plasticity.activations import (
    FeatureChange,
    LayerMetrics,
    LayerOutputs,
    feature_change,
    layer_metrics,
    measure,
    record,
)
from holdfast.probes.plasticity.learning_speed import SpeedRatio
from holdfast.probes.plasticity.metrics import (
    activation_change,
    activation_change_share,
    dead_ratio,
    dormancy_scores,
    dormant_ratio,
    effective_rank,
    feature_kernel,
    kernel_change,
    srank,
    stable_rank,
)
from holdfast.probes.plasticity.probe import PlasticitySettings, probe_plasticity
from holdfast.probes.plasticity.report import ActivationState, LayerState, PlasticityReport

__all__ = [
    "ActivationState",
    "FeatureChange",
    "LayerMetrics",
    "LayerOutputs",
    "LayerState",
    "PlasticityReport",
    "PlasticitySettings",
    "SpeedRatio",
    "activation_change",
    "activation_change_share",
    "dead_ratio",
    "dormancy_scores",
    "dormant_ratio",
    "effective_rank",
    "feature_change",
    "feature_kernel",
    "kernel_change",
    "layer_metrics",
    "measure",
    "probe_plasticity",
    "record",
    "srank",
    "stable_rank",
]
