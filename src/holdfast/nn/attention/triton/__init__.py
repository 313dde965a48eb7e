"""Attention by Triton kernels: `host.py` launches them, `kernels.py` holds them and is all that imports Triton."""
