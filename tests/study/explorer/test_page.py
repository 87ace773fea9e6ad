"""The explorer's page as a person uses it, in a browser without a network."""

from __future__ import annotations

import json
import re

import pytest
from builders import study_runs

pytest.importorskip("websockets")
from builders.browser import CHROMIUM, Browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium"),
]
STUDY = """\
title: A page to be used
benchmarks: [pocket_gqa, pocket_pope]
ablations: [few]
seeds: 1
limit: 8
results: results
bootstrap: {resamples: 100}
wandb: {mode: disabled}
trackio: false
"""
ABLATION = """\
title: Few methods
description: A few methods at two budgets.
vary:
  - {method: grid, label: uniform grid}
  - {method: pool, label: average pooling}
  - {method: prunesid, label: PruneSID}
  - {method: visionzip, label: VisionZip}
  - {method: prumerge, label: PruMerge}
  - {method: fastv, label: FastV}
across: {budget: [16, 128]}
except: [{method: [fastv], budget: [16]}]
reference: {method: prunesid}
figure: {kind: dots}
"""
IDLE = "document.body && document.body.dataset.drawn && !document.body.hasAttribute('aria-busy')"
# Every value that the page computes, and that of the study's table.
VALUES = """(async () => {
  const found = [], mean = (each) => each.reduce((sum, one) => sum + one, 0) / each.length;
  for (const name of [...study.benchmarks.map((each) => each.name), ALL])
    for (const budget of study.budgets) {
      view = {...view, ...DEFAULTS, b: name, n: budget, arms: study.lines.map((line) => line.key)};
      const gathered = await gather(), chosen = chosenQuestions(gathered);
      const parts = gathered.map((part, b) =>
        measured(part, chosen.filter((each) => each.b === b).map((each) => each.q), 1));
      for (const subject of subjects()) {
        const table = cellOf(subject).table[name === ALL ? "average" : name];
        if (!table) continue;
        const own = name === ALL
          ? mean(parts.map((part) => 100 * part.value(subject) / part.value(WHOLE)))
          : parts[0].value(subject);
        found.push([name, subject, own, table[0]]);
      }
    }
  return JSON.stringify(found);
})()"""

# Of the first two arms: tokens that enter each layer, and patches that the page says do; and for
# each merged token its centers and all patches that go into it.
DRAWN = """(async () => {
  const {b, q} = drawn.current, part = drawn.gathered[b], [late, merging] = view.arms;
  const [{tiles}] = at(part.own.views, part.own.image[q]).map((one) => ({tiles: one[4]}));
  const numbers = patches(tiles).map(({patch}) => patch);
  const entering = at(part.data[late][0].layers, q).split(" ").map(Number);
  const left = await leftOn(part.own, cellOf(late).arms[0], q);
  const shown = entering.map((_, layer) => numbers.filter((p) => left(p) > layer).length);
  const kept = await keptOn(part.own, cellOf(merging).arms[0], q), members = {};
  for (const p of numbers.filter((p) => kept.group(p) >= 0)) {
    const own = members[kept.group(p)] ||= [0, 0];
    own[0] += kept.merged(p);
    own[1] += 1;
  }
  return JSON.stringify([entering, shown, Object.values(members)]);
})()"""

# Of the first two arms: of each merged token whether it stands for a patch, and its members.
SHARED = """(async () => {
  const {b, q} = drawn.current, part = drawn.gathered[b];
  const [{tiles}] = at(part.own.views, part.own.image[q]).map((one) => ({tiles: one[4]}));
  const numbers = patches(tiles).map(({patch}) => patch), found = [];
  for (const arm of view.arms) {
    const {tokens} = await keptOn(part.own, cellOf(arm).arms[0], q);
    const facts = ({center, has}) => [center >= 0 && has(center), numbers.filter(has).length];
    found.push(tokens.map(facts));
  }
  return JSON.stringify(found);
})()"""
# What the page says under the pointer: of the first arm's first center and of a member of its
# token that is no center; and of the second arm's first and last patch.
POINTED = """(async () => {
  const {b, q} = drawn.current, part = drawn.gathered[b];
  const [[, , [rows, columns], , tiles]] = at(part.own.views, part.own.image[q]);
  const numbers = patches(tiles).map(({patch}) => patch);
  const {tokens} = await keptOn(part.own, cellOf(view.arms[0]).arms[0], q);
  const centers = new Set(tokens.map(({center}) => center));
  const near = numbers.find((patch) => tokens[0].has(patch) && !centers.has(patch));
  const say = (arm, patch) => {
    const canvas = document.querySelector(`[data-subject="${arm}"] canvas`);
    const {left, top, width, height} = canvas.getBoundingClientRect();
    const clientX = left + ((patch % columns) + 0.5) * width / columns;
    const clientY = top + (Math.floor(patch / columns) + 0.5) * height / rows;
    canvas.dispatchEvent(new MouseEvent("mousemove", {clientX, clientY}));
    return byId("tip").textContent.replace(/^row \\d+, column \\d+: /, "");
  };
  return JSON.stringify([
    [tokens[0].center, near].map((patch) => say(view.arms[0], patch)),
    [0, numbers.length - 1].map((patch) => say(view.arms[1], patch)),
  ]);
})()"""


