"""Agreement of the methods with results of their authors' own code on synthetic input."""

from __future__ import annotations

import functools

import golden_cases as golden
import pytest
import torch
from golden import inputs

from prunesid import compress
from prunesid.study.clone import in_clone
from prunesid.study.report import fidelity

measured = functools.cache(golden.compared)


@functools.cache
def digests(make, kind, seed, crop=None):
    crops = () if crop is None else (crop,)
    return inputs.digests(getattr(inputs, make)(kind, seed, *crops))


def test_every_file_is_checked():
    assert sorted(golden.CHECKS) == golden.FILES


@pytest.mark.parametrize("name", golden.FILES)
def test_the_inputs_are_those_of_the_vectors(name):
    found = golden.vectors(name)
    for key, make in (("input_digests", "make_case"), ("llm_input_digests", "make_llm_case")):
        for case, wanted in found.get(key, {}).items():
            kind, seed = case.split("/")
            assert digests(make, kind, int(seed)) == wanted
    for case in found["cases"]:
        for crop, wanted in enumerate(case.get("crop_digests", ())):
            assert digests("make_case", case["kind"], case["seed"], crop)["attn"] == wanted


@pytest.mark.parametrize("name", golden.FILES)
def test_every_stable_case_equals_what_the_authors_code_returned(name):
    assert [case for stable, equal, case in measured(name) if stable and not equal] == []
    assert any(stable for stable, _, _ in measured(name))


@pytest.mark.parametrize("name", golden.FILES)
def test_the_recorded_agreement_is_the_measured_one(name):
    assert fidelity.agreement(name) == golden.agreement(measured(name)), (
        f"record it: {golden.RECORD}"
    )


def test_sources_name_the_code_that_made_the_vectors():
    for _, source in fidelity.followed():
        for name in source.golden:
            file = golden.vectors(name)
            if "commit" in file:
                assert file["repository"] == f"github.com/{source.repository}"
                assert file["commit"] == source.commit


def test_visionzips_mean_merge_is_the_mean_over_target_and_members():
    for case in golden.vectors("visionzip")["cases"]:
        record = golden.of(case)
        mean, plus = (
            compress(record, "visionzip", budget=case["N"], merge=merge).tokens[0].double()
            for merge in ("mean", "target_plus_mean")
        )
        targets = record.features[0, case["target_patches"]].double()
        members = torch.tensor(case["member_counts"], dtype=torch.float64)[:, None]
        first = case["dominant"]
        wanted = (targets + members * (plus[first:] - targets)) / (1 + members)
        torch.testing.assert_close(mean[first:], wanted, rtol=0, atol=1e-5)
        assert torch.equal(mean[:first], plus[:first])


def test_the_pages_hold_the_tables_as_they_are():
    for name in fidelity.PAGES:
        page = in_clone("docs", name).read_text(encoding="utf-8")
        assert fidelity.filled(page) == page, f"write them: {golden.RECORD}"
        assert "<!-- generated: " in page


def test_agreement_is_told_with_what_rounding_decides():
    plain, shaky = fidelity.Agreement(9, 9, 9, 9), fidelity.Agreement(6, 4, 3, 3)
    assert str(plain) == "9 of 9 cases"
    assert str(shaky) == "4 of 6 cases; 3 of the 3 that rounding does not decide"
    assert plain + shaky == fidelity.Agreement(15, 13, 12, 12)
    assert fidelity.agreement_of("grid") is fidelity.agreement_of("cls_topk") is None
    both = [fidelity.agreement(name) for name in ("prunesid_llava", "prunesid_qwen")]
    assert fidelity.agreement_of("prunesid") == both[0] + both[1]


def test_a_table_takes_more_columns_and_a_page_only_known_tables():
    more = fidelity.Column("letters", lambda method: str(len(method)))
    lines = fidelity.run_table([more]).splitlines()
    assert lines[0] == "| method | letters |"
    assert "| `holov` | 5 |" in lines
    with pytest.raises(ValueError, match="no table 'mine'. Available: agreement, upstream"):
        fidelity.filled("<!-- generated: mine -->\nold\n<!-- end -->")
