"""Where methods act, and one check of parameters for all of them."""

import pytest
import torch

import prunesid
from prunesid import VisionRecord
from prunesid.methods import decoder, encoder, features, places


def test_every_method_acts_in_one_place():
    found = places.listed()
    names = [name for own in found.values() for name in own]
    assert len(names) == len(set(names))
    assert places.place_of("tome") == places.ENCODER
    assert places.place_of("prunesid") == places.FEATURES
    assert places.place_of("cdpruner") == places.QUESTION
    assert places.place_of("fastv") == places.DECODER


@pytest.mark.parametrize("method", [name for own in places.listed().values() for name in own])
def test_parameters_are_resolved_by_the_package_of_the_place(method):
    package = {
        places.ENCODER: encoder, places.FEATURES: features, places.QUESTION: features,
        places.DECODER: decoder,
    }[places.place_of(method)]  # fmt: skip
    assert places.resolve(method) == package.resolve(method)
    assert package.parameters(method).keys() == places.resolve(method).keys()


def test_an_unknown_method_is_told_the_methods_of_every_place():
    with pytest.raises(ValueError, match=r"'tomee'.*'tome'.*fastv.*prunesid.*tome"):
        places.place_of("tomee")


def test_an_unknown_parameter_is_told_those_of_the_method():
    with pytest.raises(ValueError, match="parameter of fastv 'kk'.*Available: .*keep"):
        places.resolve("fastv", kk=2)


def test_all_methods_are_listed():
    found = prunesid.list_methods()
    assert found == sorted(name for own in places.listed().values() for name in own)
    assert {"prunesid", "tome", "downsample", "fastv", "mustdrop"} < set(found)
    assert places.RUN.keys() == places.PACKAGES.keys() == places.listed().keys()


@pytest.mark.parametrize("method", [*encoder.list_encoder_methods(), *decoder.list_late_methods()])
def test_a_record_is_refused_by_what_acts_elsewhere_and_that_says_what_runs_it(method):
    record = VisionRecord(torch.randn(1, 9, 4))
    with pytest.raises(ValueError, match=f"{method} (acts|drops).* run it.*: cdpruner.*vispruner"):
        prunesid.compress(record, method, budget=3)
    with pytest.raises(ValueError, match=r"Did you mean 'fastv'.*dart.*tome"):
        prunesid.compress(record, "fastvv", budget=3)