def choose(browser: Browser, element: str, value: str) -> None:
    browser.run(
        f"(() => {{ const found = document.getElementById({element!r}); found.value = {value!r};"
        " found.dispatchEvent(new Event('change')); })()"
    )
    browser.until(IDLE)


def show(browser: Browser, page: str, labels: list[str], budget: int) -> None:
    """Open the page with the arms of these labels at a budget."""
    browser.go(page)
    browser.until(IDLE)
    keys = f"{labels}.map((label) => study.lines.find((line) => line.label === label).key)"
    browser.run(f"change({{arms: {keys}, n: {budget}}})")
    browser.until(IDLE)


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    """The address of the page of a small study."""
    folder = tmp_path_factory.mktemp("explored")
    (folder / "ablations").mkdir()
    (folder / "ablations" / "few.yaml").write_text(ABLATION)
    (folder / "study.yaml").write_text(STUDY)
    made = "results/pocket/explorer"
    study_runs.run(
        folder, "--workflow-profile", "none", "--cores", "2", made, study=folder / "study.yaml"
    )
    return (folder / made / "index.html").as_uri()


def test_it_is_used(page, tmp_path):
    """One visit; each part of it would need the browser anew."""
    with Browser(tmp_path / "profile") as browser:
        browser.go(page)
        browser.until(IDLE)

        # Without a filter its numbers are those of the study's table.
        values = json.loads(browser.run(VALUES))
        assert len(values) > 12
        for name, subject, own, table in values:
            assert own == pytest.approx(table, rel=1e-4), (name, subject)
        browser.go(page)
        browser.until(IDLE)

        # The keyboard: the next question, the next image, the next flip.
        first = browser.run("view.q")
        browser.press("j")
        browser.until(IDLE)
        second = browser.run("view.q")
        browser.press("ArrowRight")
        browser.until(IDLE)
        third = browser.run("view.q")
        assert len({first, second, third}) == 3
        browser.press("f")
        browser.until(IDLE)
        assert browser.run("isFlip(drawn.gathered[drawn.current.b], drawn.current.q)")

        # A filter leaves what it says.
        before = browser.run("drawn.questions.length")
        choose(browser, "outcome", "lost")
        assert 0 < browser.run("drawn.questions.length") < before
        assert browser.run(
            "drawn.questions.every(({b, q}) => right(drawn.gathered[b].data.whole, q)"
            " && !right(drawn.gathered[b].data[other()], q))"
        )

        # A link holds the view.
        link, text = browser.run("location.href"), browser.run("document.body.innerText")
        browser.go("about:blank")
        browser.go(link)
        browser.until(IDLE)
        assert browser.run("document.body.innerText") == text
        assert browser.complaints == []


def test_it_shows_what_is_left_in_a_layer_and_what_is_merged(page, tmp_path):
    with Browser(tmp_path / "profile") as browser:
        show(browser, page, ["FastV", "VisionZip"], 128)
        entering, shown, members = json.loads(browser.run(DRAWN))
        assert shown == entering and entering[-1] < entering[0] == 576
        # 20 of 128 tokens are merged; all but 107 patches go into one of them.
        assert len(members) == 20 and {centers for centers, _ in members} == {1}
        assert sum(count for _, count in members) == 576 - 107
        first = "document.querySelector('.layers button')"
        browser.run(f"{first}.focus(), {first}.click()")
        browser.until(IDLE)
        assert browser.run("view.l") == "1" and "l=1" in browser.run("location.hash")
        pressed = (
            "[...document.querySelectorAll('.layers [aria-pressed=true]')].map((b) => b.title)"
        )
        assert browser.run(pressed) == ["layer 1: 576 visual tokens enter"]
        assert browser.run("document.activeElement.title") == "layer 1: 576 visual tokens enter"
        assert browser.complaints == []


def test_it_shows_what_goes_into_tokens_that_share_patches(page, tmp_path):
    with Browser(tmp_path / "profile") as browser:
        show(browser, page, ["PruMerge", "average pooling"], 16)
        tokens = json.loads(browser.run(SHARED))
        # The one that stands for all patches that are left is not named.
        assert [(len(own), own[0]) for own in tokens] == [(15, [True, 33]), (16, [False, 36])]
        merging, pooling = json.loads(browser.run(POINTED))
        assert merging[0] == "center of a merged token; made of 33 patches"
        assert re.fullmatch("not kept; goes into [0-9]+ merged tokens?", merging[1])
        assert pooling == ["in the mean of 1 cell", "in the mean of 1 cell"]
        assert browser.complaints == []


def test_a_phone_shows_all_of_it(page, tmp_path):
    with Browser(tmp_path / "profile", width=390, height=800) as browser:
        browser.go(page)
        browser.until(IDLE)
        assert browser.run("document.documentElement.scrollWidth") <= 390
        assert browser.complaints == []
