"""All parts together: one sentence, tables that fit a terminal, a model that is left as it was, the command line."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from holdfast.cli.probes import rat as options
from holdfast.errors import ArgumentError
from holdfast.probes.rat import PARTS, CacheGrowth, DecodeLatency, LayerCache, RATReport, probe_rat
from holdfast.probes.rat.report import rounded, size
from tests.command_line import ask
from tests.probes.rat import models

transformers = pytest.importorskip("transformers")

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def test_the_model_is_left_as_it_was():
    model, ids = models.llama(trained=32).train(), models.tokens(64)
    model.requires_grad_(True)
    model.model.layers[1].eval()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    state = torch.get_rng_state()
    probe_rat(model, ids, chunk_sizes=(4,))
    assert model.training
    assert model.model.layers[0].self_attn.training
    assert not model.model.layers[1].self_attn.training
    assert model.config._attn_implementation == "sdpa"
    assert torch.equal(torch.get_rng_state(), state)
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert "holdfast_probe" not in transformers.AttentionInterface._global_mapping


def test_all_parts_of_a_model():
    seen = []
    report = probe_rat(models.llama(trained=32), models.tokens(128), progress=lambda *step: seen.append(step))
    assert report.left_out is None
    text = str(report)
    assert text.replace("\n", " ").startswith(report.verdict + "  ")
    assert report.verdict.endswith(".")
    assert report.verdict.count("\n") == 0
    assert max(map(len, text.splitlines())) <= 80
    assert report.locality.tokens == report.chunks.tokens == 32  # what the model was trained for
    assert report.cache.lengths[-1] == report.positions.points[-1].context == 128
    numbers = report.to_dict()
    json.dumps(numbers, allow_nan=False)
    assert numbers["verdict"] == report.verdict
    assert numbers["derived"]["cache"]["saving"] == 8
    parts = list(dict.fromkeys(part for part, _, _ in seen))
    assert parts == ["locality", "cache", "latency", "chunks", "positions"]
    assert all((part, total, total) in seen for part, _, total in seen)
    assert report.verdict.count("does not predict") == 1  # random weights do not
    for word in ("all key heads", "a + bT", "best EMA", "context"):
        assert f"\n{word}  " in "\n" + report.explain()


def test_pictures():
    report = probe_rat(models.llama(trained=32), models.tokens(64), chunk_sizes=(2, 4))
    figure = Figure()
    report.plot(figure.subplots())
    panels = [panel.get_title() for panel in figure.axes[0].child_axes]
    assert panels[:2] == ["cache of one sequence", "one more token"]
    assert len(panels) == 5
    figure.canvas.draw()
    figure = Figure()
    RATReport(positions=report.positions).plot(figure.subplots())
    assert figure.axes[0].get_title() == "loss against 32 tokens"


def test_parts_that_do_not_fit_are_left_out_and_said():
    report = probe_rat(models.mamba(), models.tokens(40))
    assert report.left_out.keys() == {"locality", "chunks"}
    assert "left out: locality: model: expected" in str(report)
    assert "The cache does not grow" in report.verdict
    assert "RAT has nothing to save" in report.verdict
    assert report.latency is not None
    assert report.positions.points[-1].context == 40
    bloom = probe_rat(models.bloom(), models.tokens(40))
    assert bloom.left_out.keys() == {"locality", "chunks"}
    assert bloom.cache.saving == 16
    hybrid = probe_rat(models.jamba(), models.tokens(40), parts=["locality"])
    assert "no attention weights in layers 0, 2" in str(hybrid)
    assert "of the attention lies on the last 64 tokens" in hybrid.verdict
    table = probe_rat(models.gpt2(), models.tokens(128), parts=["positions"])
    assert "not 128: the model's table has 64 positions" in str(table)
    assert "sink" in str(probe_rat(models.gpt_oss(), models.tokens(40), parts=["locality"]))
    with pytest.raises(ArgumentError, match=r"model: expected one that locality can measure, got model: expected"):
        probe_rat(models.mamba(), models.tokens(40), parts=["locality"])


def test_what_is_no_causal_language_model_is_refused():
    bert = transformers.BertConfig(vocab_size=97, **models.SHAPE, num_hidden_layers=1)
    bart = transformers.BartConfig(
        vocab_size=97, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=32, decoder_ffn_dim=32,
    )  # fmt: skip
    for model in (
        transformers.BertForMaskedLM(bert),
        transformers.BartForConditionalGeneration(bart),
        torch.nn.Linear(2, 2),
    ):
        with pytest.raises(ArgumentError, match=f"model: expected a causal language model .*{type(model).__name__}"):
            probe_rat(model, models.tokens(40))
    with pytest.raises(ArgumentError, match="BertLMHeadModel, which looks ahead"):
        probe_rat(models.made(bert_decoder()), models.tokens(40))
    with pytest.raises(ArgumentError, match="parts: expected some of locality, cache, chunks, positions, got speed"):
        probe_rat(models.llama(), models.tokens(40), parts=["speed"])
    with pytest.raises(ArgumentError, match="window"):
        probe_rat(models.llama(), models.tokens(40), window=0)


def bert_decoder():
    return transformers.BertConfig(vocab_size=97, **models.SHAPE, num_hidden_layers=1)


def report_of(per_token, width=4096, latency=None, most=None):
    sizes = (1024 * per_token, 2048 * per_token)
    layers = tuple(LayerCache(number, sizes, float(per_token), most) for number in range(32))
    return RATReport(cache=CacheGrowth((1024, 2048), layers, 2, 14 * 10**9, width, 16), latency=latency)


def test_the_sentence_says_where_rat_gains_nothing():
    full = report_of(2 * 4096 * 2).verdict
    assert full == (
        "Attention's cost grows with the text: the cache takes 512 KiB a token and is as large as the weights at "
        "27,000 tokens; RAT with chunks of 16 would add 16 times less a token."
    )
    assert "2 times less a token (16 against keys of all heads)" in report_of(2 * 512 * 2).verdict
    same = report_of(2 * 256 * 2).verdict
    assert "RAT with chunks of 16 would add as much a token, for these keys are 16 times narrower" in same
    assert "4 times more a token, so keep these narrow keys" in report_of(2 * 64 * 2).verdict
    assert "The cache does not grow beyond 4,096 tokens; RAT has nothing to save." in report_of(512, most=4096).verdict


def test_the_sentence_says_what_is_not_told_from_zero():
    steep = DecodeLatency((10, 20), (10.0, 10.2), 21, 10.0, (9.0, 11.0), 0.01, (0.009, 0.011), 1000.0, (900.0, 1100.0))
    text = str(report_of(16384, latency=steep)).replace("\n", " ")
    assert "tokens, and decoding takes twice as long at 1,000 tokens [900, 1,100]; RAT" in text
    assert "a = 10 ms [9, 11], b = 10 us [9, 11]" in text
    jump = replace(steep, medians=(2.0, 10.0))
    text = str(report_of(16384, latency=jump)).replace("\n", " ")
    assert "tokens, and the time of a token follows no line up to 20 tokens; RAT" in text
    assert "medians of 21 rounds; no line fits them" in text
    flat = DecodeLatency((10, 20), (10.0, 10.2), 21, 10.0, (9.0, 11.0), 0.01, (-0.1, 0.1), 1000.0, (50.0, math.inf))
    text = str(report_of(16384, latency=flat)).replace("\n", " ")
    assert "tokens, and decoding is not seen to slow down up to 20 tokens; RAT" in text
    assert "b is not told from zero" in text


def test_numbers_for_people():
    assert [size(n) for n in (512, 2048, 300 * 1024, 5 * 2**20, 3 * 2**30)] == [
        "512 bytes",
        "2.0 KiB",
        "300 KiB",
        "5.0 MiB",
        "3.0 GiB",
    ]
    assert [rounded(n) for n in (3, 97, 1234, 27001, math.inf)] == ["3", "97", "1,200", "27,000", "never"]


def test_the_command_line(tmp_path: Path):
    assert options.PARTS == PARTS
    models.llama(trained=32).save_pretrained(tmp_path / "model")
    (tmp_path / "text.txt").write_text("A text of some length. " * 20, encoding="utf-8")
    words = ("probe", "rat", "model")
    status, out, err = ask(*words, "--length", "64", "--texts", "2", "--plot", "p.png", "--explain", cwd=tmp_path)
    assert status == 0, err
    assert out.startswith("Attention's cost grows with the text")
    assert "bytes of the standard library's source, since the model has no tokenizer, beyond the 32 tokens" in err
    assert "2 x 64 of them" in err
    assert "\nbest EMA  " in out
    assert (tmp_path / "p.png").stat().st_size > 3000
    status, out, err = ask(
        *words, "--text", "text.txt", "--length", "128", "--parts", "chunks", "positions", "--chunk-sizes", "4",
        "--json", cwd=tmp_path,
    )  # fmt: skip
    assert status == 0, err
    numbers = json.loads(out)
    assert numbers["cache"] is None
    assert numbers["positions"]["texts"] == 3  # pieces that do not overlap
    assert [point["context"] for point in numbers["positions"]["points"]] == [8, 16, 32, 64, 128]
    assert "bytes of text.txt" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("./nowhere",), "TARGET: expected a transformers model: a folder or an id on the hub, got ./nowhere"),
        ((), "Missing from holdfast probe rat: TARGET"),
        (("model", "--plot", "x.jpag"), "--plot: expected a path that ends in .png, .svg or .pdf, got x.jpag"),
        (("model", "--plot", "none/x.png"), "--plot: expected a path in a folder that is there, got none/x.png"),
        (("model", "--parts", "speed"), "--parts: expected some of locality, cache, chunks, positions, got speed"),
        (("model", "--length", "4"), "--length: expected a whole number of at least 8, got 4"),
        (("model", "--chunk-sizes", "0"), "--chunk-sizes: expected a whole number of at least 1, got 0"),
        (("model", "--trained", "1"), "--trained: expected a whole number of at least 8, got 1"),
        (("model", "--text", "none.txt"), "--text: expected a file of text"),
        (("model", "--text", "short.txt"), "--text: expected at least eight tokens, got 3"),
        (("model", "--json", "--explain"), "--explain: expected a report for people"),
        (("mamba", "--length", "64", "--parts", "locality"), "model: expected one that locality can measure"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, words, message):
    for name, build in {"model": models.llama, "mamba": models.mamba}.items():
        if name in words:
            build().save_pretrained(tmp_path / name)
    (tmp_path / "short.txt").write_text("abc", encoding="utf-8")
    status, _, err = ask("probe", "rat", *words, cwd=tmp_path, env={"HF_HUB_OFFLINE": "1"})
    assert status == 2
    error = [line for line in err.splitlines() if line.startswith("holdfast: error")]
    assert len(error) == 1
    assert message in error[0]
