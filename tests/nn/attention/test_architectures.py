"""Models that can use a registered attention do so as their own; all others are refused before their first forward."""

from __future__ import annotations

import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.nn import Plain

transformers = pytest.importorskip("transformers")

from holdfast.nn.attention.huggingface import refusal  # noqa: E402
from holdfast.nn.huggingface import register  # noqa: E402
from tests.nn.attention import architectures  # noqa: E402
from tests.nn.attention.architectures import NotBuilt, built, judged, recorded, sweep  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

SAMPLE = [
    ("decoder", "llama"),
    ("decoder", "gpt_neox"),
    ("decoder", "deepseek_v3"),  # a latent space, with values of another width
    ("decoder", "diffllama"),
    ("decoder", "jamba"),  # beside state-space layers
    ("decoder", "bert"),  # causal by its mask only
    ("decoder", "bigbird_pegasus"),  # says of no layer that it is causal
    ("encoder", "modernbert"),
    ("encoder-decoder", "t5"),  # a learned bias
    ("encoder-decoder", "nllb-moe"),
    ("image", "vit"),
    ("audio", "wav2vec2"),
    ("decoder", "bloom"),
    ("decoder", "gpt_neo"),  # looks its attention up in a table of its own
    ("decoder", "inkling2_text"),  # sinks that each query computes
    ("decoder", "mamba"),
    ("encoder", "deberta-v2"),
    ("encoder-decoder", "longt5"),  # asks in some layers only
]


@pytest.mark.parametrize(("kind", "model_type"), SAMPLE)
def test_the_record_holds(kind, model_type):
    assert judged(model_type, kind) == recorded()[kind][model_type]


@pytest.mark.slow
def test_the_record_of_all_holds():
    before = recorded()
    for kind, verdicts in sweep().items():
        for model_type, verdict in verdicts.items():
            assert verdict.outcome in ("works", "refused"), (kind, model_type, verdict)
            assert verdict.outcome == before[kind].get(model_type, verdict).outcome, (kind, model_type)


def test_the_page_shows_the_record():
    page = architectures.PAGE.read_text(encoding="utf-8")
    assert architectures.page_with(page, architectures.table()) == page
    outcomes = [verdict.outcome for verdict in recorded()["decoder"].values()]
    assert outcomes.count("works") >= 40
    assert set(outcomes) == {"works", "refused"}


BERT = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def bloom(implementation="eager"):
    config = transformers.BloomConfig(vocab_size=97, hidden_size=32, n_layer=2, n_head=4)
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation=implementation)


def test_a_model_is_refused_whichever_way_it_comes(tmp_path):
    name = register("holdfast_refused", Plain())
    words = r"attn_implementation: .*ALL_ATTENTION_FUNCTIONS.*, got BloomForCausalLM, .*modeling_bloom"
    with pytest.raises(ArgumentError, match=words):
        bloom(name)
    model = bloom()
    with pytest.raises(ArgumentError, match=words):
        model.set_attn_implementation(name)
    assert model.config._attn_implementation == "eager"
    model.set_attn_implementation("eager")
    model.save_pretrained(tmp_path)
    with pytest.raises(ArgumentError, match=words):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation=name)
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path).config._attn_implementation == "eager"


def test_a_layer_that_does_not_ask_is_refused_when_switched():
    name = register("holdfast_refused", Plain())
    model = built("longt5", "encoder-decoder", "eager")
    with pytest.raises(ArgumentError, match="LongT5LocalAttention computes attention without asking"):
        model.set_attn_implementation(name)
    assert model.config._attn_implementation == "eager"


def test_parts_of_a_model_can_be_named():
    name = register("holdfast_refused", Plain())
    text = transformers.LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4
    )
    vision = transformers.CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8
    )

    def llava():
        return transformers.LlavaConfig(text_config=text, vision_config=vision, image_token_index=96)

    by_part = transformers.LlavaForConditionalGeneration._from_config(
        llava(), attn_implementation={"text_config": name}
    )
    assert by_part.config.text_config._attn_implementation == name
    assert by_part.config.vision_config._attn_implementation == "sdpa"
    switched = transformers.LlavaForConditionalGeneration._from_config(llava())
    switched.set_attn_implementation({"vision_config": name})
    assert switched.config.vision_config._attn_implementation == name
    assert switched.config.text_config._attn_implementation == "sdpa"
    # A part that cannot is refused only where it is named.
    gpt = transformers.GPTNeoConfig(
        vocab_size=97, hidden_size=32, num_layers=2, num_heads=4, attention_types=[[["global"], 2]]
    )
    config = transformers.EncoderDecoderConfig(encoder=transformers.BertConfig(**BERT).to_dict(), decoder=gpt.to_dict())
    with pytest.raises(ArgumentError, match="got GPTNeo"):
        transformers.EncoderDecoderModel._from_config(config, attn_implementation=name)


def test_what_cannot_be_built_says_so(monkeypatch):
    monkeypatch.setattr(architectures, "LARGEST", 10)
    with pytest.raises(NotBuilt, match="parameters"):
        judged("llama", "decoder")


def test_a_model_whose_code_cannot_be_read_is_refused():
    """As one that is defined at a prompt."""
    space = {"__name__": "at_a_prompt"}
    exec(  # no file stands behind it
        "import transformers\nclass Mine(transformers.PreTrainedModel):\n    config_class = transformers.LlamaConfig\n",
        space,
    )
    assert refusal(space["Mine"]) == "Mine, whose code (at_a_prompt) cannot be read"


def test_no_other_attention_is_touched():
    register("holdfast_refused", Plain())
    model = bloom("eager")
    with torch.no_grad():
        assert model(torch.arange(10)[None]).logits.isfinite().all()
    assert built("llama", "decoder", "sdpa").config._attn_implementation == "sdpa"
