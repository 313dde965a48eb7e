"""Attention with any normaliser in bounded memory: a call, checked once, and one file for each way to compute it."""

from holdfast.nn.attention.attention import adaptive_attention, attention_weights
from holdfast.nn.attention.call import AttentionCall
from holdfast.nn.attention.statistics import RowStatistics, attention_statistics

__all__ = ["AttentionCall", "RowStatistics", "adaptive_attention", "attention_statistics", "attention_weights"]
