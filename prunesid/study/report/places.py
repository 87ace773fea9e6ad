"""Where the paper has what an ablation shows, and what its pictures are called."""

from collections.abc import Mapping

from prunesid.study.config.ablation import FIGURE, Ablation

# The paper's tables and figures in its order: what each shows, and the file whose study has it.
PLACES: Mapping[str, tuple[str, str]] = {
    "figure 1": ("what three kinds of pruning keep of an image", ""),
    "figure 2": ("the methods over the benchmarks, on LLaVA-1.5", "configs/pocket.yaml"),
    "table 1": ("methods and budgets on LLaVA-1.5", "configs/pocket.yaml"),
    "table 2": ("LLaVA-NeXT", "configs/pocket_next.yaml"),
    "table 3": ("Mini-Gemini", "configs/pocket_gemini.yaml"),
    "table 4": ("Video-LLaVA", "configs/pocket_video.yaml"),
    "table 5": ("how tokens are grouped", "configs/pocket.yaml"),
    "table 6": ("the number of groups", "configs/pocket.yaml"),
    "figure 4": ("the ViT layer whose features are grouped", "configs/pocket.yaml"),
    "table 7": (
        "dynamic budgets on LLaVA-1.5, LLaVA-NeXT and Mini-Gemini",
        "configs/pocket.yaml, configs/pocket_next.yaml and configs/pocket_gemini.yaml",
    ),
    "figure 5": ("the information score of the images of two benchmarks", ""),
    "table 8": ("time, on LLaVA-NeXT", "configs/pocket.yaml"),
}
# What is not printed, or cannot be read, of the paper.
UNPRINTED = {
    "figure 1": "The paper prints no numbers here.",
    "figure 2": "Its numbers are those of table 1.",
    "figure 4": "The paper's own numbers cannot be read from its text; it finds blocks 16 and 22 "
    "of 24 the best.",
    "figure 5": "The paper prints no numbers here.",
}
PICTURES = {
    FIGURE: "figure", "radar": "over benchmarks", "wins": "who beats whom",
    "losses": "where they lose", "pareto": "accuracy and cost", "speed": "accuracy and time",
    "stations": "where time goes",
}  # fmt: skip


def unbraced(title: str) -> str:
    """A title for Snakemake's report, which takes braces for wildcards."""
    return title.replace("{", "(").replace("}", ")")


def shelf(ablation: Ablation) -> str:
    """The ablation's title after its place in the paper; after 'Ours' where it has none."""
    return f"{(ablation.in_paper or 'ours').capitalize()}: {ablation.title}"
