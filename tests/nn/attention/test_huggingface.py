"""Models of transformers run with the registered attention as they run with their own."""

from __future__ import annotations

import inspect
import math

import pytest
import torch

from holdfast.errors import ArgumentError

transformers = pytest.importorskip("transformers")

from holdfast.nn import (  # noqa: E402
    Adaptive,
    AdaptiveTemperature,
    Llama4,
    Plain,
    ScaleInvariant,
    SSMax,
    adaptive_softmax,
)
from holdfast.nn.attention.huggingface import RegisteredAttention  # noqa: E402
from holdfast.nn.huggingface import register, unregister  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::holdfast.nn.CorrectionInactiveWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*:UserWarning:transformers"),
]

COMMON = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "max_position_embeddings": 128,
}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**COMMON, **HEADS, **IDS),
    "gemma2": lambda: transformers.Gemma2Config(
        **COMMON, **HEADS, **IDS, head_dim=8, sliding_window=5, attn_logit_softcapping=2.0, query_pre_attn_scalar=8
    ),
    "qwen3": lambda: transformers.Qwen3Config(**COMMON, **HEADS, **IDS, head_dim=8),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=97,
        n_embd=32,
        n_layer=3,
        n_head=4,
        n_positions=128,
        **IDS,
        attn_pdrop=0.0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
    ),
    "gpt_oss": lambda: transformers.GptOssConfig(
        **COMMON, **HEADS, **IDS, head_dim=8, num_local_experts=2, num_experts_per_tok=1, sliding_window=5
    ),
}
every_model = pytest.mark.parametrize("kind", CONFIGS)


def model(kind, implementation):
    """The same weights whatever the attention; large enough for attention to be far from uniform."""
    torch.manual_seed(0)
    made = transformers.AutoModelForCausalLM.from_config(CONFIGS[kind](), attn_implementation=implementation).eval()
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.25)
            elif "sinks" in name:
                weight.normal_()
    return made if kind == "gpt_oss" else made.double()  # its experts take no float64


@pytest.fixture(scope="module", autouse=True)
def names():
    register("holdfast_off", Plain())
    register()


def tokens(batch=2, time=17):
    torch.manual_seed(1)
    return torch.randint(3, 97, (batch, time))


@every_model
def test_with_the_law_off_it_is_the_models_own_attention(kind):
    ids = tokens()
    with torch.no_grad():
        expected = model(kind, "eager")(ids).logits
        found = model(kind, "holdfast_off")(ids).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@every_model
