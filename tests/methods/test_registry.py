"""The registry holds the methods of every place."""

import pytest
import torch

import prunesid
from prunesid.core.needs import Needs
from prunesid.core.registry import owned_by, unknown, withdraw
from prunesid.methods import decoder, encoder, features
from prunesid.methods.registry import (
    DECODER,
    ENCODER,
    FEATURES,
    PACKAGES,
    QUESTION,
    RUN,
    list_methods,
    method_at,
    package_of,
    place_of,
    resolve,
)


def test_every_place_has_its_methods():
    found = {place: set(list_methods(place)) for place in PACKAGES}
    assert {"downsample", "tome"} == found[ENCODER]
    assert {"dart", "fastv", "mustdrop", "sparsevlm"} == found[DECODER]
    assert "cdpruner" in found[QUESTION] and {"prunesid", "visionzip"} <= found[FEATURES]
    assert set.union(*found.values()) == set(list_methods())
    assert sum(map(len, found.values())) == len(list_methods())
    assert RUN.keys() == PACKAGES.keys()


def test_the_list_says_what_each_is():
    known = prunesid.list_methods()
    assert list(known) == sorted(known)
    assert known["cdpruner"].place == QUESTION == place_of("cdpruner")
    assert known["visionzip"].needs == Needs(cls_attention=True, cls=True, keys=True)
    assert known["fastv"].parameters["k"].minimum == 1
    assert "FastV" in known["fastv"].source.repository and known["grid"].source is None


@pytest.mark.parametrize("method", list_methods())
def test_a_method_lies_in_the_package_of_its_place(method):
    package = {ENCODER: encoder, DECODER: decoder}.get(place_of(method), features)
    assert package_of(method) == package.__name__
    assert resolve(method, **resolve(method)) == resolve(method)


def test_unknown_names_are_told_the_choices():
    with pytest.raises(ValueError, match=r"Unknown method 'tomee'. Did you mean 'tome'\?.*fastv"):
        place_of("tomee")
    with pytest.raises(ValueError, match="Unknown parameter of fastv 'kk'. Did you mean 'k'"):
        resolve("fastv", kk=2)


def test_of_very_many_choices_the_nearest_are_named():
    many = [f"benchmark_{n:04}" for n in range(1000)]
    said = unknown("benchmark", "benchmark_999", many)
    assert "Did you mean 'benchmark_0999'" in said and "benchmark_0999, " in said
    assert said.endswith(" more.") and len(said) < 400
    assert len(unknown("benchmark", "x" * 5000, many[:3])) < 300


@pytest.mark.parametrize("method", list_methods(ENCODER, DECODER))
def test_methods_of_another_place_are_refused_with_what_runs_them(method):
    with pytest.raises(ValueError, match=f"{method} .*prunesid.pruned.*Methods that serve here"):
        prunesid.compress(prunesid.VisionRecord(torch.rand(1, 16, 4)), method, budget=4)
    with pytest.raises(ValueError, match="Methods that serve here: downsample, tome"):
        method_at("prunesid", ENCODER)


def test_a_name_is_taken_once_whatever_the_place():
    with pytest.raises(ValueError, match="already is a method named 'fastv'"), owned_by("test"):
        features.register("fastv")(lambda record, budget, draws: None)
    withdraw("test")
