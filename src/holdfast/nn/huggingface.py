"""Adaptive temperature in Hugging Face models: the public names of `holdfast.nn.attention.huggingface`."""

from holdfast.nn.attention.huggingface import register, unregister

__all__ = ["register", "unregister"]
