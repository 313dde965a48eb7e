"""Benches of sharpness: adaptive-temperature attention beside PyTorch's fused attention."""
