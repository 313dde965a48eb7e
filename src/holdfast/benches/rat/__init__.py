"""Benches of RAT: its core and the whole layer beside PyTorch's fused attention."""
