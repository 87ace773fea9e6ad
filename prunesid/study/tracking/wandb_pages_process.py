"""Saves a workspace and a report in W&B, in a process of its own:
`python -P wandb_pages_process.py < request`. Nothing of prunesid is imported.

The request is JSON: {"project", "entity", "title", "benchmarks": {name: title}, "ablations":
[{"name", "title", "text"}], "former": {"workspace": url, "report": url}}; a former page that is
still there is changed in its place. Each line of standard output is JSON: {"workspace": url},
{"report": url}, or {"error"}.
"""

import contextlib
import json
import sys
from collections.abc import Callable
from typing import Any

COMPARISON = "compare"
ARM = "score"
WIDTH = 24


def main() -> int:
    request = json.load(sys.stdin)
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        try:
            import wandb

            if request["entity"] is None:
                request["entity"] = wandb.Api().default_entity
            for name, save in (("workspace", _workspace), ("report", _report)):
                url = save(request, request["former"].get(name))
                print(json.dumps({name: url}), file=answers, flush=True)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            print(json.dumps({"error": problem}), file=answers, flush=True)
            return 1
    return 0


def _workspace(request: dict[str, Any], former: str | None) -> str:
    import wandb_workspaces.expr as expr
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    def section(name: str, panels: list[Any]) -> Any:
        return ws.Section(name=name, panels=panels, is_open=True)

    page = _loaded(ws.Workspace.from_url, former) or ws.Workspace(
        entity=request["entity"], project=request["project"], name=request["title"]
    )
    page.name = request["title"]
    page.sections = [
        section("Average over benchmarks", _bars(wr, {"average": "% of all tokens"}, grid=False)),
        section("Benchmarks", _bars(wr, request["benchmarks"], grid=False)),
        section("Comparisons", [wr.MediaBrowser(media_keys=["figure"], num_columns=1)]),
        section("What is kept", [wr.MediaBrowser(media_keys=["pictures"], num_columns=2)]),
        section("Answers that differ", [wr.WeavePanelSummaryTable(table_name="predictions")]),
    ]
    first = next(iter(request["benchmarks"]))
    page.runset_settings = ws.RunsetSettings(
        groupby=[expr.Metric("Group"), expr.Metric("JobType")],
        order=[expr.Ordering(expr.Summary("average/value"), ascending=False)],
        pinned_columns=["summary:average/value", f"summary:{first}/value", "tags:__ALL__"],
    )
    page.save()
    return str(page.url)


def _report(request: dict[str, Any], former: str | None) -> str:
    import wandb_workspaces.reports.v2 as wr

    page = _loaded(wr.Report.from_url, former) or wr.Report(
        entity=request["entity"], project=request["project"], title=request["title"]
    )
    page.title = request["title"]
    page.width = "fixed"
    page.blocks = [wr.TableOfContents()]
    for ablation in request["ablations"]:

        def runset(name: str, stage: str, group: str = ablation["name"]) -> Any:
            return wr.Runset(
                entity=request["entity"],
                project=request["project"],
                name=name,
                filters=f"Metric('Group') == '{group}' and Metric('JobType') == '{stage}'",
            )

        figure = wr.MediaBrowser(
            media_keys=["figure"], num_columns=1, layout=wr.Layout(w=WIDTH, h=12)
        )
        bars = _bars(wr, {"average": "% of all tokens", **request["benchmarks"]}, grid=True)
        page.blocks += [
            wr.H1(text=ablation["title"]),
            wr.MarkdownBlock(text=ablation["text"]),
            wr.PanelGrid(runsets=[runset("comparison", COMPARISON)], panels=[figure]),
            wr.PanelGrid(runsets=[runset("arms", ARM)], panels=bars),
        ]
    page.save()
    return str(page.url)


def _bars(wr: Any, metrics: dict[str, str], *, grid: bool) -> list[Any]:
    """A bar panel per metric; in a `grid` two beside each other."""
    panels = []
    for place, (name, title) in enumerate(metrics.items()):
        at = wr.Layout(x=WIDTH // 2 * (place % 2), y=8 * (place // 2), w=WIDTH // 2, h=8)
        panel = wr.BarPlot(metrics=[f"{name}/value"], title=title, max_bars_to_show=100)
        if grid:
            panel.layout = at
        panels.append(panel)
    return panels


def _loaded(load: Callable[[str], Any], url: str | None) -> Any:
    """The page at `url`; None where there was none or someone has deleted it."""
    if url is None:
        return None
    try:
        return load(url)
    except (TypeError, ValueError):  # a missing report is a TypeError inside wandb-workspaces
        return None


if __name__ == "__main__":
    sys.exit(main())
