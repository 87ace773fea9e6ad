"""Records runs offline with wandb, in a process of its own: `python -P wandb_process.py < request`.

wandb keeps a service and state for the whole process and reads dozens of environment variables;
here none of that reaches the caller, who can end this process when it hangs. Nothing of prunesid is
imported, so that it starts in the time of wandb alone.

The request is JSON: {"login": bool, "project", "entity", "directory", "documents": [files of
tracking/json.py]}. Each line of standard output is JSON: {"logged_in": bool}, {"id", "place"} for a
run that is complete on disk, or {"error"}.
"""

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

MAX_TAG = 64
PICTURE = "picture"


def main() -> int:
    request = json.load(sys.stdin)
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        try:
            import wandb

            if request["login"]:
                print(json.dumps({"logged_in": _logged_in(wandb)}), file=answers, flush=True)
            for path in request["documents"]:
                document = json.loads(Path(path).read_text(encoding="utf-8"))
                place = _record(wandb, document, request)
                print(json.dumps({"id": document["id"], "place": place}), file=answers, flush=True)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            print(json.dumps({"error": problem}), file=answers, flush=True)
            return 1
    return 0


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
        settings=wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            symlink=False,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        ),
    )
    place = Path(run.settings.sync_dir)
    run.summary.update(document["summary"])
    # The stock workspace draws what was logged; what is in the summary alone has no panel there.
    numbers = {
        name: value
        for name, value in document["summary"].items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
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
        import csv

        with path.open(encoding="utf-8", newline="") as stream:
            columns, *rows = csv.reader(stream)
        return _table(wandb, columns, rows)
    if path.suffix == ".html":
        return wandb.Html(path.read_text(encoding="utf-8"), inject=False)
    return wandb.Image(str(path), caption=title)


if __name__ == "__main__":
    sys.exit(main())
