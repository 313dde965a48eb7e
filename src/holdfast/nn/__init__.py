"""Modules and functions that networks are made of."""

from holdfast.nn.attention import RowStatistics, adaptive_attention, attention_statistics, attention_weights
from holdfast.nn.backbone import MIXERS, Backbone, BackboneConfig
from holdfast.nn.block import Block
from holdfast.nn.causal_attention import AttentionState, CausalAttention, WindowState
from holdfast.nn.fit_temperature import FitError, fit_temperature
from holdfast.nn.layout import Layout
from holdfast.nn.learned_scale import LearnedScale
from holdfast.nn.list_comparator import ListComparator, train_list_comparator
from holdfast.nn.normaliser_documents import document_of, normaliser_of
from holdfast.nn.normalisers import (
    NORMALISERS,
    Adaptive,
    ByHead,
    Entmax,
    Hard,
    Llama4,
    LogN,
    Normaliser,
    Plain,
    Rows,
    ScaleInvariant,
    Sparsemax,
    SSMax,
    YaRN,
)
from holdfast.nn.rat import RAT, GatedRNN, GatedRNNState, RATState, rat_attention
from holdfast.nn.softmax import CorrectionInactiveWarning, adaptive_softmax, entropy_of, inactive_share
from holdfast.nn.stack import BackboneState
from holdfast.nn.state import State
from holdfast.nn.temperature import AdaptiveTemperature, FitRecord, SizeCheck
from holdfast.nn.xlstm import (
    MLSTM,
    SLSTM,
    XLSTM,
    XLSTM_SIZES,
    MLSTMState,
    SLSTMState,
    XLSTMConfig,
    mlstm,
    xlstm_from_nxai,
)

__all__ = [
    "MIXERS",
    "MLSTM",
    "NORMALISERS",
    "RAT",
    "SLSTM",
    "XLSTM",
    "XLSTM_SIZES",
    "Adaptive",
    "AdaptiveTemperature",
    "AttentionState",
    "Backbone",
    "BackboneConfig",
    "BackboneState",
    "Block",
    "ByHead",
    "CausalAttention",
    "CorrectionInactiveWarning",
    "Entmax",
    "FitError",
    "FitRecord",
    "GatedRNN",
    "GatedRNNState",
    "Hard",
    "Layout",
    "LearnedScale",
    "ListComparator",
    "Llama4",
    "LogN",
    "MLSTMState",
    "Normaliser",
    "Plain",
    "RATState",
    "RowStatistics",
    "Rows",
    "SLSTMState",
    "SSMax",
    "ScaleInvariant",
    "SizeCheck",
    "Sparsemax",
    "State",
    "WindowState",
    "XLSTMConfig",
    "YaRN",
    "adaptive_attention",
    "adaptive_softmax",
    "attention_statistics",
    "attention_weights",
    "document_of",
    "entropy_of",
    "fit_temperature",
    "inactive_share",
    "mlstm",
    "normaliser_of",
    "rat_attention",
    "train_list_comparator",
    "xlstm_from_nxai",
]