def test_left_padding(kind):
    ids = tokens()
    mask = torch.ones_like(ids)
    mask[0, :6] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    padded = {"attention_mask": mask, "position_ids": positions}
    with torch.no_grad():
        # In float64 the library's own eager mask overflows, and padded rows become NaN.
        expected = model(kind, "eager").float()(ids, **padded).logits
        found = model(kind, "holdfast_off").float()(ids, **padded).logits
        adaptive = model(kind, "holdfast_adaptive")(ids, **padded).logits
        alone = model(kind, "holdfast_adaptive")(ids[:1, 6:]).logits
    torch.testing.assert_close(found[0, 6:], expected[0, 6:], atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(found[1], expected[1], atol=2e-4, rtol=1e-4)
    assert adaptive.isfinite().all()
    # Padding is no part of the entropy: the padded sequence is the sequence alone.
    torch.testing.assert_close(adaptive[0, 6:], alone[0], atol=1e-5, rtol=1e-4)


@every_model
def test_the_future_changes_nothing(kind):
    ids = tokens()
    other = ids.clone()
    other[:, 10:] = (other[:, 10:] + 1) % 90 + 3
    made = model(kind, "holdfast_adaptive")
    with torch.no_grad():
        found, again = made(ids).logits, made(other).logits
    # Experts take their tokens in batches, whose sums depend on who else is in them.
    torch.testing.assert_close(found[:, :10], again[:, :10], atol=1e-5 if kind == "gpt_oss" else 0, rtol=0)
    assert not torch.allclose(found[:, 10:], again[:, 10:])


@every_model
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_generation_with_a_cache_is_generation_without(kind, cache):
    made = model(kind, "holdfast_adaptive")
    ids = tokens(time=9)
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    options = {"attention_mask": mask, "max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
    without = made.generate(ids, use_cache=False, **options)
    cached = made.generate(ids, use_cache=True, cache_implementation=cache, disable_compile=True, **options)
    assert torch.equal(cached, without)


def test_with_the_law_on_it_is_the_computation_by_hand():
    """Every row: entropy of the eager weights, the published polynomial, softmax again."""
    seen = []
    made = model("llama", "holdfast_adaptive")
    layer = made.model.layers[1].self_attn
    inner = transformers.AttentionInterface._global_mapping["holdfast_adaptive"]

    def spy(module, query, key, value, attention_mask, **options):
        found = inner(module, query, key, value, attention_mask, **options)
        if module is layer:
            seen.append((query, key, value, options["scaling"], found[0]))
        return found

    transformers.AttentionInterface.register("holdfast_adaptive", spy)
    try:
        with torch.no_grad():
            made(tokens())
    finally:
        transformers.AttentionInterface.register("holdfast_adaptive", inner)
    [(query, key, value, scaling, output)] = seen
    changed = 0
    for b in range(2):
        for h in range(4):
            for t in range(17):
                z = query[b, h, t] @ key[b, h // 2, : t + 1].T * scaling
                p = z.softmax(-1)
                entropy = -(p * p.log()).sum().item()
                beta = 1.0
                if entropy > 0.5:
                    beta = max(
                        1.0,
                        sum(
                            c * entropy**d
                            for c, d in zip((-0.037, 0.481, -2.3, 4.917, -1.791), (4, 3, 2, 1, 0), strict=True)
                        ),
                    )
                changed += beta > 1
                by_hand = (beta * z).softmax(-1) @ value[b, h // 2, : t + 1]
                torch.testing.assert_close(output[b, t, h], by_hand, atol=1e-10, rtol=1e-8)
    assert changed > 20


def test_a_model_can_be_trained_with_it():
    made = model("llama", "holdfast_adaptive").train()
    made(tokens(), labels=tokens()).loss.backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in made.parameters())


def test_several_laws_have_several_names():
    law = AdaptiveTemperature((0.3, 1.0))
    assert register("holdfast_mine", law) == "holdfast_mine"
    register("holdfast_mine", law)
    with pytest.raises(ArgumentError, match="name"):
        register("holdfast_mine", SSMax())
    register("holdfast_mine", SSMax(), replace=True)
    ids = tokens()
    with torch.no_grad():
        assert not torch.allclose(
            model("llama", "holdfast_mine")(ids).logits, model("llama", "holdfast_off")(ids).logits
        )


def test_what_cannot_work_is_refused():
    for name in ("sdpa", "my flash", "flash_mine"):
        with pytest.raises(ArgumentError, match="name"):
            register(name)
    with pytest.raises(ArgumentError, match="normaliser"):
        inspect.unwrap(register)("holdfast_odd", 2.0)


def test_weights_and_dropout():
    query, key = (torch.randn(1, 2, 4, 8, dtype=torch.float64) for _ in range(2))
    layer = torch.nn.Module().train()
    output, weights = RegisteredAttention(Adaptive())(layer, query, key, key, None, output_attentions=True)
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 2, 4, dtype=torch.float64))
    torch.testing.assert_close((weights @ key).transpose(1, 2), output)
    torch.manual_seed(0)
    dropped, nothing = RegisteredAttention(Adaptive())(layer, query, key, key, None, dropout=0.5)
    assert nothing is None
    assert not torch.allclose(dropped, output)
    kept, _ = RegisteredAttention(Adaptive())(layer.eval(), query, key, key, None, dropout=0.5)
    torch.testing.assert_close(kept, output)


def test_a_name_can_be_given_back():
    register("holdfast_gone")
    unregister("holdfast_gone")
    assert "holdfast_gone" not in transformers.AttentionInterface._global_mapping
    unregister("holdfast_gone")


def test_masks_of_both_kinds_and_none():
    query, key = (torch.randn(1, 2, 4, 8, dtype=torch.float64) for _ in range(2))
    visible = torch.ones(4, 4, dtype=torch.bool).tril()[None, None]
    additive = torch.zeros(1, 1, 4, 4, dtype=torch.float64).masked_fill(~visible, torch.finfo(torch.float64).min)
    attend = RegisteredAttention(Adaptive())
    expected = (adaptive_softmax((query @ key.mT / math.sqrt(8)).masked_fill(~visible, -math.inf)) @ key).transpose(
        1, 2
    )
    for mask in (visible, additive, None):
        found, weights = attend(torch.nn.Module(), query, key, key, mask)
        assert weights is None
        torch.testing.assert_close(found, expected)
    one, _ = attend(torch.nn.Module(), query[:, :, -1:], key, key, None)
    torch.testing.assert_close(one, expected[:, -1:])


def mistral(implementation):
    config = transformers.MistralConfig(**COMMON, **HEADS, **IDS, sliding_window=8)
    torch.manual_seed(0)
    made = transformers.MistralForCausalLM._from_config(config, attn_implementation=implementation).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(4)
    return made


@pytest.mark.parametrize("normaliser", [Llama4(attn_scale=0.5, floor_scale=4.0), ScaleInvariant(3.0)])
@pytest.mark.parametrize("kind", ["sliding window", "full"])
def test_positions_are_those_of_the_sequence(kind, normaliser):
    """A cache forgets what is out of the window, or has room that is still empty; both move its first slot."""
    name = register("holdfast_positions", normaliser, replace=True)
    made = mistral(name) if kind == "sliding window" else model("llama", name).float()
    ids = tokens(time=30)
    with torch.no_grad():
        full = made(ids, use_cache=False).logits
        for first in (1, 12):
            for cache in (None, transformers.StaticCache(made.config, max_cache_len=40)):
                parts = []
                for start, stop in ((0, first), *((t, t + 1) for t in range(first, 30))):
                    output = made(ids[:, start:stop], past_key_values=cache, use_cache=True)
                    cache = output.past_key_values
                    parts.append(output.logits)
                torch.testing.assert_close(torch.cat(parts, 1), full, atol=2e-4, rtol=1e-4)
    options = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False}
    without = made.generate(ids, use_cache=False, **options)
    static = made.generate(ids, cache_implementation="static", disable_compile=True, **options)
    assert torch.equal(static, without)


def test_autocast():
    """Queries and keys leave their rotation in float32 and values come in bfloat16; statistics stay exact."""
    made = model("llama", "holdfast_adaptive").float()
    with torch.no_grad():
        exact = made(tokens()).logits
    with torch.autocast("cpu", torch.bfloat16):
        found = made(tokens(), labels=tokens())
    assert (found.logits.float() - exact).abs().max() < 0.1 * exact.abs().max()
    found.loss.backward()
    assert all(weight.grad.isfinite().all() for weight in made.parameters())


def test_sinks_of_another_kind_are_refused():
    query = torch.randn(1, 2, 4, 8)
    with pytest.raises(ArgumentError, match="sinks"):
        RegisteredAttention(Plain())(torch.nn.Module(), query, query, query, None, sinks=torch.zeros(1, 2, 4, 1))
