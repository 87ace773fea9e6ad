"""Ablations: from one YAML to rows, columns, arms and what the figure shows."""

import pytest
import yaml
from builders.synthetic_scores import ROOT, ablation_of, grouping

from prunesid.study.config.ablation import load_ablation
from prunesid.study.config.arm import make_arm
from prunesid.study.config.documents import ConfigError, Document, read_yaml


def test_grouping_is_the_papers_table_5():
    ablation = grouping()
    assert [row.key for row in ablation.rows] == [
        "grouping=random",
        "grouping=kmeans",
        "grouping=psca",
    ]
    assert [column.key for column in ablation.columns] == ["budget=64", "budget=128", "budget=192"]
    assert ablation.reference.key == "grouping=psca"
    assert ablation.table.paper_table == 5
    assert (ablation.figure.x, ablation.figure.hue) == ("budget", "grouping")
    names = [arm.name for arm in ablation.arms]
    assert names[0] == "vanilla"
    # All tokens, psca once per budget, random and k-means three times.
    assert len(names) == len(set(names)) == 1 + 3 * (1 + 3 + 3)
    assert {"default", "budget-128", "grouping-kmeans_seed-2"} <= set(names)


def test_any_parameter_of_a_method_is_an_axis():
    ablation = ablation_of(vary={"num_groups": [8, 16]}, across={"budget": [64, 128]})
    assert ablation.axes == ("num_groups", "budget")
    assert [cell.arms[0].name for cell in ablation.cells] == [
        "num_groups-8",
        "budget-128_num_groups-8",
        "num_groups-16",
        "budget-128_num_groups-16",
    ]
    assert ablation.rows[0].label == "num groups 8"
    assert ablation.columns[0].label == "64 tokens"


def test_methods_can_be_compared_in_a_list_of_settings():
    ablation = ablation_of(
        vary=[{"method": "prunesid"}, {"method": "random"}, {"preset": "release", "label": "code"}],
        base={"budget": 32},
        reference={"method": "prunesid"},
        seeds=2,
    )
    assert [arm.name for arm in ablation.arms] == [
        "vanilla",
        "budget-32",
        "method-random_budget-32",
        "method-random_budget-32_seed-1",
        "budget-32_preset-release",
        "budget-32_preset-release_seed-1",
    ]
    assert ablation.rows[2].label == "code"
    assert (ablation.figure.x, ablation.figure.hue) == ("row", "column")


def test_an_ablation_is_of_methods_where_every_row_names_one_and_they_differ():
    rows = [{"method": "prunesid"}, {"method": "grid"}, {"method": "prunesid", "preset": "release"}]
    assert ablation_of(vary=rows).methods == ("prunesid", "grid")
    assert ablation_of(vary=rows[:1]).methods == ()
    assert ablation_of(vary=[rows[0], rows[2]]).methods == ()
    assert ablation_of(vary=[*rows, {"preset": "matched"}]).methods == ()
    assert grouping().methods == ()


def shipped(name, **given):
    return load_ablation(ROOT / "configs" / "ablations" / f"{name}.yaml", **given)


@pytest.mark.parametrize("depth", [12, 24])
@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "ablations").glob("*.yaml")))
def test_every_shipped_ablation_is_whole(path, depth):
    ablation = load_ablation(path, depth=depth)
    assert ablation.description
    labels = [row.label for row in ablation.rows]
    assert len(set(labels)) == len(labels) > 1
    assert ablation.benchmarks is None
    budgets = {arm.budget for arm in ablation.arms if not arm.is_vanilla}
    # On the six layers of Pocket-LLaVA methods that act inside them cannot reach 64.
    late = any(arm.is_late for arm in ablation.arms)
    wanted = {128, 192} if late else {64, 128, 192}
    # LLaVA-NeXT's are those of the paper's table 2, Video-LLaVA's that of table 4.
    own = {"upstream": {192}, "crops": {160, 320, 640}, "frames": {136}}
    assert own.get(path.stem, wanted) <= budgets


def test_num_groups_is_the_papers_table_6():
    ablation = shipped("num_groups")
    assert [row.as_dict()["num_groups"] for row in ablation.rows] == [8, 16, 32, 48, 60]
    assert [column.as_dict()["budget"] for column in ablation.columns] == [64, 128, 192]
    assert (ablation.table.paper_table, ablation.table.average) == (6, "column")


