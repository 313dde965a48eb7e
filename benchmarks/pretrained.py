"""Put a finished training run into the package, as the small model that comes with it.

    holdfast train language --output small
    python benchmarks/pretrained.py small

rounds the weights to bfloat16, measures their loss again on the validation text of the run, and writes the model with
its tokenizer and the account of the run to `src/holdfast/models/language/pretrained`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer

from holdfast.errors import HoldfastError
from holdfast.models.language import HoldfastForCausalLM
from holdfast.models.language.corpus import Windows, read_corpus
from holdfast.models.language.recipe import LanguageRecipe
from holdfast.models.training.run_folder import RunFolder

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "holdfast" / "models" / "language" / "pretrained"
MOST_BYTES = 3_000_000


def package(run: Path, target: Path) -> dict[str, Any]:
    """Write the model of a run, rounded.

    Arguments:
        run: folder of a finished run.
        target: folder to write; what is in it gives way once the new model is measured.

    Returns:
        The account of the run, with what rounding has changed.

    Errors:
        HoldfastError: the run is not finished, its text is no longer the same, or the model is too large.
    """
    report = RunFolder(run).report()
    if report is None:
        raise HoldfastError(f"{run} holds no finished run")
    recipe = LanguageRecipe.from_dict(report["recipe"])
    tokenizer = AutoTokenizer.from_pretrained(run)
    corpus = read_corpus(recipe.data, tokenizer, recipe.model.context)
    if corpus.sha256 != report["corpus"]["sha256"]:
        raise HoldfastError(f"{corpus.name} is not the text that the run has learnt from, {report['corpus']['name']}")
    model = HoldfastForCausalLM.from_pretrained(run, dtype=torch.bfloat16)
    windows = Windows.covering(corpus.validation.tokens, recipe.model.context)
    report["packaged"] = {
        "dtype": "bfloat16",
        "validation_bits_per_byte": corpus.validation.bits_per_byte(mean_loss(model.float(), windows)),
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "pretrained"
        model.bfloat16().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        # What it computes in: processors are slow in bfloat16.
        (folder / "config.json").write_text(
            json.dumps(config | {"dtype": "float32"}, indent=2) + "\n", encoding="utf-8"
        )
        (folder / "training.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        size = sum(path.stat().st_size for path in folder.iterdir())
        if size > MOST_BYTES:
            raise HoldfastError(f"the model takes {size:,} bytes, more than {MOST_BYTES:,}")
        for path in folder.iterdir():
            path.chmod(0o644)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target)
    return report


@torch.no_grad()
def mean_loss(model: HoldfastForCausalLM, windows: Windows) -> float:
    """Mean loss of all predicted tokens, in nats."""
    total = 0.0
    for number in range(len(windows)):
        rows = windows[number]["input_ids"][None]
        total += cross_entropy(model.eval()(input_ids=rows).logits[0, :-1], rows[0, 1:]).item()
    return total / len(windows)


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Put a finished training run into the package.")
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--target", type=Path, default=PACKAGE, help="folder to write")
    options = parser.parse_args(words)
    try:
        report = package(options.run, options.target)
    except HoldfastError as error:
        parser.error(str(error))
    trained, packaged = report["validation_bits_per_byte"], report["packaged"]["validation_bits_per_byte"]
    size = sum(path.stat().st_size for path in options.target.iterdir())
    print(f"{trained:.4f} bits per byte as trained, {packaged:.4f} rounded; {size:,} bytes in {options.target}")


if __name__ == "__main__":
    main()
