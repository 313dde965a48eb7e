"""Language models of a few thousand weights, made on the spot, with a tokenizer of bytes."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

CHAT = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def tokenizer(merges: tuple[tuple[str, str], ...] = (), *, chat: bool = True) -> Any:
    """A byte-level tokenizer.

    Arguments:
        merges: pairs of pieces that are one token.
        chat: whether it has a chat template.
    """
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in merges), "<s>"]
    core = Tokenizer(models.BPE({piece: place for place, piece in enumerate(pieces)}, list(merges)))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>")
    if chat:
        made.chat_template = CHAT
    return made


def llama(vocabulary: int = 300, seed: int = 0, **more: Any) -> Any:
    """A Llama of two layers with random weights, wide enough apart for differences to be seen."""
    return _made(
        transformers.LlamaConfig, transformers.LlamaForCausalLM, vocabulary, seed, num_key_value_heads=2, **more
    )


def answering(model: Any, tokens: tuple[int, ...]) -> Any:
    """The same model made to write almost nothing but some tokens, which of them depending on what it read.

    All embeddings get a common part, which the last hidden state keeps; what writes those tokens leans on it.
    """
    with torch.no_grad():
        common = torch.ones(model.config.hidden_size) / model.config.hidden_size**0.5
        model.get_input_embeddings().weight.add_(200 * common)
        head = model.get_output_embeddings().weight
        others = head[list(tokens)] / 8
        head.zero_()
        head[list(tokens)] = 3 * common + others
    return model


def mistral_with_a_window(window: int, vocabulary: int = 300) -> Any:
    """A model of which each token sees the last few only."""
    return _made(
        transformers.MistralConfig,
        transformers.MistralForCausalLM,
        vocabulary,
        0,
        num_key_value_heads=2,
        sliding_window=window,
    )


def gpt2(vocabulary: int = 300) -> Any:
    """A model with a table of positions."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=vocabulary, n_embd=32, n_layer=2, n_head=4, n_positions=1024, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    _widen(model)
    return model


def mamba(vocabulary: int = 300) -> Any:
    """A recurrent model."""
    torch.manual_seed(0)
    config = transformers.MambaConfig(vocab_size=vocabulary, hidden_size=32, state_size=4, num_hidden_layers=2)
    return transformers.MambaForCausalLM(config).eval()


def _made(config_class: Any, model_class: Any, vocabulary: int, seed: int, **more: Any) -> Any:
    torch.manual_seed(seed)
    config = config_class(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=2048,
        **more,
    )
    model = model_class(config).eval()
    _widen(model)
    return model


def _widen(model: Any) -> None:
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim == 2:
                weights.mul_(8)
