"""The published runs of a study in the browser, on this machine only, without an account.

python -m prunesid.study.tracking.dashboard --config configs/study.yaml
python -m prunesid.study.tracking.dashboard --port 7870 --no-browser
"""

from __future__ import annotations

import argparse
import os
import sys
import webbrowser
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import urlencode

from prunesid.core.files import atomic
from prunesid.core.registry import unknown
from prunesid.study.config.chapters import load_whole
from prunesid.study.config.documents import ConfigError
from prunesid.study.config.study import Study
from prunesid.study.layout import Layout
from prunesid.study.tracking.ledger import shown
from prunesid.study.tracking.runs import group_of
from prunesid.study.tracking.trackio import FOLDER, surroundings

LOOPBACK = "127.0.0.1"
# Links to the dashboard's views, which hold while it runs.
VIEWS = "dashboard.html"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--config", type=Path, default=Path("configs/study.yaml"))
    parser.add_argument("--model", help="of a study with several; default: the first")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    parser.add_argument("--no-browser", action="store_true", help="print the address only")
    given = parser.parse_args(arguments)
    try:
        studies = {study.model_name: study for study in load_whole(given.config).studies}
        name = given.model or next(iter(studies))
        if name not in studies:
            raise ConfigError([f"--model: {unknown('model of this study', name, studies)}"])
        study = studies[name]
        directory = recorded(study)
    except (ConfigError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    first = ("average", *(benchmark.name for benchmark in study.benchmarks))
    order = ",".join(f"{name}/value" for name in first)
    environment = surroundings(directory) | {"TRACKIO_PLOT_ORDER": order}
    # trackio reads its folder when it is imported.
    os.environ.clear()
    os.environ.update(environment)
    import trackio

    project = study.wandb.project
    _, address, *_ = trackio.show(
        project=project,
        host=LOOPBACK,
        server_port=given.port,
        share=False,
        mcp_server=False,
        open_browser=False,
        block_thread=False,
    )
    runs = [(run.name, run.id) for run in trackio.Api().runs(project)]
    views = {a.title: view(address, project, runs, group_of(study, a)) for a in study.ablations}
    write_views(views, study.title, directory / VIEWS)
    print(f"\nA view per ablation while this runs: {shown(directory / VIEWS)}", flush=True)
    if not given.no_browser:
        webbrowser.open(next(iter(views.values())))
    trackio.utils.block_main_thread_until_keyboard_interrupt()
    return 0


def view(address: str, project: str, runs: Sequence[tuple[str, str]], group: str) -> str:
    """The address of the dashboard's page of values for one group's runs.

    Its other pages, reached from there, show the same runs. The page of pictures cannot be linked:
    called by itself, it shows those of all runs.

    runs  name and id of every run
    """
    own = [key for name, key in runs if name.startswith(f"{group}/")]
    asked = {"project": project, "run_ids": ",".join(own), "metric_filter": "/value"}
    asked |= {"plots_per_row": "2"}
    return f"{address.rstrip('/')}/?{urlencode(asked, safe=',/')}"


def write_views(views: Mapping[str, str], title: str, path: Path) -> None:
    """A page of links, since the addresses name every run and are long."""
    links = "".join(
        f'<li><a href="{escape(u)}">{escape(name)}</a></li>\n' for name, u in views.items()
    )
    page = f'<!doctype html><meta charset="utf-8"><title>{escape(title)}</title>\n'
    with atomic(path) as part:
        part.write_text(f"{page}<h1>{escape(title)}</h1>\n<ul>\n{links}</ul>\n", encoding="utf-8")


def runs_of_study(study: Study) -> Path:
    """The folder of a study's runs."""
    return Layout.of(study).runs


def recorded(study: Study) -> Path:
    """The folder of a study's runs; FileNotFoundError, with what to do, where trackio has none."""
    directory = runs_of_study(study)
    if any((directory / FOLDER).glob("*.db")):
        return directory
    advice = "`make reproduce` records them"
    if not study.trackio:
        advice = f"set `trackio: true` in the study; then {advice}"
    raise FileNotFoundError(f"There are no runs in {shown(directory / FOLDER)}; {advice}.")


if __name__ == "__main__":
    sys.exit(main())
