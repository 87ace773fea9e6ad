"""The facts of a method, from its file and its registration."""

import pytest

from prunesid.core.registry import withdraw
from prunesid.methods import features
from prunesid.methods.registry import DECODER, ENCODER, FEATURES, list_methods
from prunesid.study.config.plugins import load_plugins
from prunesid.study.report.method_facts import about


def test_a_method_before_the_language_model():
    known = about("divprune")
    assert known.place == FEATURES
    assert known.source == "Alvar et al., CVPR 2025"
    assert known.summary == (
        "DivPrune (Alvar et al., CVPR 2025): the tokens that lie farthest apart after the "
        "projector."
    )
    assert known.remarks.startswith("Farthest-point sampling by cosine distance")
    assert known.meanings.endswith(
        'order  order of the output: "raster" or "selection" (as chosen)'
    )
    assert (known.module, known.needs) == ("prunesid.methods.features.divprune", ("projected",))
    assert known.params["order"].default == "raster"


def test_what_is_read_depends_on_the_parameters():
    assert about("prunesid").needs == ()
    assert about("prunesid", preset="release", layer=3).needs == ("cls_attention", "cls", "block 3")


def test_a_method_inside_the_language_model():
    known = about("mustdrop")
    assert known.place == DECODER and known.module == "prunesid.methods.decoder.mustdrop"
    assert known.needs == ("last_cls_attention",)
    assert about("mustdrop", key_share=0).needs == ()


def test_a_method_inside_the_encoder():
    known = about("tome", order="raster")
    assert known.place == ENCODER and known.module == "prunesid.methods.encoder.tome"
    assert known.source == "Bolya et al., ICLR 2023" and known.needs == ()
    assert known.params["order"].default == "split"


def test_every_method_is_described_by_its_file():
    early = (*features.list_feature_methods(), *list_methods(ENCODER))
    for name in (*early, *list_methods(DECODER)):
        known = about(name)
        assert known.summary.endswith(".") and known.meanings, name
        assert name in known.module.split(".")[-2:]


def test_wrong_names_name_the_choices():
    with pytest.raises(ValueError, match="Unknown method 'divprun'.*fastv"):
        about("divprun")
    with pytest.raises(ValueError, match="order"):
        about("divprune", order="up")


def test_a_method_of_a_file_with_another_name_is_described_by_its_function(tmp_path):
    (tmp_path / "described.py").write_text(
        '"""Several things."""\n\nfrom prunesid.methods.features import register\n\n\n'
        '@register("described_first")\n'
        "def first(record, budget, draws):\n"
        '    """The first ones (Nobody, 2001).\n\n    No more to say.\n    """\n'
    )
    load_plugins(["described.py"], tmp_path)
    known = about("described_first")
    withdraw("prunesid_plugin_described")
    assert known.summary == "The first ones (Nobody, 2001)."
    assert (known.source, known.remarks, known.meanings) == ("Nobody, 2001", "No more to say.", "")
