"""Training of the language model: what is read, that a killed run goes on exactly, several processes, mistakes."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from holdfast.errors import ArgumentError
from holdfast.models.language import ByteTokenizer, HoldfastForCausalLM
from holdfast.models.language.corpus import Windows, library_source, read_corpus
from holdfast.models.language.pace import steps_that_fit
from holdfast.models.language.recipe import (
    DataRecipe,
    IntervalRecipe,
    LanguageOptimisationRecipe,
    LanguageRecipe,
    ModelRecipe,
)
from holdfast.models.language.train import train
from holdfast.models.language.trainer import Keeper
from holdfast.models.training.loss import TrainingError
from holdfast.models.training.place import Place
from holdfast.models.training.run_folder import COMPLETE, RunFolder
from tests.command_line import ask

TEXT = b"".join(b"def f%d(x):\n    return x + %d\n\n\n" % (n, n) for n in range(150))

SMALL = LanguageRecipe(
    model=ModelRecipe(mixers="rat,window", layers=2, dim=16, heads=2, chunk_size=4, window=8, context=32),
    optimisation=LanguageOptimisationRecipe(steps=12, batch=4, lr=1e-2, device="cpu"),
    intervals=IntervalRecipe(log_every=2, eval_every=6, eval_windows=4, save_every=3),
)
FLAGS = (
    *("--layers", 2, "--dim", 16, "--heads", 2, "--chunk-size", 4, "--window", 8, "--context", 32, "--device", "cpu"),
    *("--steps", 12, "--batch", 4, "--lr", 0.01, "--log-every", 2, "--eval-every", 6, "--eval-windows", 4),
    *("--save-every", 3),
)
"""The same on the command line."""


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "functions.py"
    path.write_bytes(TEXT)
    return path


def of(text: Path, **changes: Any) -> LanguageRecipe:
    """The small recipe on a text."""
    return LanguageRecipe(**{**vars(SMALL), "data": DataRecipe(data=(text,)), **changes})


@pytest.fixture(scope="module")
def uninterrupted(text: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run from beginning to end."""
    out = tmp_path_factory.mktemp("runs") / "uninterrupted"
    return out, train(of(text), out, quiet=True)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model.safetensors")


