"""The table of facts: the averages of arms.csv and agreement.csv, none where all is plain."""

import pandas as pd
import pytest
from builders.synthetic_scores import BENCHMARKS, grouping

from prunesid.study.report.arm_facts import count_text, facts_table, read_facts
from prunesid.study.report.formats import to_html, to_markdown
from prunesid.study.report.table import Table

NONE = pd.DataFrame(columns=["row", "column", "benchmark", "between_seeds", "with_reference"])


def arms_of(ablation, **values):
    """A line per arm and benchmark; values may be functions of (arm, place of the benchmark)."""
    lines = []
    for arm in ablation.arms:
        for place, benchmark in enumerate(BENCHMARKS):
            given = {k: v(arm, place) if callable(v) else v for k, v in values.items()}
            tokens = arm.budget or 576
            facts = dict.fromkeys(
                ("tau", "suppressed", "survivors", "refilled", "rho"), float("nan")
            )
            facts |= dict.fromkeys(("kv", "text"), float("nan"))
            macs = dict.fromkeys(
                ("encoder_macs", "selection_macs", "llm_macs", "total_macs"), float("nan")
            )
            line = {"arm": arm.name, "benchmark": benchmark.name, "tokens_mean": tokens,
                    "tokens_min": tokens, "tokens_max": tokens, "input_mean": tokens}  # fmt: skip
            lines.append(line | macs | {f"{k}_mean": v for k, v in facts.items()} | given)
    return pd.DataFrame(lines)


def test_numbers_are_means_over_benchmarks_and_seeds():
    ablation = grouping()
    arms = arms_of(
        ablation,
        tau_mean=lambda arm, place: 0.2 + 0.1 * place + 0.01 * arm.seed,
        suppressed_mean=0.25,
        tokens_max=lambda arm, place: (arm.budget or 576) + (arm.seed == 2),
    )
    agreement = pd.DataFrame({
        "row": ["grouping=random"] * 2, "column": ["budget=64"] * 2, "benchmark": ["a", "b"],
        "between_seeds": [0.1, 0.3], "with_reference": [0.0, 0.02],
    })  # fmt: skip
    table = facts_table(arms, agreement, ablation)
    assert table.columns == ("Tokens", "τ", "Suppressed", "Rand, seeds", "Rand, reference")
    assert [block.title for block in table.blocks] == ["64 tokens", "128 tokens", "192 tokens"]
    random, _, psca = table.blocks[0].rows
    assert random.label == "random"
    assert [cell.value for cell in random.cells] == ["64", "0.36", "25 %", "0.20", "0.01"]
    assert random.cells[0].interval == "64–65"
    assert [cell.value for cell in psca.cells] == ["64", "0.35", "25 %", "", ""]
    assert psca.cells[0].interval == ""


def test_there_is_no_table_where_there_is_nothing_to_tell():
    assert facts_table(arms_of(grouping()), NONE, grouping()) is None
    assert facts_table(arms_of(grouping()), None, grouping()) is None
    unequal = arms_of(grouping(), tokens_min=3)
    assert facts_table(unequal, None, grouping()).columns == ("Tokens",)


def test_what_enters_the_language_model_is_told_where_some_of_it_goes_inside():
    arms = arms_of(
        grouping(), input_mean=lambda arm, _: 576 if arm.seed == 0 else arm.budget, kv_mean=384
    )
    table = facts_table(arms, None, grouping())
    assert table.columns == ("Tokens", "Entering", "KV entries")
    random, *_ = table.blocks[0].rows
    assert [cell.value for cell in random.cells] == ["64", "234.7", "384"]


def test_multiply_adds_are_told_and_a_sum_that_lacks_one_is_a_lower_bound():
    ablation = grouping()

    def selection(arm, _):
        return float("nan") if arm.params.get("grouping") == "kmeans" else 2.5e6

    arms = arms_of(
        ablation,
        encoder_macs=1e9,
        selection_macs=selection,
        llm_macs=lambda arm, place: place * 4e8,
        total_macs=lambda arm, place: 1e9 + place * 4e8,
    )
    table = facts_table(arms, NONE, ablation)
    assert table.columns == ("Tokens", "Encoder", "Selection", "LLM", "Total")
    cells = {row.label: [cell.value for cell in row.cells] for row in table.blocks[0].rows}
    assert cells["random"][1:] == ["1.00 G", "2.50 M", "600 M", "1.60 G"]
    assert cells["k-means"][1:] == ["1.00 G", "", "600 M", "≥ 1.60 G"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (64, "64.0"), (999.4, "999"), (999.6, "1.00 k"), (4.254e12, "4.25 T")],
)
def test_counts_have_three_digits_and_a_unit(value, shown):
    assert count_text(value) == shown


def test_it_stands_below_the_table_in_markdown_and_html():
    facts = facts_table(arms_of(grouping(), tau_mean=0.5), None, grouping())
    whole = Table("Main", (("", 1),), ("GQA",), (), ("The caption.",), facts)
    text = to_markdown(whole)
    assert text.index("### Main") < text.index(f"#### {facts.title}") < text.index("The caption.")
    page = to_html(whole)
    assert page.count("<table") == 2
    assert "<details open>" in page
    assert page.index("</details>") < page.index("The caption.")


def test_files_are_read_as_they_are_meant(tmp_path):
    path = tmp_path / "agreement.csv"
    path.write_text("row,column,benchmark,arms,between_seeds,with_reference\n,all,none,2,0.5,\n")
    table = read_facts(path)
    assert list(table.loc[0, ["row", "column", "benchmark"]]) == ["", "all", "none"]
    assert table.loc[0, "between_seeds"] == 0.5
    assert pd.isna(table.loc[0, "with_reference"])


@pytest.mark.parametrize("rows", [3, 30])
def test_a_long_table_of_facts_is_closed_at_first(rows):
    from dataclasses import replace

    facts = facts_table(arms_of(grouping(), tau_mean=0.5), None, grouping())
    blocks = (replace(facts.blocks[0], rows=facts.blocks[0].rows[:1] * rows),)
    whole = Table("Main", (("", 1),), ("GQA",), (), (), replace(facts, blocks=blocks))
    assert ("<details open>" in to_html(whole)) == (rows == 3)
