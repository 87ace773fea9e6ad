"""The record of the quick study names what has changed of which arm."""

import json

import numpy as np
import pandas as pd
import pytest
import quick_study
from safetensors.numpy import save_file

from prunesid.core.questions import Answer, write_answers
from prunesid.study.config.study import load_study, parse_study
from prunesid.study.layout import Layout
from prunesid.study.provenance.store import Store
from prunesid.study.provenance.tables import write_keys

INDEX = [[0, 4, 7], [1, 2, -1]]
ANSWERS = ["red", "two"]
SCORES = [1.0, 0.0]


@pytest.fixture
def study(tmp_path):
    """Writes results of an arm; the same study at every call."""

    def write(index=INDEX, answers=ANSWERS, scores=SCORES, arm="default"):
        document = {"title": "A", "benchmarks": ["pocket_mme"], "ablations": ["budget"]}
        study = parse_study(document | {"results": str(tmp_path)})
        layout, name = Layout.of(study), study.benchmarks[0].name
        store = Store(layout.store)
        tensors = {"index": np.array(index), "count": np.array([3, 2])}
        given = [Answer(str(n), "image", text, 3.0, 9) for n, text in enumerate(answers)]
        selected = store.put({"kept": index}, lambda path: save_file(tensors, path))
        answered = store.put({"given": answers}, lambda path: write_answers(path, given))
        write_keys({arm: selected}, layout.keys("selections", name, "1-of-1"))
        write_keys({"vanilla": answered, arm: answered}, layout.keys("answers", name, "1-of-1"))
        table = {"arm": ["vanilla"] * 2 + [arm] * 2, "question_id": ["0", "1"] * 2}
        pd.DataFrame(table | {"score": [1.0, 1.0, *scores]}).to_parquet(layout.scores(name))
        return study

    return write


def test_the_same_results_do_not_differ(study):
    recorded = quick_study.digests(study())
    arms = recorded["pocket_mme"]
    assert {arm: set(own) for arm, own in arms.items()} == {
        "vanilla": {"answers", "scores"}, "default": {"answers", "indices", "scores"},
    }  # fmt: skip
    assert quick_study.differences(recorded, quick_study.digests(study())) == []
    # Padding is no token.
    padded = study(index=[[*row, -1] for row in INDEX])
    assert quick_study.differences(recorded, quick_study.digests(padded)) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"index": [[0, 4, 8], [1, 2, -1]]}, ["default: other indices"]),
        ({"index": [[4, 0, 7], [1, 2, -1]]}, ["default: other indices"]),
        ({"scores": [1.0, 1e-9]}, ["default: other scores"]),
        ({"answers": ["red", "2"]}, ["vanilla: other answers", "default: other answers"]),
        (
            {"arm": "budget-32"},
            ["default: recorded, but not in the study", "budget-32: not recorded"],
        ),
    ],
)
def test_what_changes_is_named(study, changed, said):
    recorded = quick_study.digests(study())
    lines = quick_study.differences(recorded, quick_study.digests(study(**changed)))
    assert lines == [f"pocket_mme, {line}" for line in said]


def test_the_command_fails_until_the_change_is_recorded(study, tmp_path, monkeypatch):
    monkeypatch.setattr(quick_study, "load_study", lambda path: current)
    monkeypatch.setattr(quick_study, "RECORDED", tmp_path / "recorded.json")
    monkeypatch.setattr("sys.argv", ["quick_study.py", "--record"])
    current = study()
    quick_study.main()
    current = study(index=[[0, 4, 8], [1, 2, -1]])
    monkeypatch.setattr("sys.argv", ["quick_study.py"])
    with pytest.raises(SystemExit, match="pocket_mme, default: other indices"):
        quick_study.main()
    monkeypatch.setattr("sys.argv", ["quick_study.py", "--record"])
    quick_study.main()
    monkeypatch.setattr("sys.argv", ["quick_study.py"])
    quick_study.main()


def test_every_arm_of_the_quick_study_is_recorded():
    study = load_study(quick_study.STUDY)
    recorded = json.loads(quick_study.RECORDED.read_text())
    assert recorded.keys() == {benchmark.name for benchmark in study.benchmarks}
    for name, arms in recorded.items():
        fields = {"answers", "scores"}
        assert {arm: set(own) for arm, own in arms.items()} == {
            arm.name: fields | ({"indices"} if arm.selects else set())
            for arm in study.arms_of(name)
        }
