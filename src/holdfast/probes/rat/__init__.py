"""What attention costs in a causal language model of transformers as texts grow, and what RAT could change."""

from holdfast.probes.rat.cache import CacheGrowth, LayerCache, cache_growth, rat_cache_bytes
from holdfast.probes.rat.chunks import ChunkCompressibility, MergedLoss, chunk_compressibility
from holdfast.probes.rat.latency import DecodeLatency, decode_latency
from holdfast.probes.rat.locality import HeadLocality, LocalityProfile, locality_profile
from holdfast.probes.rat.positions import ContextLoss, PositionLoss, position_loss
from holdfast.probes.rat.probe import PARTS, probe_rat
from holdfast.probes.rat.report import RATReport

__all__ = [
    "PARTS",
    "CacheGrowth",
    "ChunkCompressibility",
    "ContextLoss",
    "DecodeLatency",
    "HeadLocality",
    "LayerCache",
    "LocalityProfile",
    "MergedLoss",
    "PositionLoss",
    "RATReport",
    "cache_growth",
    "chunk_compressibility",
    "decode_latency",
    "locality_profile",
    "position_loss",
    "probe_rat",
    "rat_cache_bytes",
]
