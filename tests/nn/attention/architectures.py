"""Every architecture of transformers that a tiny random model can be made of, run with the registered attention.

    python -m tests.nn.attention.architectures

writes what came of it to `architectures.json` beside this file, and the table of the page on sharpness from that.
"""

from __future__ import annotations

import contextlib
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers
from transformers.models.auto import configuration_auto, modeling_auto

from holdfast.errors import ArgumentError
from holdfast.nn import Plain
from holdfast.nn.attention.huggingface import RegisteredAttention
from holdfast.nn.huggingface import register, unregister

RECORD = Path(__file__).with_name("architectures.json")
PAGE = Path(__file__).parents[3] / "docs/systems/sharpness.md"
NAME = "holdfast_architectures"

KINDS = {
    "decoder": (modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, transformers.AutoModelForCausalLM),
    "encoder": (modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES, transformers.AutoModelForMaskedLM),
    "encoder-decoder": (
        modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
        transformers.AutoModelForSeq2SeqLM,
    ),
    "speech": (
        modeling_auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
        transformers.AutoModelForSpeechSeq2Seq,
    ),
    "image": (
        modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
        transformers.AutoModelForImageClassification,
    ),
    "audio": (modeling_auto.MODEL_FOR_CTC_MAPPING_NAMES, transformers.AutoModelForCTC),
}

LARGEST = 3_000_000
"""Parameters; a model that stays larger with the sizes below is left out."""

WIDTHS = ("hidden_size", "d_model", "n_embd", "n_embed", "dim", "embed_dim", "embedding_size", "word_embed_proj_dim")
INNER = (
    "intermediate_size",
    "ffn_dim",
    "d_ff",
    "n_inner",
    "encoder_ffn_dim",
    "decoder_ffn_dim",
    "hidden_dim",
    "mlp_dim",
)
INNER += ("ffn_hidden_size", "ffn_config_hidden_size")
DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers", "encoder_layers")
DEPTHS += ("decoder_layers", "num_encoder_layers")
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads", "decoder_attention_heads")
LENGTHS = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "max_seq_len", "seq_length")
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
SIZES: dict[str, object] = {
    **dict.fromkeys(WIDTHS, 32),
    **dict.fromkeys(INNER, 48),
    **dict.fromkeys(DEPTHS, 2),
    **dict.fromkeys(HEADS, 4),
    **dict.fromkeys(LENGTHS, 128),
    **dict.fromkeys(EXPERTS, 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "multi_query_group_num"), 2),
    **dict.fromkeys(("head_dim", "kv_channels", "d_kv", "v_head_dim", "qk_head_dim", "rotary_dim"), 8),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim"), 4),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "moe_intermediate_size", "shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("expert_ffn_hidden_size", "mamba_d_head", "mamba_head_dim", "num_mel_bins"), 16),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_topk", "type_vocab_size"), 2),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "first_k_dense_replace", "bos_token_id"), 1),
    **dict.fromkeys(("decoder_start_token_id", "mamba_n_groups", "n_groups", "num_codebooks"), 1),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads", "linear_num_key_heads", "linear_num_value_heads"), 4),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "patch_size"), 8),
    **dict.fromkeys(
        ("hidden_dropout", "attention_dropout", "hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0
    ),
    "vocab_size": 97,
    "d_inner": 64,
    "sliding_window": 6,
    "pad_token_id": 0,
    "eos_token_id": 2,
    "image_size": 32,
}
"""Settings that make a model small, where its configuration has them."""

LATENT = ("kv_lora_rank",)
"""Settings of attention through a latent space, where each head has keys of its own."""

