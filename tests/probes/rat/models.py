"""Tiny causal language models with random weights, and tokens for them."""

from __future__ import annotations

import pytest
import torch

transformers = pytest.importorskip("transformers")

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
GROUPED = {**SHAPE, "num_key_value_heads": 2}
VOCABULARY = 97
TOKENS = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def made(config, implementation=None, std=0.25):
    """A model in evaluation mode; weights large enough for attention to differ from an even one."""
    torch.manual_seed(0)
    options = {} if implementation is None else {"attn_implementation": implementation}
    model = transformers.AutoModelForCausalLM.from_config(config, **options)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 or "sinks" in name:
                weight.normal_(std=std)
    return model.eval()


def llama(implementation="sdpa", layers=2, kv_heads=2, trained=128, std=0.25, **options):
    """Grouped keys, rotary positions."""
    shape = {**SHAPE, "num_key_value_heads": kv_heads, "num_hidden_layers": layers, **options}
    return made(transformers.LlamaConfig(**TOKENS, **shape, max_position_embeddings=trained), implementation, std)


def mistral(implementation="sdpa", window=16):
    """A sliding window in every layer."""
    config = transformers.MistralConfig(**TOKENS, **GROUPED, num_hidden_layers=2, sliding_window=window)
    return made(config, implementation)


def gemma2(implementation="eager"):
    """A softcap on the logits, and a sliding window in every other layer."""
    config = transformers.Gemma2Config(
        **TOKENS, **GROUPED, num_hidden_layers=2, head_dim=8, sliding_window=16, attn_logit_softcapping=1.5
    )
    return made(config, implementation)


def gpt_oss(implementation="eager"):
    """A learned sink for each head."""
    config = transformers.GptOssConfig(
        **TOKENS, **GROUPED, num_hidden_layers=2, head_dim=8, num_local_experts=2, num_experts_per_tok=1,
        sliding_window=16,
    )  # fmt: skip
    return made(config, implementation)


def gpt2(positions=64):
    """Learned positions, which end."""
    config = transformers.GPT2Config(**TOKENS, n_embd=32, n_layer=2, n_head=4, n_positions=positions)
    return made(config, std=0.1)


def mamba():
    """No attention at all."""
    return made(transformers.MambaConfig(**TOKENS, hidden_size=32, num_hidden_layers=2, state_size=4), std=0.1)


def jamba():
    """Attention in every other layer, a recurrence in the rest."""
    config = transformers.JambaConfig(
        **TOKENS, **GROUPED, num_hidden_layers=4, attn_layer_period=2, attn_layer_offset=1, mamba_d_state=4,
        mamba_dt_rank=4, num_experts=1,
    )  # fmt: skip
    return made(config, std=0.1)


def bloom():
    """Attention that asks no registry."""
    return made(transformers.BloomConfig(**TOKENS, hidden_size=32, n_layer=2, n_head=4), std=0.1)


def tokens(time=96, texts=2):
    """Random ones."""
    return torch.randint(3, VOCABULARY, (texts, time), generator=torch.Generator().manual_seed(1))
