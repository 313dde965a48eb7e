"""What every study of this package keeps."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from holdfast.lab.locate import find

STUDIES = ("lists", "sharpness")
SCALES = [(name, scale) for name in STUDIES for scale in find(name).scales]


@pytest.mark.parametrize("name", STUDIES)
def test_importing_a_study_loads_nothing_heavy(name: str) -> None:
    code = (
        f"import sys, holdfast.studies.{name}.study\n"
        "print([name for name in ('torch', 'numpy', 'scipy', 'matplotlib', 'hypothesis') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(("name", "scale"), SCALES)
def test_verdicts_come_from_seeds_that_no_setting_was_chosen_on(name: str, scale: str) -> None:
    assert find(name).scales[scale].first_seed == 100


@pytest.mark.parametrize(("name", "scale"), SCALES)
def test_trials_can_be_sent_to_a_worker(name: str, scale: str) -> None:
    study = find(name)
    trials = list(study.trials(study.scales[scale]))
    assert pickle.loads(pickle.dumps(trials)) == trials
