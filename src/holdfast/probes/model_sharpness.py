"""How sharp each attention head of a transformers model is on given text, and whether a temperature law can still act.

The model's own attention runs unchanged; statistics of its logits are streamed beside it, at any length.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Int
from torch import Tensor

from holdfast.errors import ArgumentError, require
from holdfast.nn.huggingface import key_span, masking, own_attention, unregister
from holdfast.nn.temperature import PUBLISHED, AdaptiveTemperature
from holdfast.nn.tempered_attention import RowStatistics, attention_statistics
from holdfast.probes.sharpness import fitted_slope, jsonable, random_state_kept

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "holdfast_probe"

SHORTEST = 64
"""Rows that see fewer keys say little about growth, and are left out of slopes."""


@dataclass(frozen=True)
class ModelHead:
    """One head. Means are over its rows with at least two visible keys and no NaN.

    Arguments:
        layer: index of the layer.
        head: index of the query head.
        rows: number of such rows.
        nan_rows: rows with NaN or infinite statistics; counted here and left out of all else.
        keys: mean number of visible keys, n.
        entropy: mean Shannon entropy H, in nats.
        entropy_share: mean of H / ln n; 1 is uniform attention.
        effective_keys: exp of `entropy`.
        largest: mean largest weight.
        spread: mean logit spread, largest minus smallest visible logit, in nats.
        bound: mean upper bound on the spread, 2 scale |q| max |k| over all keys of the sequence.
        slack: least bound over spread of any row; at least 1.
        slope: d H / d ln n over rows that see 64 keys or more; NaN without enough of them.
        reach: 1 + e^spread_max, the length beyond which no key of any such row could hold half the weight.
        below: share of rows whose entropy is below the law's active interval.
        acting: share of rows within it.
        above: share of rows above it, where the law changes nothing.
    """

    layer: int
    head: int
    rows: int
    nan_rows: int
    keys: float
    entropy: float
    entropy_share: float
    effective_keys: float
    largest: float
    spread: float
    bound: float
    slack: float
    slope: float
    reach: float
    below: float
    acting: float
    above: float


@dataclass(frozen=True)
class ModelSharpnessReport:
    """What `probe_model_sharpness` found.

    Arguments:
        heads: one entry a head, by layer, then head.
        length: tokens in the longest sequence.
        interval: entropies, in nats, between which the law acts; `None` for a law that never acts.
    """

    heads: tuple[ModelHead, ...]
    length: int
    interval: tuple[float, float] | None

    def violations(self, limit: float) -> tuple[ModelHead, ...]:
        """Heads whose mean H / ln n exceeds a limit, the most dispersed first; NaN counts as a violation."""
        found = [head for head in self.heads if not head.entropy_share <= limit]
        return tuple(sorted(found, key=lambda head: -head.entropy_share))

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, dicts and numbers, ready for JSON: what is not finite becomes `None`."""
        plain: dict[str, Any] = jsonable(asdict(self))
        return plain

    def plot(self, ax: Axes) -> None:
        """Draw H / ln n as a map of layers and heads; bright is dispersed.

        Arguments:
            ax: Matplotlib axes to draw into.
        """
        layers, heads = 1 + max(each.layer for each in self.heads), 1 + max(each.head for each in self.heads)
        table = [[math.nan] * heads for _ in range(layers)]
        for each in self.heads:
            table[each.layer][each.head] = each.entropy_share
        image = ax.imshow(table, vmin=0, vmax=1, aspect="auto", cmap="viridis", origin="lower")
        ax.set_xlabel("head")
        ax.set_ylabel("layer")
        ax.set_xticks(range(0, heads, max(1, heads // 8)))
        ax.set_yticks(range(0, layers, max(1, layers // 8)))
        ax.figure.colorbar(image, ax=ax, label=f"H / ln n at {self.length} tokens")

    def __str__(self) -> str:
        """Return a table for people to read, the most dispersed heads first."""
        header = (
            "layer",
            "head",
            "H",
            "H/ln n",
            "exp H",
            "max w",
            "spread",
            "bound",
            "slope",
            "n*",
            "below",
            "acts",
            "above",
        )
        shown = self.violations(-1.0)[:24]
        lines = [
            (
                str(each.layer),
                str(each.head),
                f"{each.entropy:.3f}",
                f"{each.entropy_share:.3f}",
                f"{each.effective_keys:.1f}",
                f"{each.largest:.4f}",
                f"{each.spread:.2f}",
                f"{each.bound:.2f}",
                f"{each.slope:.3f}",
                f"{each.reach:.3g}",
                *(f"{100 * share:.0f} %" for share in (each.below, each.acting, each.above)),
            )
            for each in shown
        ]
        widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
        table = ["  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in (header, *lines)]
        rest = len(self.heads) - len(shown)
        broken = sum(each.nan_rows for each in self.heads)
        law = "never" if self.interval is None else f"for {self.interval[0]:.4f} < H < {self.interval[1]:.4f} nats"
        return "\n".join(
            [
                f"{len(self.heads)} heads at {self.length} tokens, the most dispersed first",
                *table,
                *([f"... and {rest} heads more"] if rest > 0 else []),
                *([f"{broken} rows with NaN were left out"] if broken else []),
                f"the law acts {law}",
            ]
        )


@dataclass(frozen=True)
class _Seen:
    statistics: RowStatistics
    bound: Tensor


def probe_model_sharpness(
    model: torch.nn.Module,
    input_ids: Int[Tensor, "batch time"],
    attention_mask: Int[Tensor, "batch time"] | None = None,
    *,
    temperature: AdaptiveTemperature | None = None,
) -> ModelSharpnessReport:
    """Measure how dispersed the attention of every head is.

    Leaves the model as it found it: mode, gradients, attention implementation and random states.

    Arguments:
        model: a model of transformers that looks its attention up in the library's registry.
        input_ids: tokens; longer sequences show more.
        attention_mask: 0 for padding; padded positions are left out throughout.
        temperature: the law whose reach is reported; `None`: the published one.

    Returns:
        The report.

    Errors:
        ArgumentError: the model does not use the registry, or there is nothing to measure.

    Source: arXiv 2410.01104, sections 2 (lemma 2.1) and 3 (proposition 3.1, here with the norms of the very queries and
    keys in place of their spectral bound, which makes it tighter and holds for any kind of layer).
    """
    if input_ids.shape[1] < 2:
        raise ArgumentError("input_ids", "at least two tokens", input_ids.shape[1])
    law = PUBLISHED if temperature is None else temperature
    kept = None if attention_mask is None else attention_mask.bool()
    seen: dict[int, _Seen] = {}
    modes = [(module, module.training) for module in model.modules()]
    with torch.no_grad(), random_state_kept(), _listening(model, seen):
        model.eval()
        try:
            options = {} if attention_mask is None else {"attention_mask": attention_mask}
            model(input_ids=input_ids, use_cache=False, **options)
        finally:
            for module, training in modes:  # each its own: parts of a model in training may be frozen
                module.training = training
    if not seen:
        raise ArgumentError(
            "model", "one that routes its attention through transformers' registry", type(model).__name__
        )
    heads = [
        _head(layer, head, seen[layer], kept, law)
        for layer in sorted(seen)
        for head in range(seen[layer].bound.shape[1])
    ]
    return ModelSharpnessReport(tuple(heads), input_ids.shape[1], law.active_interval)


def load_model(target: str, text: Path | None, length: int) -> tuple[torch.nn.Module, Int[Tensor, "batch time"], str]:
    """A model of transformers and tokens for it to read.

    Arguments:
        target: a folder, or an id on the hub.
        text: a file to read; `None` for random tokens, the same ones each time.
        length: how many tokens, at most.

    Returns:
        The model, the tokens, and a line that says what they are.

    Errors:
        ArgumentError: the model does not load, or the text has fewer than two tokens.
        MissingExtraError: transformers is not installed.
    """
    transformers = require("transformers", "hf")
    if target.startswith((".", "/")) and not Path(target).is_dir():
        raise ArgumentError(
            "TARGET", "file.py:name, module:name, or a transformers model", f"{target}, which is no folder"
        )
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(target).eval()
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0]
        raise ArgumentError(
            "TARGET", "file.py:name, module:name, or a transformers model", f"{target} ({first})"
        ) from error
    config = model.config.get_text_config()
    vocabulary = config.vocab_size
    # A table of positions that ends has nothing for tokens behind it.
    length = min(length, getattr(config, "max_position_embeddings", None) or length)
    if text is None:
        generator = torch.Generator().manual_seed(0)
        return model, torch.randint(vocabulary, (1, length), generator=generator), "random tokens"
    try:
        content = text.read_bytes()
    except OSError as error:
        raise ArgumentError("--text", "a file", f"{text} ({error.strerror})") from error
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(target)
        tokens, read = tokenizer(content.decode(errors="replace"))["input_ids"], f"tokens of {text.name}"
    except (OSError, ValueError, KeyError, TypeError):
        tokens, read = (
            [byte % vocabulary for byte in content],
            f"bytes of {text.name}, since the model has no tokenizer",
        )
    if len(tokens) < 2:
        raise ArgumentError("--text", "at least two tokens", len(tokens))
    return model, torch.tensor([tokens[:length]]), read


@contextmanager
def _listening(model: torch.nn.Module, seen: dict[int, _Seen]) -> Iterator[None]:
    """Run the model's own attention under another name, and take statistics of what passes."""
    require("transformers", "hf")
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    config: Any = getattr(model, "config", None)
    own = getattr(config, "_attn_implementation", None)
    masks = AttentionMaskInterface._global_mapping
    if own is None or own not in masks:
        raise ArgumentError("model", "a transformers model with eager or sdpa attention", f"attention {own!r}")
    order: dict[int, int] = {}

    def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any) -> Any:
        span = key_span(module, query, key, mask, options.get("is_causal"))
        visible, causal, window = masking(
            module, query, span, mask, options.get("sliding_window"), options.get("is_causal")
        )
        scale = options.get("scaling")
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        statistics = attention_statistics(
            query,
            key[:, :, :span],
            mask=visible,
            causal=causal,
            window=window,
            scale=scale,
            softcap=options.get("softcap"),
        )
        # A broken key makes NaN of the rows that see it, by their entropy; the others keep their bound.
        longest = key[:, :, :span].float().norm(dim=-1).nan_to_num(0.0).amax(-1)
        longest = longest.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
        bound = 2 * scale * query.float().norm(dim=-1) * longest.unsqueeze(-1)
        layer = getattr(module, "layer_idx", None)
        seen[order.setdefault(id(module), len(order)) if layer is None else layer] = _Seen(statistics, bound)
        return own_attention(module, own)(module, query, key, value, mask, **options)

    unregister(NAME)
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, cast("Any", masks[own]))
    switch: Any = model.set_attn_implementation
    try:
        switch(NAME)
        yield
    finally:
        switch(own)
        unregister(NAME)


def _head(layer: int, head: int, seen: _Seen, kept: Tensor | None, law: AdaptiveTemperature) -> ModelHead:
    """Measure one head."""
    found, bound = seen.statistics, seen.bound[:, head]
    entropy, visible = found.entropy[:, head], found.visible[:, head]
    spread, largest = found.spread[:, head], found.largest[:, head]
    wanted = visible >= 2
    if kept is not None:
        wanted &= kept
    finite = entropy.isfinite() & spread.isfinite() & bound.isfinite()
    usable = wanted & finite
    h, n = entropy[usable].double(), visible[usable].double()
    d, b = spread[usable].double(), bound[usable].double()
    low, high = law.active_interval or (math.inf, math.inf)
    mean = _mean(h)
    long = n >= SHORTEST
    return ModelHead(
        layer=layer,
        head=head,
        rows=int(usable.sum()),
        nan_rows=int((wanted & ~finite).sum()),
        keys=_mean(n),
        entropy=mean,
        entropy_share=_mean(h / n.log()),
        effective_keys=math.exp(mean),
        largest=_mean(largest[usable].double()),
        spread=_mean(d),
        bound=_mean(b),
        slack=(b / d).min().item() if len(d) else math.nan,
        slope=fitted_slope(list(zip(n[long].tolist(), h[long].tolist(), strict=True))),
        reach=1 + math.exp(min(700.0, d.max().item())) if len(d) else math.nan,
        below=_mean(h <= low),
        acting=_mean((h > low) & (h < high)),
        above=_mean((h > low) & (h >= high)),
    )


def _mean(values: Tensor) -> float:
    return values.double().mean().item() if values.numel() else math.nan
