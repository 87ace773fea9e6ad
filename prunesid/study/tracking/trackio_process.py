"""Records runs with trackio, in a process of its own: `python -P trackio_process.py < request`.

trackio fixes its folder when it is imported, and what goes wrong in it is a warning at most; here
neither reaches the caller, and every warning is an error. Nothing of prunesid is imported.

The request is JSON: {"project", "directory", "documents": [files of tracking/json.py]}; TRACKIO_DIR
says where trackio's files go. Each line of standard output is JSON: {"id"} for a run that is
complete on disk, or {"error"}.
"""

import contextlib
import json
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

PICTURE = "picture"


def main() -> int:
    request = json.load(sys.stdin)
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        try:
            import trackio

            former = _former(trackio, request["project"])
            for path in request["documents"]:
                document = json.loads(Path(path).read_text(encoding="utf-8"))
                _record(trackio, document, request, former)
                print(json.dumps({"id": document["id"]}), file=answers, flush=True)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            print(json.dumps({"error": problem}), file=answers, flush=True)
            return 1
    return 0


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


def _record(
    trackio: Any, document: dict[str, Any], request: dict[str, Any], former: dict[str, list[Any]]
) -> None:
    # trackio tells runs apart by name alone in its lists, so the group is part of it.
    name = f"{document['group']}/{document['name']}"
    for run in former.pop(name, []):
        run.delete()
        shutil.rmtree(trackio.media.get_project_media_path(request["project"], name))
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
        trackio.log(_shown(trackio, document, Path(request["directory"])))
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
    flat: dict[str, Any] = {}
    waiting = list(nested.items())
    while waiting:
        name, value = waiting.pop(0)
        if isinstance(value, dict):
            waiting = [(f"{name}.{key}", inner) for key, inner in value.items()] + waiting
        else:
            flat[name] = ", ".join(map(str, value)) if isinstance(value, list) else value
    return flat


def _shown(trackio: Any, document: dict[str, Any], directory: Path) -> dict[str, Any]:
    shown = {name: value for name, value in document["summary"].items() if value is not None}
    for title, file in document["files"].items():
        shown[title] = _media(trackio, directory / file["path"], title)
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


def _media(trackio: Any, path: Path, title: str) -> Any:
    if path.suffix == ".csv":
        import csv

        with path.open(encoding="utf-8", newline="") as stream:
            columns, *rows = csv.reader(stream)
        return trackio.Table(columns=columns, data=rows)
    if path.suffix == ".html":
        return trackio.Html(path, inject=False, caption=title)
    return trackio.Image(str(path), caption=title)


if __name__ == "__main__":
    sys.exit(main())
