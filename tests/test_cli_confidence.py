"""The commands on minds that change: from the question file to the report, and one clear line for a mistake."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from holdfast.confidence import (
    PRESETS,
    Question,
    SimulatedResponder,
    Store,
    analyze,
    read_trials,
    results_of,
    simulate,
    simulated_questions,
    write_questions,
)
from holdfast.confidence.analysis import plain
from tests.command_line import ask

SMALL = ("--count", "10", "--pilot")
REQUESTS = 10 * 2 * (1 + 18)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_questions(tmp_path / "cards.jsonl", simulated_questions(12))
    return tmp_path


def lines(path: Path) -> int:
    return len(path.read_bytes().splitlines())


def test_an_observer_is_probed_and_the_store_says_the_same_without_asking(folder: Path) -> None:
    status, out, err = ask("probe", "confidence", "--observer", "both", "--pilot", cwd=folder)
    assert status == 0, err
    assert out.startswith("The model clings to its own earlier answer (+")
    assert "GeoNames" in err
    assert err.index("1,900 requests (100 in stage 1, 1,800 in stage 2)") < err.index(
        "1,900 requests were answered now"
    )
    assert lines(folder / "confidence.jsonl") == 1900 + 1
    assert ask("confidence", "analyze", "confidence.jsonl", cwd=folder)[:2] == (0, out)
    status, again, err = ask("probe", "confidence", "--observer", "both", "--pilot", cwd=folder)
    assert (status, again) == (0, out)
    assert "0 requests were answered now, 1,900 before" in err


def test_a_dry_run_counts_exactly_and_leaves_nothing_behind(folder: Path) -> None:
    words = ("probe", "confidence", "--questions", "cards.jsonl", "--wordings", "plain", "form")
    words = (*words, "--accuracies", "0.7", "0.9", "--displays", "shown", "hidden")
    status, out, _ = ask(*words, "--model", "m", "--dry-run", "--json", "--price", "2", "8", cwd=folder)
    assert status == 0
    told = json.loads(out)
    first = 12 * 2 * 2
    assert (told["first"], told["second"]) == (first, first * 2 * 3 * 2)
    assert told["duplicates"] == 20
    assert told["completion_tokens"] == told["requests"] == first * 13 + 20
    assert told["cost"] == pytest.approx((2 * told["prompt_tokens"] + 8 * told["requests"]) / 1e6, rel=1e-3)
    assert [path.name for path in folder.iterdir()] == ["cards.jsonl"]
    assert ask(*words, "--observer", "bayes", "--duplicates", "20", "--store", "s.jsonl", cwd=folder)[0] == 0
    assert lines(folder / "s.jsonl") == told["requests"] + 1
    for who in (
        ("--observer", "bayes"),
        ("--model", "m", "--duplicates", "0"),
        ("--model", "m", "--backend", "sampled"),
    ):
        status, out, _ = ask(*words, *who, "--dry-run", cwd=folder)
        assert status == 0
        assert "once more" not in out


def test_a_dry_run_counts_every_sample_and_the_pilot_of_the_difficulty(folder: Path) -> None:
    words = ("probe", "confidence", "--model", "m", "--backend", "sampled", "--samples", "5", *SMALL, "--dry-run")
    status, out, _ = ask(*words, "--target-accuracy", "0.75", cwd=folder)
    assert status == 0
    assert out.startswith("at most 1,000 requests to find the difficulty, and then\n")
    assert f"{5 * REQUESTS:,} requests for {REQUESTS} readings, 5 each (100 in stage 1" in out


def test_difficulty_is_chosen_before_and_asked_once(folder: Path) -> None:
    words = ("probe", "confidence", "--observer", "bayes", "--target-accuracy", "0.75", *SMALL)
    status, out, err = ask(*words, cwd=folder)
    assert status == 0, err
    assert err.index("at most 200 requests to find the difficulty, and then 380 ") < err.index("(100 questions, ")
    assert "10 questions, plain" in " ".join(out.split())
    assert ask(*words, cwd=folder)[:2] == (0, out)
    assert REQUESTS < lines(folder / "confidence.jsonl") <= REQUESTS + 200 + 1


def saved(folder: Path, *, answers: bool, chat: bool = True) -> None:
    """Save a tiny model, which wants to write a letter or anything but."""
    from tests.confidence import tiny

    model, tokenizer = tiny.gpt2(), tiny.tokenizer(chat=chat)
    # What the last layer norm adds to everything is what the letters, and they alone, are made to stand for.
    model.transformer.ln_f.bias.data.fill_(1)
    letters = tokenizer.convert_tokens_to_ids(["A", "a", "B", "b"])
    model.lm_head.weight.data[letters] += 0.5 if answers else -0.5
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize("chat", [True, False])
def test_a_model_in_process_is_probed(folder: Path, chat: bool) -> None:
    pytest.importorskip("transformers")
    saved(folder / "tiny", answers=True, chat=chat)
    words = ("probe", "confidence", "tiny", "--count", "4", "--pilot", "--json")
    status, out, err = ask(*words, cwd=folder)
    assert status == 0, err
    assert f"{4 * 2 * 19 + 20} requests were answered now" in err
    this = Store(folder / "confidence.jsonl").run()
    assert (this.backend.model, this.backend.kind) == ("tiny", "huggingface")
    assert [template.form for template in this.plan.design.templates] == ["chat" if chat else "flat"]
    told = json.loads(out)
    assert told["questions"] == 4
    # Rounding of sums in single precision, which what else is in the batch decides.
    assert told["noise"]["duplicates"] == 20
    assert told["noise"]["deviation"] < 1e-3
    assert ask("confidence", "analyze", "confidence.jsonl", "--json", cwd=folder)[1] == out
    assert "0 requests were answered now" in ask(*words, cwd=folder)[2]


def test_a_model_that_answers_with_no_letter_is_refused_in_one_line(folder: Path) -> None:
    pytest.importorskip("transformers")
    saved(folder / "mute", answers=False)
    status, out, err = ask("probe", "confidence", "mute", "--count", "10", "--pilot", cwd=folder)
    assert (status, out) == (2, "")
    assert err.splitlines()[-1].startswith("holdfast: error: the labels hold 0% of the probability")
    # What can be done with a model in process, by flags that are there.
    for flag in ("--no-thinking", "--form", "--wordings", "--model with --backend sampled"):
        assert flag in err.splitlines()[-1]
    status, _, err = ask("probe", "confidence", "no/such/model", *SMALL, cwd=folder)
    assert status == 2
    assert "TARGET: expected a causal language model of transformers, got no/such/model" in err.splitlines()[-1]


@pytest.mark.parametrize("make", ["gpt2", "llama"])
def test_a_model_without_a_tokenizer_is_one_line(folder: Path, make: str) -> None:
    """Where there is none transformers fails for some models, and makes an empty one for others."""
    pytest.importorskip("transformers")
    from tests.confidence import tiny

    getattr(tiny, make)().save_pretrained(folder / "bare")
    for words, flag in (
        (("probe", "confidence", "bare", *SMALL), "TARGET"),
        (("generate", "bare", "--prompt", "x"), "MODEL"),
    ):
        status, _, err = ask(*words, cwd=folder)
        assert status == 2
        said = err.splitlines()[-1]
        assert said.startswith(f"holdfast: error: {flag}: expected a ")
        assert "bare, whose tokenizer is missing or does not load (" in said
        assert "from one of: )" not in said


def test_a_device_that_is_not_there_and_a_form_that_cannot_be_asked_are_said_before_the_plan(folder: Path) -> None:
    pytest.importorskip("transformers")
    saved(folder / "tiny", answers=True, chat=False)
    for words, said in (
        (("--device", "nowhere"), "--device: expected a device of PyTorch, such as cpu or cuda, or auto, got nowhere"),
        (("--form", "chat"), "--form: expected flat, as the model has no chat template"),
    ):
        status, out, err = ask("probe", "confidence", "tiny", *SMALL, *words, cwd=folder)
        assert (status, out, len(err.splitlines())) == (2, "", 1)
        assert said in err
        assert not (folder / "confidence.jsonl").exists()


@pytest.mark.parametrize("backend", ["chat", "systemone", "sampled"])
def test_a_model_behind_an_endpoint_is_probed(folder: Path, backend: str) -> None:
    for module in ("aiohttp", "starlette", "tenacity", "uvicorn"):
        pytest.importorskip(module)
    from holdfast.confidence.observer_server import ObserverServer, latitude_answers, serving

    server = ObserverServer(SimulatedResponder(PRESETS["both"], answers=latitude_answers()))
    words = ("--backend", backend, "--samples", "2", "--count", "4", "--pilot", "--json")
    with serving(server) as base_url:
        env = {"OPENAI_API_KEY": "of another server"}
        words = ("probe", "confidence", "--model", "obs", "--base-url", base_url, *words)
        status, out, err = ask(*words, cwd=folder, env=env)
    assert status == 0, err
    readings = 4 * 2 * 19
    if backend == "sampled":
        assert f"{2 * readings} requests for {readings} readings, 2 each" in err
        assert f"{readings} readings of 2 requests each were answered now, 0 before" in err
    assert server.seen.requests == (readings * 2 if backend == "sampled" else readings + 20)
    assert json.loads(out)["source"] == ("sampled" if backend == "sampled" else "logprobs")
    assert ask("confidence", "analyze", "confidence.jsonl", "--json", cwd=folder)[1] == out


def test_a_spent_budget_ends_the_command_and_the_same_command_goes_on(folder: Path) -> None:
    for module in ("aiohttp", "starlette", "tenacity", "uvicorn"):
        pytest.importorskip(module)
    from holdfast.confidence.observer_server import ObserverServer, latitude_answers, serving

    server = ObserverServer(SimulatedResponder(PRESETS["both"], answers=latitude_answers()))
    with serving(server) as base_url:
        words = ("probe", "confidence", "--model", "obs", "--base-url", base_url, "--count", "4", "--pilot")
        status, out, err = ask(*words, "--max-requests", "60", cwd=folder)
        assert (status, out) == (2, "")
        assert err.splitlines()[-1].startswith("holdfast: error: --max-requests: 60 are allowed, 60 are spent")
        assert server.seen.requests == 60
        status, _, err = ask(*words, cwd=folder)
    assert status == 0, err
    assert server.seen.requests == 4 * 2 * 19 + 20
    assert server.seen.repeated == 20


def test_a_run_of_which_no_question_is_whole_says_how_far_it_is_and_how_to_go_on(folder: Path) -> None:
    for module in ("aiohttp", "starlette", "tenacity", "uvicorn"):
        pytest.importorskip(module)
    from holdfast.confidence.observer_server import ObserverServer, latitude_answers, serving

    server = ObserverServer(SimulatedResponder(PRESETS["both"], answers=latitude_answers()))
    with serving(server) as base_url:
        words = ("probe", "confidence", "--model", "obs", "--base-url", base_url, "--count", "4", "--pilot")
        for spent in (5, 25):
            assert ask(*words, "--max-requests", spent, "--concurrency", "1", cwd=folder)[0] == 2
            status, out, err = ask("confidence", "analyze", "confidence.jsonl", cwd=folder)
            assert (status, out) == (2, "")
            assert f"{5 if spent == 5 else 30} of 172 requests are answered, and no question in all" in err
            assert "To go on, give the command" in err
        base = base_url.removesuffix("/v1")
        status, _, err = ask(*words[:5], base, *words[6:], cwd=folder)
    assert status == 2
    assert f"(most servers answer below /v1: try {base_url})" in err.splitlines()[-1]


def test_no_file_of_something_else_is_appended_to(folder: Path) -> None:
    (folder / "README.md").write_text("# mine\n")
    words = ("probe", "confidence", "--observer", "both", *SMALL)
    for more, said in (
        (("--questions", "cards.jsonl", "--store", "./cards.jsonl"), "--store: expected another file than that of"),
        (("--store", "cards.jsonl"), "--store: expected a new file, or one that was written as such before"),
        (("--store", "README.md"), "--store: expected a new file, or one that was written as such before"),
        (("--store", "a.svg", "--plot", "a.svg"), "--plot: expected another file than that of --store"),
    ):
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        status, out, err = ask(*words, *more, cwd=folder)
        assert (status, out, len(err.splitlines())) == (2, "", 1)
        assert said in err
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_is_missing_is_said_before_the_plan_is(folder: Path) -> None:
    """A key, above all: nothing is told of requests that cannot be sent."""
    for module in ("aiohttp", "tenacity"):
        pytest.importorskip(module)
    write_questions(folder / "three.jsonl", [Question("q", "Which?", ("x", "y", "z"), 2)])
    for words, said in (
        (
            "--model m",
            "--key-env: expected the name of an environment variable that holds the key, got OPENAI_API_KEY,",
        ),
        ("--model m --base-url http://localhost:1 --key-env NO_KEY", "got NO_KEY, which is not set"),
        ("--model m --base-url localhost", "--base-url: expected an address that starts with http://"),
        ("--model m --concurrency 0", "--concurrency: expected a whole number of at least 1"),
        ("--observer both --questions three.jsonl", "--observer: expected questions of two options"),
    ):
        status, out, err = ask("probe", "confidence", *words.split(), cwd=folder, env={"OPENAI_API_KEY": ""})
        assert (status, out, len(err.splitlines())) == (2, "", 1)
        assert said in err
    assert not (folder / "confidence.jsonl").exists()


def test_a_server_without_log_probabilities_ends_the_command_after_one_request(folder: Path) -> None:
    for module in ("aiohttp", "starlette", "tenacity", "uvicorn"):
        pytest.importorskip(module)
    from holdfast.confidence.observer_server import Faults, ObserverServer, serving

    server = ObserverServer(SimulatedResponder(PRESETS["both"]), Faults(no_logprobs=1.0))
    with serving(server) as base_url:
        words = ("probe", "confidence", "--model", "obs", "--base-url", base_url)
        status, out, err = ask(*words, cwd=folder)
    assert (status, out) == (2, "")
    assert "answers 200 without log-probabilities" in err.splitlines()[-1]
    assert server.seen.requests == 1


def test_status_1_if_a_bias_was_found_and_that_is_wanted(folder: Path) -> None:
    words = ("probe", "confidence", *SMALL, "--questions", "cards.jsonl", "--fail-on-bias")
    status, _, err = ask(*words, "--observer", "choice_supportive", "--set", "noise=0.1", cwd=folder)
    assert status == 1
    assert "departures from an ideal observer: clings, own_answer" in err
    assert ask(*words, "--observer", "bayes", cwd=folder)[0] == 0


def test_a_store_of_several_runs_needs_the_name_of_one(folder: Path) -> None:
    for preset in ("bayes", "both"):
        assert ask("probe", "confidence", "--observer", preset, *SMALL, cwd=folder)[0] == 0
    status, _, err = ask("confidence", "analyze", "confidence.jsonl", cwd=folder)
    names = list(Store(folder / "confidence.jsonl").runs())
    assert status == 2
    assert len(names) == 2
    assert all(name in err for name in names)
    status, out, _ = ask("confidence", "analyze", "confidence.jsonl", "--run", names[1], cwd=folder)
    assert status == 0
    assert f"Run {names[1]}: observer" in out


def test_trials_are_exported_and_read_again(folder: Path) -> None:
    assert ask("probe", "confidence", "--observer", "both", *SMALL, cwd=folder)[0] == 0
    words = ("confidence", "analyze", "confidence.jsonl", "--trials", "trials.jsonl", "--json", "--plot", "a.svg")
    status, out, _ = ask(*words, cwd=folder)
    assert status == 0
    assert (folder / "a.svg").stat().st_size > 1000
    known = results_of(Store(folder / "confidence.jsonl")).trials
    assert (read_trials(folder / "trials.jsonl").stage_2.scores == known.stage_2.scores).all()
    again = json.loads(ask("confidence", "analyze", "trials.jsonl", "--json", cwd=folder)[1])
    differ = {name for name, value in json.loads(out).items() if again[name] != value}
    assert differ == {"asked"}


def test_requests_are_exported_and_no_file_is_replaced_unless_that_is_wanted(folder: Path) -> None:
    probe = ("probe", "confidence", "--observer", "both", "--duplicates", "5", *SMALL)
    assert ask(*probe, cwd=folder)[0] == 0
    words = ("confidence", "analyze", "confidence.jsonl", "--export", "requests.jsonl")
    status, out, _ = ask(*words, cwd=folder)
    assert status == 0
    assert out == ask("confidence", "analyze", "confidence.jsonl", cwd=folder)[1]
    assert lines(folder / "requests.jsonl") == REQUESTS + 5
    (folder / "requests.jsonl").write_text("mine")
    for flag in ("--export", "--trials"):
        status, _, err = ask(*words[:3], flag, "requests.jsonl", cwd=folder)
        assert (status, (folder / "requests.jsonl").read_text()) == (2, "mine")
        assert f"{flag}: expected a new file, or --overwrite, got requests.jsonl" in err.splitlines()[-1]
    assert ask(*words, "--overwrite", cwd=folder)[0] == 0
    assert lines(folder / "requests.jsonl") == REQUESTS + 5
    store = (folder / "confidence.jsonl").read_bytes()
    status, _, err = ask(*words[:3], "--export", "./confidence.jsonl", "--overwrite", cwd=folder)
    assert (status, (folder / "confidence.jsonl").read_bytes()) == (2, store)
    assert "--export: expected another file than that of STORE" in err.splitlines()[-1]
    assert ask(*words[:3], "--trials", "trials.jsonl", cwd=folder)[0] == 0
    status, _, err = ask("confidence", "analyze", "trials.jsonl", "--export", "x.jsonl", cwd=folder)
    assert status == 2
    assert "--export: expected none, as these are trials and no store" in err.splitlines()[-1]
    assert not (folder / "x.jsonl").exists()


def test_simulate_says_what_analyze_says_of_the_same_trials(folder: Path) -> None:
    words = ("confidence", "simulate", "stubborn", "--set", "noise=0.1", "bias=2", "--count", "40")
    status, out, _ = ask(*words, "--output", "trials.jsonl", "--json", cwd=folder)
    assert status == 0
    told = json.loads(out)
    assert told["asked"].startswith("Truth: Observer(scale=1.0, noise=0.1, bias=2.0, ")
    expected = analyze(read_trials(folder / "trials.jsonl"))
    assert told["choice_bias"] == plain(expected.choice_bias)
    assert told["choice_bias"]["low"] < 2 < told["choice_bias"]["high"]
    assert len(simulate(PRESETS["bayes"], 40)) == expected.trials
    status, out, _ = ask(*words, "--explain", cwd=folder)
    assert status == 0
    assert "ln(p / (1 - p))" in out


def test_fuse_is_bayes(tmp_path: Path) -> None:
    odds = 9 * 3 / 7
    assert ask("confidence", "fuse", "0.9", "opposite", "0.7", cwd=tmp_path)[1] == (
        f"{odds / (1 + odds):.4f} (log-odds {math.log(odds):+.3f}): keep the answer\n"
    )
    told = json.loads(ask("confidence", "fuse", "0.6", "opposite", "0.7", "--json", cwd=tmp_path)[1])
    assert told["probability"] == pytest.approx(1.5 / (1.5 + 7 / 3))
    assert not told["keep"]
    cooled = json.loads(
        ask("confidence", "fuse", "0.9", "neutral", "0.7", "--temperature", "2", "--json", cwd=tmp_path)[1]
    )
    assert cooled["probability"] == pytest.approx(3 / 4)


def test_the_help_of_fuse_names_its_numbers(tmp_path: Path) -> None:
    status, out, _ = ask("confidence", "fuse", "--help", cwd=tmp_path)
    assert status == 0
    text = " ".join(out.replace("│", " ").split())
    assert "PROBABILITY {same,opposite,neutral} ACCURACY" in text
    assert "above 0.99 it counts as that" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("probe confidence", "TARGET: expected one of a model, --model and --observer, got none"),
        ("probe confidence tiny --observer both", "got a model and --observer"),
        ("probe confidence --base-url http://localhost:1", "--model: expected the name of the model"),
        ("probe confidence --observer both --set bias", "--set: expected NAME=NUMBER, got bias"),
        ("probe confidence --observer both --set size=1", "--set: expected one of scale, noise, bias"),
        ("probe confidence tiny --set bias=1", "--set: expected an --observer"),
        ("probe confidence --observer both --questions bad.jsonl", "bad.jsonl: expected questions that can be asked"),
        ("probe confidence --observer both --questions cards.jsonl --count 13", "--count: expected at most 12"),
        ("probe confidence --observer both --count 0", "--count: expected a whole number of at least 1"),
        ("probe confidence --observer both --target-accuracy 0.4", "--target-accuracy: expected a share between"),
        ("probe confidence --observer both --target-accuracy .8 --questions cards.jsonl", "expected the latitudes"),
        (
            "probe confidence --observer both --accuracies 70",
            "--accuracies: expected shares above 0 and up to 1, got 70",
        ),
        ("probe confidence --observer both --displays shown shown", "--displays: expected some of shown, hidden"),
        ("probe confidence --observer both --wordings form form", "--wordings: expected at least one level, each once"),
        ("probe confidence --observer both --questions none.jsonl", "--questions: expected a file of JSON lines"),
        ("probe confidence --observer both --count 5000", "--count: expected"),
        ("probe confidence --observer both --seed -1", "--seed: expected a whole number of at least 0, got -1"),
        ("probe confidence --observer both --set scale=0", "--set: expected noise not negative"),
        ("probe confidence --observer both --store .", "--store: expected a file that can be read and written"),
        ("probe confidence --model m --backend sampled --samples 0 --dry-run", "--samples: expected a whole number"),
        ("probe confidence --model m --backend systemone --form chat", "--form: expected flat"),
        ("probe confidence --model m --max-cost 5", "--max-cost: expected a --price"),
        ("probe confidence --model m --price -1 2 --dry-run", "--price: expected two numbers of at least 0"),
        ("probe confidence --observer both --duplicates -1", "--duplicates: expected a whole number of at least 0"),
        ("probe confidence --model m --backend sampled --duplicates 5", "--duplicates: expected log-probabilities"),
        ("probe confidence --observer both --explain --json", "--explain: expected a report for people"),
        ("probe confidence tiny --backend sampled", "--backend: expected --model, which alone has such an option"),
        ("probe confidence --observer both --dtype float32", "--dtype: expected a model, which alone has"),
        ("probe confidence --observer cheerful", "--observer"),
        ("confidence analyze none.jsonl", "STORE: expected a file that the probe wrote"),
        ("confidence analyze .", "STORE: expected a file that the probe wrote, got ., which is no regular file"),
        (
            "confidence analyze cards.jsonl",
            "STORE: expected a file that holds a run of the probe, got cards.jsonl, which",
        ),
        ("confidence analyze cards.jsonl --seed -1", "--seed: expected a whole number of at least 0"),
        (
            "confidence analyze cards.jsonl --export x --trials ./x",
            "--trials: expected another file than that of --export",
        ),
        ("confidence simulate both --seed -1", "--seed: expected a whole number of at least 0"),
        ("confidence simulate both --count 0", "--count: expected a whole number of at least 1"),
        ("confidence simulate both --accuracies 70", "--accuracies: expected shares above 0"),
        ("confidence simulate both --output cards.jsonl", "--output: expected a new file, or one with trials"),
        ("confidence fuse 0.6 same 0.7 --temperature 0", "--temperature: expected a positive number"),
        ("confidence simulate both --output no/where.jsonl", "--output: expected a path to write to"),
        ("confidence fuse 1 same 0.7", "PROBABILITY: expected a share above 0 and below 1"),
        ("confidence fuse 0.6 same 7", "ACCURACY: expected shares above 0 and up to 1"),
        ("confidence guess", "no command named 'guess'"),
    ],
)
def test_a_mistake_is_one_line(folder: Path, words: str, said: str) -> None:
    (folder / "bad.jsonl").write_text('{"id": "q", "question": "?", "options": ["x"]}\n', encoding="utf-8")
    before = sorted(folder.iterdir())
    status, out, err = ask(*words.split(), cwd=folder)
    assert (status, out) == (2, "")
    assert said in err.splitlines()[-1]
    assert sorted(folder.iterdir()) == before