def assert_equal_runs(out: Path, other: Path) -> None:
    """The same weights bit by bit, and the same curve."""
    ours, theirs = weights(out), weights(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    accounts = [json.loads((path / "training.json").read_text()) for path in (out, other)]
    assert accounts[0]["curve"] == accounts[1]["curve"]
    assert accounts[0]["validation_bits_per_byte"] == accounts[1]["validation_bits_per_byte"]


# What is read


def test_the_standard_library_is_read_in_order_and_without_tests() -> None:
    places = [place for place, _ in library_source().documents]
    assert places == sorted(places)
    assert {"abc.py", "json/decoder.py"} <= set(places)
    assert not [place for place in places if "/test/" in place or place.startswith(("test/", "site-packages/", "_sys"))]


def test_a_corpus_keeps_every_byte_between_begin_and_end(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.txt").write_bytes(b"\xff\xfe not UTF-8" * 10)
    (tmp_path / "a.txt").write_bytes(b"one" * 40)
    (tmp_path / "empty.txt").touch()
    (tmp_path / ".hidden").write_text("hidden")
    (tmp_path / "picture").write_bytes(b"PNG\0\0")
    tokenizer = ByteTokenizer()
    corpus = read_corpus(DataRecipe(data=(tmp_path,)), tokenizer, 2)
    row = [*corpus.train.tokens.tolist(), *corpus.validation.tokens.tolist()]
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    assert row == [begin, *b"one" * 40, end, begin, *b"\xff\xfe not UTF-8" * 10, end]
    assert (corpus.documents, corpus.left_out, corpus.nbytes) == (2, 2, 240)
    assert corpus.validation.nbytes == 12
    # 13 tokens for 12 bytes at one bit a token
    assert corpus.validation.bits_per_byte(float(np.log(2))) == pytest.approx(13 / 12)
    assert read_corpus(DataRecipe(data=(tmp_path,), max_bytes=130), tokenizer, 2).nbytes == 130
    other = read_corpus(DataRecipe(data=(tmp_path / "a.txt",)), tokenizer, 2)
    assert len({corpus.sha256, other.sha256}) == 2


def test_a_tokenizer_of_transformers_and_its_bits_per_byte(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"?": 0, "ä": 1, "b": 2}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?").save_pretrained(tmp_path / "words")
    (tmp_path / "t.txt").write_text("ä b " * 50, encoding="utf-8")
    corpus = read_corpus(
        DataRecipe(data=(tmp_path / "t.txt",)), AutoTokenizer.from_pretrained(tmp_path / "words"), context=2
    )
    assert [*corpus.train.tokens, *corpus.validation.tokens] == [1, 2] * 50
    assert corpus.nbytes == 250
    assert corpus.validation.bits_per_byte(1.0) == pytest.approx(
        len(corpus.validation.tokens) / corpus.validation.nbytes / np.log(2)
    )
    (tmp_path / "t.txt").write_bytes(b"b \xff b")
    with pytest.raises(ArgumentError, match=r"UTF-8.*t\.txt \(byte 2\)"):
        read_corpus(DataRecipe(data=(tmp_path / "t.txt",)), AutoTokenizer.from_pretrained(tmp_path / "words"), 2)


def test_a_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": f"row {n}"}) + "\n" for n in range(50)))
    corpus = read_corpus(DataRecipe(dataset=str(folder), max_bytes=60), ByteTokenizer(), 2)
    assert bytes(corpus.train.tokens[1:6].tolist()) == b"row 0"
    assert corpus.nbytes == 60
    with pytest.raises(ArgumentError, match=r"--dataset-column: .*\(text\), got body"):
        read_corpus(DataRecipe(dataset=str(folder), dataset_column="body"), ByteTokenizer(), 2)
    with pytest.raises(ArgumentError, match="--dataset: expected a dataset that loads"):
        read_corpus(DataRecipe(dataset=str(tmp_path / "nowhere")), ByteTokenizer(), 2)


def test_windows_depend_on_seed_and_number_alone() -> None:
    row = np.arange(1000, dtype=np.uint16)
    many, few = Windows(row, 8, 100, seed=1), Windows(row, 8, 10, seed=1)
    assert all(torch.equal(many[n]["input_ids"], few[n]["input_ids"]) for n in range(10))
    assert not torch.equal(many[0]["input_ids"], Windows(row, 8, 10, seed=2)[0]["input_ids"])
    starts = {int(many[n]["input_ids"][0]) for n in range(100)}
    assert len(starts) > 80
    cover = Windows.covering(row[:39], 8)
    assert [int(cover[n]["input_ids"][0]) for n in range(len(cover))] == [0, 8, 16, 24]
    spread = Windows.covering(row, 8, 5)
    assert [int(spread[n]["input_ids"][0]) for n in range(len(spread))] == [0, 200, 400, 600, 800]


# A whole run


def test_a_run_learns_and_leaves_a_model_with_its_account(uninterrupted: tuple[Path, dict[str, Any]]) -> None:
    out, report = uninterrupted
    files = {path.name for path in out.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "loss.svg", "training.json", "run.json"} <= files
    assert "checkpoints" not in files
    assert not [path for path in files if path.endswith(".bin")]
    assert json.loads((out / "training.json").read_text()) == report
    training = [point["training"] for point in report["curve"] if "training" in point]
    assert training[-1] < training[0] - 1
    assert [point["step"] for point in report["curve"] if "validation" in point] == [6, 12]
    # All of the validation data in the end: its loss computed by hand.
    model = HoldfastForCausalLM.from_pretrained(out).eval()
    assert model.config.use_cache
    corpus = read_corpus(DataRecipe(data=(Path(report["recipe"]["data"]["data"][0]),)), ByteTokenizer(), 32)
    windows = Windows.covering(corpus.validation.tokens, 32)
    rows = torch.stack([windows[n]["input_ids"] for n in range(len(windows))])
    with torch.no_grad():
        logits = model(input_ids=rows).logits[:, :-1]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
    assert report["validation_bits_per_byte"] == pytest.approx(corpus.validation.bits_per_byte(loss.item()), rel=1e-5)


def test_the_account_names_a_command_that_makes_the_same_recipe(
    uninterrupted: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, report = uninterrupted
    asked: list[LanguageRecipe] = []
    monkeypatch.setattr(
        "holdfast.models.language.train.train", lambda recipe, out, resume: asked.append(recipe) or report
    )
    status, out, err = ask(*report["command"].split()[1:], cwd=tmp_path)
    assert status == 0, err
    assert "bits per byte on validation text" in out
    assert asked[0].to_dict() == report["recipe"]
    assert LanguageRecipe.from_dict(report["recipe"]) == asked[0]


def test_weight_decay_and_the_schedule_of_learning_rates(text: Path, tmp_path: Path) -> None:
    """Matrices decay, vectors do not; the rate rises from zero and ends there."""
    seen: dict[str, Any] = {"rates": []}

    class Stop(Exception):
        pass

    def look(self: Keeper, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        seen["groups"] = kwargs["optimizer"].param_groups
        seen["rates"].append(kwargs["optimizer"].param_groups[0]["lr"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Keeper, "on_step_end", look)
        train(
            of(text, optimisation=LanguageOptimisationRecipe(steps=8, warmup=0.5, batch=2)),
            tmp_path / "out",
            quiet=True,
        )
    decays = {group["weight_decay"]: {parameter.ndim for parameter in group["params"]} for group in seen["groups"]}
    assert decays == {0.1: {2}, 0.0: {1}}
    assert all(group["betas"] == (0.9, 0.95) for group in seen["groups"])
    assert seen["rates"][3] == pytest.approx(2e-3)
    assert seen["rates"][0] < seen["rates"][1] < seen["rates"][3] > seen["rates"][5] > seen["rates"][7]


def test_minutes_are_counted_in_steps_once_and_leave_the_model_alone(text: Path) -> None:
    from holdfast.models.language.train import _config

    recipe = of(text, optimisation=LanguageOptimisationRecipe(minutes=5.0, batch=4))
    corpus = read_corpus(recipe.data, ByteTokenizer(), 32)
    model = HoldfastForCausalLM(_config(recipe.model, ByteTokenizer()))
    before, random_state = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("holdfast.models.training.pace.time_of", lambda work, device: (work(), 0.5)[1])
        steps = steps_that_fit(model, recipe, corpus, Place("cpu", "float32", 1, 0))
    # A step takes 0.5 s; every 6 steps 4 windows are looked at, which is one batch in 0.5 s.
    assert steps == round(300 / (0.5 + 0.5 / 6))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_a_run_is_packaged_small_and_measured_again(
    uninterrupted: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "pretrained.py"))
    out, report = uninterrupted
    script["main"]([str(out), "--target", str(tmp_path / "small")])
    assert "bits per byte as trained" in capsys.readouterr().out
    stored = weights(tmp_path / "small")
    assert {value.dtype for value in stored.values()} == {torch.bfloat16}
    model = HoldfastForCausalLM.from_pretrained(tmp_path / "small")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    account = json.loads((tmp_path / "small" / "training.json").read_text())
    assert (account["command"], account["seed"]) == (report["command"], 0)
    # bfloat16 has 8 bits: weights move by at most 1 part in 256, and the loss of about 6 by much less than that.
    assert account["packaged"]["validation_bits_per_byte"] == pytest.approx(
        report["validation_bits_per_byte"], rel=1 / 256
    )
    with pytest.raises(SystemExit):
        script["main"]([str(tmp_path), "--target", str(tmp_path / "other")])
    assert "holds no finished run" in capsys.readouterr().err


# Killed runs


def test_a_run_that_broke_off_goes_on_exactly(
    uninterrupted: tuple[Path, dict[str, Any]], text: Path, tmp_path: Path
) -> None:
    """An interruption between checkpoints, then one in the middle of writing a checkpoint, then to the end."""

    def interrupted_at(step: int) -> Any:
        def stop(self: Keeper, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            original(self, args, state, control, **kwargs)
            if state.global_step == step:
                raise KeyboardInterrupt

        original = Keeper.on_step_end
        return stop

    out, folder = tmp_path / "out", RunFolder(tmp_path / "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Keeper, "on_step_end", interrupted_at(8))
        with pytest.raises(KeyboardInterrupt):
            train(of(text), out, quiet=True)
    assert folder.last_checkpoint() is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Keeper, "on_save", lambda *args, **kwargs: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            train(of(text), out, resume=True, quiet=True)
    half = folder.checkpoints / "checkpoint-9"
    assert half.is_dir()
    assert not (half / COMPLETE).exists()
    (half / "model.safetensors").write_bytes(b"half")
    with pytest.warns(UserWarning, match="checkpoint-9 was half-written"):
        train(of(text), out, resume=True, quiet=True)
    assert_equal_runs(out, uninterrupted[0])
    assert train(of(text), out, resume=True, quiet=True) == json.loads((out / "training.json").read_text())


def test_a_killed_process_goes_on_exactly(
    uninterrupted: tuple[Path, dict[str, Any]], text: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ["train", "language", "--data", text, *FLAGS, "--output", out]
    process = subprocess.Popen(
        [sys.executable, "-m", "holdfast", *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    end = time.monotonic() + 120
    while RunFolder(out).last_checkpoint() is None and process.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    _, err = process.communicate()
    assert process.returncode == -signal.SIGKILL, err.decode()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        status, said, err = ask("train", "language", "--output", out, "--resume", cwd=tmp_path)
    finally:
        torch.set_num_threads(threads)
    assert status == 0, err
    assert "bits per byte on validation text, after 12 steps" in said
    assert_equal_runs(out, uninterrupted[0])


def test_other_settings_or_another_text_do_not_go_on(
    uninterrupted: tuple[Path, dict[str, Any]], text: Path, tmp_path: Path
) -> None:
    out, _ = uninterrupted
    before = (out / "training.json").read_bytes()
    for words, expected in (
        ((), "--output: expected a new folder, or --resume to go on with the run in it"),
        (("--resume", "--lr", "0.002"), "--lr: expected 0.01, which the run was begun with, got 0.002"),
        (("--resume", "--mixers", "rat"), "--mixers: expected rat,window, which"),
        (("--resume", "--steps", "99"), "--steps: expected 12, which"),
    ):
        status, _, err = ask("train", "language", *words, "--output", out, cwd=tmp_path)
        assert (status, len(err.splitlines())) == (2, 1), err
        assert expected in err
    text.write_bytes(TEXT + b"# more")
    try:
        with pytest.raises(ArgumentError, match="the text that the run was begun with, got another"):
            train(of(text), out, resume=True)
    finally:
        text.write_bytes(TEXT)
    beginning = json.loads((out / "run.json").read_text())
    beginning["environment"]["threads"] = 99
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").write_text(json.dumps(beginning))
    (tmp_path / "other" / "training.json").write_bytes(before)
    with pytest.warns(UserWarning, match=r"differ in rounding.* threads"):
        train(of(text), tmp_path / "other", resume=True)
    assert (out / "training.json").read_bytes() == before


# Several processes


TWO = Path(__file__).parent / "two_processes.py"


@pytest.fixture(scope="module")
def two(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes have left: a trained model, and how a sharded model compares with a whole one."""
    folder = tmp_path_factory.mktemp("two")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(TWO)]
    words = ["train", "language", "--data", text, *FLAGS, "--output", folder / "out"]
    ran = subprocess.run(
        [*launcher, str(folder), *map(str, words)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("bits per byte on validation text") == 1
    return folder


def test_two_processes_train_what_one_does(uninterrupted: tuple[Path, dict[str, Any]], two: Path) -> None:
    """Data-parallel with gloo: the same global batches, gradients that are summed in another order.

    Where a gradient is all rounding, AdamW turns it to a full step, so that weights differ by more than rounding does.
    """
    report = json.loads((two / "out" / "training.json").read_text())
    assert report["environment"]["processes"] == 2
    for ours, theirs in zip(report["curve"], uninterrupted[1]["curve"], strict=True):
        assert ours == pytest.approx(theirs, abs=2e-3)
    assert report["validation_bits_per_byte"] == pytest.approx(uninterrupted[1]["validation_bits_per_byte"], abs=2e-3)


def test_a_sharded_model_steps_as_a_whole_one(two: Path) -> None:
    """`fully_shard` over two processes with gloo: loss and weights after three steps."""
    found = json.loads((two / "sharded.json").read_text())
    assert found["share"] == pytest.approx(0.5, abs=0.1)
    assert found["sharded"] == pytest.approx(found["whole"], rel=1e-5)
    assert found["whole"][0] > found["whole"][-1]
    assert found["difference"] < 1e-5


def test_a_process_that_is_slower_than_the_first_begins_as_it_does(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it comes to it, the first has written what the run was begun with."""

    def made(config: Any) -> HoldfastForCausalLM:
        RunFolder(tmp_path / "out").begin({})
        return HoldfastForCausalLM(config)

    monkeypatch.setattr(sys.modules["holdfast.models.language.train"], "HoldfastForCausalLM", made)
    assert train(of(text), tmp_path / "out", quiet=True)["steps"] == 12


def test_a_process_that_fails_waits_for_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    for name in ("barrier", "destroy_process_group"):
        monkeypatch.setattr(torch.distributed, name, lambda name=name: asked.append(name))
    status, _, err = ask("train", "language", "--data", "gone.txt", *FLAGS, "--output", "out", cwd=tmp_path)
    assert (status, asked) == (2, ["destroy_process_group"]), err


def test_fsdp_on_a_cpu_is_refused(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ArgumentError, match=r"FSDP: expected a GPU.*got a CPU"):
        train(of(text), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Mistakes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data", "gone.txt"), "--data: expected a text file or a folder, got gone.txt (No such file or directory)"),
        (("--data", "empty"), "--data: expected a text, got none in empty"),
        (("--context", "250"), "--context: expected at most the 207 tokens of short.txt that are for validation"),
        (("--context", "1"), "--context: expected a whole number of at least 2, got 1"),
        (("--precision", "float16"), "--precision: expected float32 or bfloat16 on a CPU, got float16"),
        (("--device", "cuda"), "--device: expected cpu, since torch sees no GPU, got cuda"),
        (("--batch", "3", "--accumulate", "2"), "--batch: expected a multiple of 1 processes x --accumulate 2, got 3"),
        (("--mixers", "rat,,window"), "--mixers: expected names with commas between"),
        (("--mixers", "rat,windows"), "--mixers: expected a sequence of names among rat, attention, window, rnn"),
        (("--mixers", "rat*3"), "--layers: expected a multiple of the 3 in --mixers rat*3, got 4"),
        (("--dim", "30"), "--dim: expected a multiple of the 4 heads, got 30"),
        (("--steps", "5", "--minutes", "1"), "--steps: expected either this or --minutes, got both"),
        (("--lr", "-1"), "--lr: expected a positive number, got -1.0"),
        (("--lr", "quick"), "--lr: expected FLOAT, got 'quick'"),
        (("--tokenizer", "./nowhere"), "--tokenizer: expected a tokenizer of transformers, got ./nowhere"),
        (("--context", "32", "--report-to", "nobody"), "--report-to: "),
        (("--output", "full"), "--output: expected a new or an empty folder, got full, which holds something else"),
        (("--output", "short.txt"), "--output: expected a folder, got short.txt, which is a file"),
        (("--output", "full", "--resume"), "--output: expected a new or an empty folder"),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "short.txt").write_bytes(TEXT[:4115])
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    data = () if "--data" in words else ("--data", "short.txt")
    device = () if "--device" in words else ("--device", "cpu")
    status, _, err = ask("train", "language", *data, *device, *words, cwd=tmp_path)
    assert (status, len(err.splitlines())) == (2, 1), err
    assert message in err
    assert not (tmp_path / "language-model").exists()


def test_a_run_without_a_loss_stops(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HoldfastForCausalLM, "loss_function", lambda self, logits, **_: logits.sum() * float("nan"))
    with pytest.raises(TrainingError, match="the loss is nan after 1 steps; try a smaller --lr"):
        train(of(text), tmp_path / "out", quiet=True)


def test_kinds_are_listed(tmp_path: Path) -> None:
    status, out, _ = ask("train", cwd=tmp_path)
    assert status == 0
    assert "language" in out
    status, _, err = ask("train", "poetry", cwd=tmp_path)
    assert (status, "no kind named 'poetry'" in err) == (2, True)
