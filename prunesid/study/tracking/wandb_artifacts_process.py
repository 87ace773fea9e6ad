"""Logs artifacts online, in a process of its own: `python -P wandb_artifacts_process.py < request`.

A run per artifact uses those that it was made from, which gives W&B the lineage. Nothing of
prunesid is imported.

The request is JSON: {"project", "entity", "directory", "artifacts": {name: {"name", "type",
"files": {title: path}, "uses": [names], "by_reference", "id"}}, "send": [names]}. Each line of
standard output is JSON: {"name", "url"} of an artifact that the server has taken, or {"error"}.
"""

import contextlib
import json
import sys
from pathlib import Path
from typing import Any


def main() -> int:
    request = json.load(sys.stdin)
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        try:
            import wandb

            for name in request["send"]:
                url = _send(wandb, request["artifacts"][name], request)
                print(json.dumps({"name": name, "url": url}), file=answers, flush=True)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            print(json.dumps({"error": problem}), file=answers, flush=True)
            return 1
    return 0


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


if __name__ == "__main__":
    sys.exit(main())
