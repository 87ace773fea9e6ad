"""All that talks to wandb or trackio, in a process of its own: `python -P worker.py < request`.

Both keep state for the whole process, read the environment at import, and may hang; here none of
that reaches the caller, who can end this process. Nothing of prunesid is imported, so that it
starts in the time of the tracker alone.

The request is JSON: {"task": a name of TASKS, "project", ...}; each task describes the rest. Each
line of standard output is JSON: what a task yields, or {"error"}. Documents are the files of
tracking/json.py.
"""

import contextlib
import csv
import json
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MAX_TAG = 64
PICTURE = "picture"
COMPARISON = "compare"
ARM = "score"
WIDTH = 24


def main() -> int:
    request = json.load(sys.stdin)
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        try:
            for answer in TASKS[request["task"]](request):
                print(json.dumps(answer), file=answers, flush=True)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            print(json.dumps({"error": problem}), file=answers, flush=True)
            return 1
    return 0


def record_wandb(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Record {"documents": [files]} offline below "directory": {"id", "place"} for each.

    With "login", {"logged_in": bool} first.
    """
    import wandb

    if request["login"]:
        yield {"logged_in": _logged_in(wandb)}
    for document in _documents(request):
        yield {"id": document["id"], "place": _record(wandb, document, request)}


def send_artifacts(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Log the artifacts named in "send": {"name", "url"} for each that the server has taken.

    "artifacts": {name: {"name", "type", "files": {title: path}, "uses": [names], "by_reference",
    "id"}}. A run per artifact uses those that it was made from, which gives W&B the lineage.
    """
    import wandb

    for name in request["send"]:
        yield {"name": name, "url": _send(wandb, request["artifacts"][name], request)}


def save_pages(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Save a workspace, a report, and a workspace per ablation: {"workspace": url}, ...

    "title", "benchmarks": {name: title}, "ablations": [{"group", "title", "text"}], "former":
    {"workspace": url, "report": url, "view <group>": url}; a former page that is still there is
    changed in its place.
    """
    import wandb

    if request["entity"] is None:
        request["entity"] = wandb.Api().default_entity
    for name, save in (("workspace", _workspace), ("report", _report)):
        yield {name: save(request, request["former"].get(name))}
    for ablation in request["ablations"]:
        name = f"view {ablation['group']}"
        yield {name: _workspace(request, request["former"].get(name), ablation)}


def record_trackio(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Record {"documents": [files]}: {"id"} for each. Every warning of trackio is an error.

    "groups": {group: [names]}: other runs of these groups have another name by now, and go.

    TRACKIO_DIR says where trackio's files go.
    """
    import trackio

    former = _former(trackio, request["project"])
    for document in _documents(request):
        _record_in_trackio(trackio, document, request, former)
        yield {"id": document["id"]}
    for group, named in request["groups"].items():
        names = {f"{group}/{name}" for name in named}
        for name in [n for n in former if n.startswith(f"{group}/") and n not in names]:
            _drop(trackio, request["project"], name, former)


TASKS = {task.__name__: task for task in (record_wandb, send_artifacts, save_pages, record_trackio)}


def _documents(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in request["documents"]:
        yield json.loads(Path(path).read_text(encoding="utf-8"))


def _csv_rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


def _quiet(wandb: Any) -> Any:
    return wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        symlink=False,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )


def _logged_in(wandb: Any) -> bool:
    """Whether wandb finds credentials (environment, netrc, its settings); no server is asked."""
    try:
        return bool(wandb.login(prompt=False, verify=False))
    except wandb.errors.Error:
        return False


def _record(wandb: Any, document: dict[str, Any], request: dict[str, Any]) -> str:
    run = wandb.init(
        mode="offline",
        project=request["project"],
        entity=request["entity"],
        dir=request["directory"],
        id=document["id"],
        name=document["name"],
        group=document["group"],
        job_type=document["job_type"],
        tags=[tag[:MAX_TAG] for tag in document["tags"]],
        config={**document["config"], "environment": document["environment"]},
        settings=_quiet(wandb),
    )
    place = Path(run.settings.sync_dir)
    run.summary.update(document["summary"])
    # The stock workspace draws what was logged; what is in the summary alone has no panel there,
    # and how many arms were compared needs none.
    numbers = {
        name: value
        for name, value in document["summary"].items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
        if document["job_type"] != COMPARISON
    }
    shown = numbers | _shown(wandb, document, Path(request["directory"]))
    if shown:
        run.log(shown)
    run.finish()
    return str(place)


def _shown(wandb: Any, document: dict[str, Any], directory: Path) -> dict[str, Any]:
    shown = {
        title: _media(wandb, directory / file["path"], title)
        for title, file in document["files"].items()
    }
    for title, held in document["histograms"].items():
        shown[title] = wandb.Histogram(np_histogram=(held["counts"], held["edges"]))
    pictures = [
        wandb.Image(str(directory / p["path"]), caption=p["caption"]) for p in document["pictures"]
    ]
    if pictures:
        shown["pictures"] = pictures
    predictions = document["predictions"]
    if predictions is not None:
        shown["predictions"] = _predictions(wandb, predictions, pictures)
    return shown


def _predictions(wandb: Any, predictions: dict[str, Any], pictures: list[Any]) -> Any:
    columns, rows = predictions["columns"], predictions["rows"]
    if PICTURE not in columns:
        return _table(wandb, columns, rows)
    at = columns.index(PICTURE)
    table = _table(
        wandb, columns[:at] + columns[at + 1 :], [row[:at] + row[at + 1 :] for row in rows]
    )
    # In a column that may hold anything wandb keeps no picture.
    shown = [None if row[at] is None else pictures[row[at]] for row in rows]
    table.add_column(PICTURE, shown, optional=True)
    return table


def _table(wandb: Any, columns: list[str], rows: list[list[Any]]) -> Any:
    # A column may hold numbers and gaps, or 1 and "1"; wandb refuses that by default.
    return wandb.Table(columns=columns, data=rows, allow_mixed_types=True)


def _media(wandb: Any, path: Path, title: str) -> Any:
    if path.suffix == ".csv":
        columns, *rows = _csv_rows(path)
        return _table(wandb, columns, rows)
    if path.suffix == ".html":
        return wandb.Html(path.read_text(encoding="utf-8"), inject=False)
    return wandb.Image(str(path), caption=title)


def _send(wandb: Any, described: dict[str, Any], request: dict[str, Any]) -> str:
    run = wandb.init(
        mode="online",
        project=request["project"],
        entity=request["entity"],
        dir=request["directory"],
        id=described["id"],
        name=described["name"],
        group="artifacts",
        job_type=described["type"],
        resume="allow",
        settings=_quiet(wandb),
    )
    for name in described["uses"]:
        # Files that the server has are not sent again.
        run.use_artifact(_artifact(wandb, request["artifacts"][name]))
    run.log_artifact(_artifact(wandb, described)).wait()
    url = str(run.url)
    run.finish()
    return url


def _artifact(wandb: Any, described: dict[str, Any]) -> Any:
    artifact = wandb.Artifact(described["name"], type=described["type"])
    for title, path in described["files"].items():
        if described["by_reference"]:
            artifact.add_reference(Path(path).as_uri(), name=title)
        else:
            artifact.add_file(path, name=title, policy="immutable")
    return artifact


def _workspace(
    request: dict[str, Any], former: str | None, ablation: dict[str, Any] | None = None
) -> str:
    """The saved workspace of all runs, or of those of one ablation."""
    import wandb_workspaces.workspaces as ws

    page = _loaded(ws.Workspace.from_url, former) or ws.Workspace(
        entity=request["entity"], project=request["project"], name=request["title"]
    )
    arrange_workspace(page, request, ablation)
    page.save()
    return str(page.url)


def arrange_workspace(
    page: Any, request: dict[str, Any], ablation: dict[str, Any] | None = None
) -> None:
    """Fill a workspace: first what is kept and which answers differ, then figures and numbers.

    Bars have the names of the runs, which are the labels of the tables.
    """
    import wandb_workspaces.expr as expr
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    def section(name: str, panels: list[Any]) -> Any:
        return ws.Section(name=name, panels=panels, is_open=True)

    page.name = request["title"] if ablation is None else ablation["title"]
    page.sections = [
        section("What is kept", [wr.MediaBrowser(media_keys=["pictures"], num_columns=2)]),
        section("Answers that differ", [wr.WeavePanelSummaryTable(table_name="predictions")]),
        section("Comparisons", [wr.MediaBrowser(media_keys=["figure"], num_columns=1)]),
        section("Average over benchmarks", _bars(wr, {"average": "% of all tokens"}, grid=False)),
        section("Benchmarks", _bars(wr, request["benchmarks"], grid=False)),
    ]
    first = next(iter(request["benchmarks"]))
    values = ["summary:average/value", f"summary:{first}/value"]
    order = [expr.Ordering(expr.Summary("average/value"), ascending=False)]
    if ablation is None:
        page.runset_settings = ws.RunsetSettings(
            groupby=[expr.Metric("Group"), expr.Metric("JobType")],
            order=order,
            pinned_columns=[*values, "tags:__ALL__"],
        )
    else:
        page.runset_settings = ws.RunsetSettings(
            filters=f"Metric('Group') == '{ablation['group']}'",
            order=order,
            pinned_columns=["config:row.value", "config:column.value", *values],
        )


def _report(request: dict[str, Any], former: str | None) -> str:
    import wandb_workspaces.reports.v2 as wr

    page = _loaded(wr.Report.from_url, former) or wr.Report(
        entity=request["entity"], project=request["project"], title=request["title"]
    )
    page.title = request["title"]
    page.width = "fixed"
    page.blocks = [wr.TableOfContents()]
    for ablation in request["ablations"]:

        def runset(name: str, stage: str, group: str = ablation["group"]) -> Any:
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


def _former(trackio: Any, project: str) -> dict[str, list[Any]]:
    """The runs that are there, by name."""
    found: dict[str, list[Any]] = {}
    try:
        runs = trackio.Api().runs(project)
    except ValueError:
        return found
    for run in runs:
        found.setdefault(run.name, []).append(run)
    return found


def _drop(trackio: Any, project: str, name: str, former: dict[str, list[Any]]) -> None:
    """Delete former runs of that name, with their pictures."""
    for run in former.pop(name, []):
        run.delete()
        shutil.rmtree(trackio.media.get_project_media_path(project, name), ignore_errors=True)


def _record_in_trackio(
    trackio: Any, document: dict[str, Any], request: dict[str, Any], former: dict[str, list[Any]]
) -> None:
    # trackio tells runs apart by name alone in its lists, so the group is part of it.
    name = f"{document['group']}/{document['name']}"
    _drop(trackio, request["project"], name, former)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = trackio.init(
            project=request["project"],
            name=name,
            group=document["group"],
            config=_flat(document),
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )
        trackio.log(_shown_in_trackio(trackio, document, Path(request["directory"])))
        run.finish()
    if caught:
        raise RuntimeError(f"{name}: {caught[0].message}")


def _flat(document: dict[str, Any]) -> dict[str, Any]:
    """The configuration with 'arm.budget' for nested fields: the dashboard groups by one level."""
    nested = {
        "id": document["id"],
        "stage": document["job_type"],
        "tags": ", ".join(document["tags"]),
        **document["config"],
        "environment": document["environment"],
    }
    if document["job_type"] == COMPARISON:
        # Counts, of which a chart says nothing.
        nested["counts"] = document["summary"]
    flat: dict[str, Any] = {}
    waiting = list(nested.items())
    while waiting:
        name, value = waiting.pop(0)
        if isinstance(value, dict):
            waiting = [(f"{name}.{key}", inner) for key, inner in value.items()] + waiting
        else:
            flat[name] = ", ".join(map(str, value)) if isinstance(value, list) else value
    return flat


def _shown_in_trackio(trackio: Any, document: dict[str, Any], directory: Path) -> dict[str, Any]:
    told = {} if document["job_type"] == COMPARISON else document["summary"]
    shown = {name: value for name, value in told.items() if value is not None}
    for title, file in document["files"].items():
        shown[title] = _trackio_media(trackio, directory / file["path"], title)
    for title, held in document["histograms"].items():
        shown[title] = trackio.Histogram(np_histogram=(held["counts"], held["edges"]))
    pictures = [
        trackio.Image(str(directory / p["path"]), caption=p["caption"])
        for p in document["pictures"]
    ]
    shown |= {f"pictures/{place}": picture for place, picture in enumerate(pictures, 1)}
    predictions = document["predictions"]
    if predictions is not None and predictions["rows"]:
        columns, rows = predictions["columns"], predictions["rows"]
        if PICTURE in columns:
            at = columns.index(PICTURE)
            for row in rows:
                row[at] = "" if row[at] is None else pictures[row[at]]
        shown["predictions"] = trackio.Table(columns=columns, data=rows)
    return shown


def _trackio_media(trackio: Any, path: Path, title: str) -> Any:
    if path.suffix == ".csv":
        columns, *rows = _csv_rows(path)
        return trackio.Table(columns=columns, data=rows)
    if path.suffix == ".html":
        return trackio.Html(path, inject=False, caption=title)
    return trackio.Image(str(path), caption=title)


if __name__ == "__main__":
    sys.exit(main())