def test_layers_are_the_papers_and_scale_with_the_depth():
    def layers(depth):
        return [row.as_dict()["layer"] for row in shipped("layer", depth=depth).rows]

    assert layers(24) == [0, 2, 8, 16, 22, 23]
    assert layers(12) == [0, 1, 4, 8, 10, 11]
    arms = shipped("layer", depth=12)
    assert arms.reference.key == "layer=10"
    assert {"layer-10", "budget-192_layer-4"} <= {arm.name for arm in arms.arms}
    with pytest.raises(ConfigError, match="number of vision blocks"):
        shipped("layer")


def test_fidelity_takes_one_switch_of_the_release_at_a_time_and_then_all():
    ablation = shipped("fidelity")
    paper, *single, release = (row.as_dict() for row in ablation.rows)
    assert (paper, release) == ({"preset": "paper"}, {"preset": "release"})
    together = {axis: value for row in single for axis, value in row.items()}
    assert len(together) == len(single)
    assert make_arm(release).resolved() == make_arm(together).resolved() | {"preset": "release"}


def test_fields_of_the_study_take_the_place_of_the_files():
    thin = {"across": {"budget": [96]}, "benchmarks": ["pocket_sqa"]}
    ablation = shipped("num_groups", overrides=Document(thin, "study.yaml"))
    assert [column.key for column in ablation.columns] == ["budget=96"]
    assert ablation.benchmarks == ("pocket_sqa",)
    assert ablation.rows == shipped("num_groups").rows
    with pytest.raises(ConfigError, match=r"study.yaml: Unknown.*Did you mean 'across'"):
        shipped("num_groups", overrides=Document({"acros": {}}, "study.yaml"))


def test_ablations_share_arms_by_name():
    one = {arm.name: arm for arm in grouping().arms}
    other = ablation_of(vary={"budget": [64, 128, 256]})
    shared = {arm.name for arm in other.arms} & one.keys()
    assert shared == {"vanilla", "default", "budget-128"}
    assert all(one[arm.name] == arm for arm in other.arms if arm.name in shared)


def test_two_axes_vary_together():
    ablation = ablation_of(vary={"grouping": ["psca", "kmeans"], "num_groups": [8, 16]})
    assert [row.key for row in ablation.rows][:2] == [
        "grouping=psca,num_groups=8",
        "grouping=psca,num_groups=16",
    ]
    assert ablation.figure.x == "row"


def test_off_is_a_word_and_not_false(tmp_path):
    path = tmp_path / "threshold.yaml"
    path.write_text("title: T\nvary: {threshold: [scaled, off]}\n")
    assert [row.key for row in load_ablation(path).rows] == [
        "threshold=scaled",
        "threshold=off",
    ]
    path.write_text(
        "{a: yes, b: true, c: 1e-3, d: 1.5, e: -2, f: 12, g: '1e3', h: .5, i: 1_0, j: 12_000}"
    )
    assert read_yaml(path) == {
        "a": "yes",
        "b": True,
        "c": 0.001,
        "d": 1.5,
        "e": -2,
        "f": 12,
        "g": "1e3",
        "h": 0.5,
        "i": "1_0",
        "j": 12_000,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vary": {"groupng": ["psca"]}}, "Did you mean 'grouping'"),
        ({"vary": {"grouping": ["pcsa"]}}, "Did you mean 'psca'"),
        ({"vary": {"method": ["prune"]}}, "prunesid"),
        ({"across": {"dynamic": ["calibrate"]}}, "Did you mean 'calibrated'"),
        ({"across": {"layer": [12]}}, "layer: 12 is none of the model's 12 vision blocks"),
        ({"vary": {"num_groups": [100]}}, "K > N"),
        ({"across": {"budget": [64, 0]}}, "budget: 0"),
        ({"across": {"budget": [-64]}}, "budget: -64"),
        ({"reference": {"grouping": "kmean"}}, "Did you mean 'grouping=kmeans'"),
        ({"figure": {"x": "bugdet"}}, "Did you mean 'budget'"),
        ({"figure": {"x": "budget", "hue": "budget"}}, "shows the axis 'grouping'"),
        ({"across": {"grouping": ["psca"]}}, "both vary and across"),
        ({"base": {"budget": 32}}, "stands in base"),
        ({"across": {"seed": [0, 1]}}, "'seed' is no axis"),
        ({"vary": {"grouping": ["psca", "psca"]}}, "occurs twice"),
        ({"vray": {}}, "Did you mean 'vary'"),
        ({"table": {"papertable": 5}}, "Did you mean 'paper_table'"),
        ({"table": {"average": "overal"}}, "Did you mean 'overall'"),
        ({"title": ""}, "title"),
        ({"seeds": 0}, "seeds"),
        ({"vary": {}}, "vary"),
    ],
)
def test_mistakes_are_explained(tmp_path, change, message):
    given = read_yaml(ROOT / "configs" / "ablations" / "grouping.yaml")
    path = tmp_path / "broken.yaml"
    path.write_text(yaml.safe_dump(given | change))
    with pytest.raises(ConfigError, match="broken.yaml") as caught:
        load_ablation(path, depth=12)
    assert any(message in problem for problem in caught.value.problems), caught.value