TOGETHER: dict[str, dict[str, object]] = {
    "bamba": {"attn_layer_indices": [1], "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_expand": 2},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "mamba_dt_rank": 4},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "qwen3_5_moe_text": {"layer_types": ["linear_attention", "full_attention"]},
    "qwen3_5_text": {"layer_types": ["linear_attention", "full_attention"]},
    "qwen3_next": {"layer_types": ["linear_attention", "full_attention"]},
    "kimi_linear": {"layer_types": ["linear_attention", "full_attention"]},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "reformer": {"is_decoder": True},
    "zaya": {"num_experts_per_tok": 1},
    "xlm": {"emb_dim": 32, "n_words": 97},
    "flaubert": {"emb_dim": 32, "n_words": 97},
    "luke": {"entity_vocab_size": 50, "entity_emb_size": 32},
    "gemma3n_text": {"num_kv_shared_layers": 0, "vocab_size_per_layer_input": 97, "hidden_size_per_layer_input": 8},
    "gemma4_text": {"num_kv_shared_layers": 0, "vocab_size_per_layer_input": 97, "hidden_size_per_layer_input": 8},
    "roc_bert": {"pronunciation_vocab_size": 97, "shape_vocab_size": 97},
    "dbrx": {"max_seq_len": 128},
    "ibert": {"quant_mode": False},
    "longcat_flash": {"zero_expert_num": 2},
    "deit": {"image_size": 32, "patch_size": 8},
    "whisper": {"max_source_positions": 64, "max_target_positions": 64},
    "speech_to_text": {
        "max_source_positions": 64,
        "max_target_positions": 64,
        "conv_channels": 32,
        "input_feat_per_channel": 16,
    },
    "wav2vec2": {"conv_dim": (16, 16), "conv_kernel": (10, 3), "conv_stride": (5, 2), "num_feat_extract_layers": 2},
}
"""Settings that fit each other, by model."""
AUDIO = (
    "wav2vec2",
    "hubert",
    "sew",
    "sew-d",
    "unispeech",
    "unispeech-sat",
    "wavlm",
    "data2vec-audio",
    "wav2vec2-conformer",
)
for audio in AUDIO:
    TOGETHER[audio] = {**TOGETHER["wav2vec2"], "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}


class NotBuilt(Exception):
    """No tiny model can be made so, or it does not run with its own attention."""


@dataclass(frozen=True)
class Verdict:
    """What came of one architecture; `reason` says why it was refused, or what was wrong."""

    outcome: str
    model: str
    reason: str = ""


def architectures() -> Iterator[tuple[str, str]]:
    """Kind and model type of all that are tried."""
    for kind, (names, _) in KINDS.items():
        for model_type in names:
            yield kind, model_type


def tiny_config(model_type: str, kind: str) -> transformers.PreTrainedConfig:
    """A small configuration."""
    config_class = transformers.CONFIG_MAPPING[model_type]
    return config_class(**_settings(config_class, kind))


def _settings(config_class: type, kind: str) -> dict[str, object]:
    known = config_class().to_dict()
    settings = {name: size for name, size in SIZES.items() if name in known}
    if any(known.get(name) for name in LATENT):
        settings |= {name: 4 for name in ("num_key_value_heads",) if name in known}
        settings |= {name: 4 for name in ("head_dim",) if name in known}
    if kind == "decoder" and "is_decoder" in known:
        settings["is_decoder"] = True
    for name, part in (config_class.sub_configs or {}).items():
        if name in known and part in configuration_auto.CONFIG_MAPPING.values():
            settings[name] = {"model_type": part.model_type, **_settings(part, "part")}
    return settings | TOGETHER.get(config_class.model_type, {})


def built(model_type: str, kind: str, implementation: str) -> torch.nn.Module:
    """A tiny model of random weights, the same for every implementation, with attention far from uniform."""
    auto = KINDS[kind][1]
    config = tiny_config(model_type, kind)
    with torch.device("meta"):
        size = sum(
            weight.numel() for weight in auto.from_config(config, attn_implementation=implementation).parameters()
        )
    if size > LARGEST:
        raise NotBuilt(f"{size} parameters")
    torch.manual_seed(0)
    model = auto.from_config(tiny_config(model_type, kind), attn_implementation=implementation).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1 and weight.is_floating_point():
                weight.normal_(std=0.2, generator=generator)
    return model


def answer(model: torch.nn.Module, kind: str, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Logits of a model."""
    inputs: dict[str, torch.Tensor] = {"input_ids": ids}
    if kind == "encoder-decoder":
        inputs["decoder_input_ids"] = ids.flip(1)
    if kind == "speech":
        # Whisper wants two frames for each position of its encoder.
        frames = 2 * getattr(model.config, "max_source_positions", 64)
        sound = torch.randn(2, 16, frames, generator=torch.Generator().manual_seed(1))
        features = sound if type(model).__name__.startswith("Whisper") else sound.mT
        inputs = {model.main_input_name: features, "decoder_input_ids": ids}
    if kind == "image":
        inputs = {"pixel_values": torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))}
    if kind == "audio":
        inputs = {model.main_input_name: torch.randn(2, 1600, generator=torch.Generator().manual_seed(1))}
    if mask is not None:
        inputs["attention_mask"] = mask
    with torch.no_grad():
        output = model(**inputs)
    logits: torch.Tensor = output.logits if hasattr(output, "logits") else output[0]
    return logits


def judged(model_type: str, kind: str) -> Verdict:
    """Run one architecture: with the plain normaliser its logits are its own, and nothing leaks.

    Errors:
        NotBuilt: there is nothing to compare with.
    """
    ids = torch.randint(5, 90, (2, 24), generator=torch.Generator().manual_seed(1))
    try:
        eager = built(model_type, kind, "eager")
        expected = answer(eager, kind, ids)
    except Exception as error:
        raise NotBuilt(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}") from error
    name = type(eager).__name__
    try:
        model = built(model_type, kind, register(NAME, Plain()))
    except ArgumentError as error:
        return Verdict("refused", name, error.got)
    model.load_state_dict(eager.state_dict())  # buffers that are drawn
    calls = 0

    def count(module: torch.nn.Module, *args: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        return inner(module, *args, **options)

    inner = RegisteredAttention(Plain())
    transformers.AttentionInterface.register(NAME, count)
    try:
        wrong = _wrong(eager, model, kind, ids, expected)
    finally:
        unregister(NAME)
    if not calls:
        wrong = "the attention is never called"
    return Verdict("wrong" if wrong else "works", name, wrong)


def _wrong(eager: torch.nn.Module, model: torch.nn.Module, kind: str, ids: torch.Tensor, expected: torch.Tensor) -> str:
    """What differs between two models that should be the same; empty where nothing does."""
    scale = expected.abs().max().item()

    def distance(one: torch.Tensor, other: torch.Tensor) -> float:
        return ((one - other).abs().max() / scale).item()

    found = answer(model, kind, ids)
    if not distance(found, expected) < 1e-4:
        return f"logits differ by {distance(found, expected):.2g}"
    if kind in ("image", "audio", "speech"):
        return ""
    if kind == "decoder":
        future = ids.clone()
        future[:, 15:] = (future[:, 15:] + 1) % 85 + 5
        seen = [
            distance(answer(m, kind, future)[:, :15], own[:, :15]) for m, own in ((model, found), (eager, expected))
        ]
        if not seen[0] <= seen[1] + 1e-4:
            return f"the future changes logits by {seen[0]:.2g}"
    padding = slice(0, 6) if kind == "decoder" else slice(18, 24)
    kept = {"decoder": slice(6, 24), "encoder": slice(0, 18), "encoder-decoder": slice(0, 24)}[kind]
    mask = torch.ones_like(ids)
    mask[0, padding] = 0
    other = ids.clone()
    other[0, padding] = (other[0, padding] + 7) % 85 + 5
    try:
        own = [answer(eager, kind, tokens, mask)[:, kept] for tokens in (ids, other)]
    except Exception:  # it takes no padding
        return ""
    ours = [answer(model, kind, tokens, mask)[:, kept] for tokens in (ids, other)]
    if not distance(ours[0], own[0]) < 1e-4:
        return f"padded logits differ by {distance(ours[0], own[0]):.2g}"
    if not distance(*ours) <= distance(*own) + 1e-4:
        return f"padding changes logits by {distance(*ours):.2g}"
    return ""


def sweep() -> dict[str, dict[str, Verdict]]:
    """All verdicts, by kind, then model type; without what was not built."""
    verdicts: dict[str, dict[str, Verdict]] = {kind: {} for kind in KINDS}
    for kind, model_type in architectures():
        with contextlib.suppress(NotBuilt):
            verdicts[kind][model_type] = judged(model_type, kind)
    return verdicts


def recorded() -> dict[str, dict[str, Verdict]]:
    """The verdicts of the last sweep."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    return {
        kind: {model_type: Verdict(**verdict) for model_type, verdict in of_kind.items()}
        for kind, of_kind in record["verdicts"].items()
    }


def table() -> str:
    """The record as the page shows it."""
    verdicts, version = recorded(), json.loads(RECORD.read_text(encoding="utf-8"))["transformers"]
    lines = [f"| with transformers {version} | works | refused |", "|---|---|---|"]
    for kind, of_kind in verdicts.items():
        cells = []
        for outcome in ("works", "refused"):
            names = [f"`{name}`" for name, verdict in sorted(of_kind.items()) if verdict.outcome == outcome]
            cells.append(f"{len(names)}: {', '.join(names)}" if names else "0")
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    lines += ["", "| refused | because of |", "|---|---|"]
    reasons: dict[str, set[str]] = {}
    for of_kind in verdicts.values():
        for name, verdict in of_kind.items():
            if verdict.outcome == "refused":
                model, _, reason = verdict.reason.partition(", ")
                reason = re.sub(r"whose (\w+) computes", r"`\1` computes", reason)
                reason = re.sub(r" \(modeling_\w+\)|^which |^whose ", "", reason)
                whose = reason if model == verdict.model else f"`{model}`: {reason}"
                reasons.setdefault(whose.replace("(modeling_", "("), set()).add(f"`{name}`")
    lines += [
        f"| {', '.join(sorted(names))} | {reason} |"
        for reason, names in sorted(reasons.items(), key=lambda item: (-len(item[1]), item[0]))
    ]
    return "\n".join(lines)


def page_with(text: str, rows: str) -> str:
    """A page with the table in its place."""
    head, opening, rest = text.partition("<!-- table: architectures -->\n")
    _, closing, tail = rest.partition("<!-- /table -->")
    return f"{head}{opening}\n{rows}\n\n{closing}{tail}"


def main() -> None:
    """Sweep, then write the record and the page."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    verdicts = {kind: {name: asdict(v) for name, v in sorted(found.items())} for kind, found in sweep().items()}
    document = {"transformers": transformers.__version__, "verdicts": verdicts}
    RECORD.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page_with(PAGE.read_text(encoding="utf-8"), table()), encoding="utf-8")
    outcomes = Counter(verdict["outcome"] for of_kind in verdicts.values() for verdict in of_kind.values())
    print(dict(outcomes))


if __name__ == "__main__":
    main()
