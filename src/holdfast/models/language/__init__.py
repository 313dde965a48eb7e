"""A language model of sequence mixers for transformers, with a tokenizer of bytes."""

from holdfast.errors import require

require("transformers", "hf")

from holdfast.models.language.cache import HoldfastCache  # noqa: E402
from holdfast.models.language.config import HoldfastConfig  # noqa: E402
from holdfast.models.language.model import HoldfastForCausalLM  # noqa: E402
from holdfast.models.language.tokenizer import ByteTokenizer  # noqa: E402

__all__ = ["ByteTokenizer", "HoldfastCache", "HoldfastConfig", "HoldfastForCausalLM"]
