"""The preset `upstream`, which stands for the authors' code, for methods of every place."""

import pytest
from builders.synthetic import record

from prunesid import compress
from prunesid.core.parameters import Param
from prunesid.methods import features, registry
from prunesid.methods.decoder import DecoderShape, plan
from prunesid.methods.registry import METHODS, Source, Upstream
from prunesid.study.config.arm import make_arm
from prunesid.study.report.fidelity import followed

FOLLOWED = dict(followed())


@pytest.mark.parametrize("method", sorted(FOLLOWED))
def test_upstream_sets_what_the_registration_says_and_nothing_else(method):
    upstream, ours = registry.resolve(method, preset="upstream"), registry.resolve(method)
    wanted = {name: each.value for name, each in FOLLOWED[method].upstream.items()}
    assert {name: upstream[name] for name in wanted} == wanted
    if method != "prunesid":  # whose presets fill other parameters
        differing = {name for name in ours if upstream[name] != ours[name]}
        assert differing == set(wanted)
    assert registry.resolve(method, **upstream) == upstream


@pytest.mark.parametrize("method", sorted(FOLLOWED))
def test_every_difference_is_a_parameter_with_a_reason(method):
    params = registry.parameters(method)
    for name, each in FOLLOWED[method].upstream.items():
        assert params[name].check(name, each.value) == each.value
        assert each.value != registry.resolve(method)[name]
        assert len(each.reason.split()) > 4 and not each.reason.endswith(".")


def test_what_is_given_beside_the_preset_wins():
    assert registry.resolve("holov", preset="upstream", surplus="redistribute", runs=8) == {
        "runs": 8,
        "surplus": "redistribute",
        "order": "runs",
    }
    released = registry.resolve("prunesid", preset="upstream", order="raster")
    assert (released["preset"], released["order"]) == ("release", "raster")
    assert registry.resolve("fastv", preset="upstream", k=3)["k"] == 3


@pytest.mark.parametrize("method", ["random", "grid", "pool", "downsample"])
def test_a_baseline_has_no_authors_to_follow(method):
    with pytest.raises(ValueError, match=f"{method} has no preset 'upstream'"):
        registry.resolve(method, preset="upstream")
    with pytest.raises(ValueError, match="parameter of"):
        registry.resolve(method, preset="mine")


def test_other_presets_are_named_with_the_one_there_is():
    with pytest.raises(ValueError, match="Unknown preset of holov 'release'. Available: upstream."):
        registry.resolve("holov", preset="release")
    with pytest.raises(
        ValueError, match="Unknown preset 'releas'.*Available: .*release_qwen, upstream"
    ):
        registry.resolve("prunesid", preset="releas")


def test_it_works_wherever_a_method_is_named():
    kept = compress(record(), "prunesid", budget=8, preset="upstream")
    assert (
        kept.index.tolist()
        == compress(record(), "prunesid", budget=8, preset="release").index.tolist()
    )
    (stage,) = plan("fastv", DecoderShape(32, 576), 64, preset="upstream").stages
    assert (stage.after, stage.leaves) == (1, 64)
    arm = make_arm({"method": "holov", "preset": "upstream"})
    assert arm.name == "method-holov_preset-upstream" and arm.resolved()["surplus"] == "zeros"
    # Where the default is the authors' code, the preset changes nothing, and the arm is the same.
    assert make_arm({"method": "divprune", "preset": "upstream"}) == make_arm(
        {"method": "divprune"}
    )


def test_a_plug_in_names_its_source(monkeypatch):
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS._entries))
    theirs = Source(
        "A Paper", "2030", "someone/code", upstream={"step": Upstream(2, "one is ours")}
    )

    @features.register("theirs", params={"step": Param(1, int, minimum=1)}, source=theirs)
    def run(rec, budget, draws, *, step):
        raise AssertionError

    assert registry.source_of("theirs") is theirs
    assert registry.resolve("theirs", preset="upstream") == {"step": 2}
