"""Adaptive temperature in Hugging Face models: the public names of `holdfast.nn.attention` for them."""

from holdfast.nn.attention.by_layer import learn_scales, set_normalisers
from holdfast.nn.attention.huggingface import register, register_by_layer, unregister

__all__ = ["learn_scales", "register", "register_by_layer", "set_normalisers", "unregister"]