CROSSED = {"grouping": ["psca", "random"], "num_groups": [4, 8], "order": ["groups", "raster"]}


def test_of_rows_that_cross_axes_color_shows_the_first_and_facets_the_others():
    ablation = ablation_of(vary=CROSSED, across={"budget": [64, 128]})
    assert (ablation.figure.x, ablation.figure.hue) == ("budget", "grouping")
    assert ablation.figure.facets == ("num_groups", "order")
    chosen = ablation_of(vary=CROSSED, across={"budget": [64]}, figure={"hue": "order"})
    assert chosen.figure.facets == ("grouping", "num_groups")
    whole = ablation_of(vary=CROSSED, across={"budget": [64]}, figure={"hue": "row"})
    assert (whole.figure.hue, whole.figure.facets) == ("row", ())
    one = ablation_of(vary={"grouping": ["psca"], "num_groups": [4, 8]}, across={"budget": [64]})
    assert (one.figure.hue, one.figure.facets) == ("row", ())


def test_a_key_may_not_occur_twice(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("title: A\nvary: {grouping: [psca]}\ntitle: B\n")
    with pytest.raises(ConfigError, match="'title' occurs twice"):
        load_ablation(path)


def test_cells_can_be_left_out():
    ablation = ablation_of(
        vary=[{"method": "prunesid"}, {"method": "grid"}, {"method": "random"}],
        across={"budget": [16, 64]},
        seeds=1,
        **{"except": [{"method": ["grid"], "budget": [16]}, {"method": ["random"]}]},
    )
    assert [row.key for row in ablation.rows] == ["method=prunesid", "method=grid"]
    assert [(cell.row.key, cell.column.key) for cell in ablation.cells] == [
        ("method=prunesid", "budget=16"),
        ("method=prunesid", "budget=64"),
        ("method=grid", "budget=64"),
    ]
    assert [c.key for c in ablation.columns_of(ablation.rows[1])] == ["budget=64"]


def test_what_is_left_out_is_not_checked():
    """Late methods cannot meet every budget, and planning would refuse the arm."""
    late = {"method": "fastv", "k": 2}
    rules = {"except": [{"method": ["fastv"]}]}
    assert ablation_of(vary=[{"method": "prunesid"}, late], **rules).arms[1].method == "prunesid"


def test_the_reference_cannot_be_left_out():
    with pytest.raises(ConfigError, match="except: the reference is compared under every column"):
        ablation_of(
            vary=[{"method": "prunesid"}, {"method": "grid"}],
            across={"budget": [64, 128]},
            **{"except": [{"budget": [64]}]},
        )


def test_exceptions_of_columns_that_a_study_leaves_out_stay(tmp_path):
    path = tmp_path / "few.yaml"
    path.write_text(
        "title: T\nvary: {layer: [0, -1]}\nacross: {budget: [64, 128]}\n"
        "except: [{layer: [-1], budget: [128]}]\n"
    )
    assert len(load_ablation(path, depth=12).cells) == 3
    fewer = Document({"across": {"budget": [64]}}, "study")
    assert len(load_ablation(path, depth=12, overrides=fewer).cells) == 2


def test_arms_are_clocked_once_whatever_their_seeds():
    ablation = ablation_of(
        vary={"method": ["random", "prunesid"]}, across={"budget": [64]}, seeds=3,
        latency={"batches": [1, 8], "questions": 8},
    )  # fmt: skip
    assert ablation.latency is not None and ablation.latency.rounds == 1
    assert [arm.name for arm in ablation.clocked_arms] == ["vanilla", "method-random", "default"]


def test_a_batch_of_more_requests_than_there_are_questions_is_refused():
    with pytest.raises(ConfigError, match=r"latency.batches: 32 at once of 8 questions"):
        ablation_of(vary={"method": ["random"]}, latency={"questions": 8})
    with pytest.raises(ConfigError, match=r"latency.batches: 1 is missing"):
        ablation_of(vary={"method": ["random"]}, latency={"batches": [8, 4]})
    ordered = ablation_of(vary={"method": ["random"]}, latency={"batches": [8, 1]})
    assert ordered.latency.batches == (1, 8)
