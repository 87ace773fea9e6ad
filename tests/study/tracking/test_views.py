"""The saved workspaces of W&B as their specification, which needs no server."""

import json

import pytest

from prunesid.study.tracking.worker import arrange_workspace

REQUEST = {
    "title": "Pruning",
    "entity": "someone",
    "project": "prunesid",
    "benchmarks": {"pocket_gqa": "GQA", "pocket_pope": "POPE"},
    "ablations": [{"group": "pocket/grouping", "title": "Token grouping", "text": ""}],
}


# wandb-workspaces warns about its own code.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def arranged(ablation=None):
    import wandb_workspaces.workspaces as ws

    page = ws.Workspace(entity="someone", project="prunesid", name="")
    arrange_workspace(page, REQUEST, ablation)
    return page, json.loads(page._to_model().spec.model_dump_json(by_alias=True))["section"]


@pytest.mark.parametrize("ablation", [None, REQUEST["ablations"][0]])
def test_pictures_and_flips_come_first(ablation):
    page, section = arranged(ablation)
    names = [each["name"] for each in section["panelBankConfig"]["sections"]]
    assert names[:5] == [
        "What is kept",
        "Answers that differ",
        "Comparisons",
        "Average over benchmarks",
        "Benchmarks",
    ]
    text = json.dumps(section)
    assert '"pictures"' in text and "predictions" in text and "pocket_pope/value" in text
    assert '"arms"' not in text  # no chart of counts
    assert page.name == ("Pruning" if ablation is None else "Token grouping")


def test_the_view_of_an_ablation_has_its_runs_alone():
    (runset,) = arranged(REQUEST["ablations"][0])[1]["runSets"]
    assert "pocket/grouping" in json.dumps(runset["filters"])
    (whole,) = arranged()[1]["runSets"]
    assert "pocket/grouping" not in json.dumps(whole["filters"])
    assert whole["grouping"] and not runset["grouping"]
