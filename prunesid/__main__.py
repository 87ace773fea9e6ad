"""The command `prunesid`: methods, studies and pictures of kept patches, from the command line.

    prunesid methods
    prunesid run configs/quick.yaml

Every command is a thin one on what the library has; `python -m prunesid` is the same.
"""

from __future__ import annotations

import argparse
import errno
import os
import runpy
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import prunesid

# Imports are inside the commands: help, methods and a misspelled study take no second.


def methods(given: argparse.Namespace) -> int:
    """All methods, or one with its parameters."""
    from prunesid.core.registry import unknown
    from prunesid.methods.registry import METHODS
    from prunesid.study.report.method_facts import about

    if given.method is None:
        known = [about(name) for name in METHODS.names()]
        width = max(len(each.name) for each in known)
        for each in known:
            print(f"{each.name:{width}}  {each.place:8}  {each.summary}")
        return 0
    if given.method not in METHODS.names():
        sys.exit(unknown("method", given.method, METHODS.names()))
    one = about(given.method)
    print(one.summary)
    for name, param in one.params.items():
        choices = ", ".join(map(str, param.values()))
        print(f"  {name} = {param.default}" + (f"  ({choices})" if choices else ""))
    for heading, words in one.texts:
        print(f"\n{heading}\n\n{words}")
    return 0


def check(given: argparse.Namespace) -> int:
    """Every problem of a study's file, and everything else that it lacks, before it runs."""
    from prunesid.study.planning.check import check
    from prunesid.study.planning.checks.finding import MISSING, summary, text
    from prunesid.study.planning.checks.hub import Hub
    from prunesid.study.planning.checks.machine import Machine

    found = check(given.study, Hub(), Machine())
    print(f"{text(found)}\n\n{summary(found)}")
    return int(any(finding.state == MISSING for finding in found))


def estimate(given: argparse.Namespace) -> int:
    """What a study will take and what of it is done."""
    # The problems of a study come before the seconds that the estimate's imports take.
    from prunesid.study.config.chapters import load_whole

    studies = load_whole(given.study).studies
    from prunesid.study.planning.estimate import estimate, text_of_all

    cores = len(os.sched_getaffinity(0)) if given.cores == "all" else int(given.cores)
    print(text_of_all([estimate(study) for study in studies], cores))
    return 0


def run(given: argparse.Namespace) -> int:
    """A whole study, with its report."""
    from prunesid.study.run import run

    return run(given.study, given.cores, given.dry_run)


def draw(given: argparse.Namespace) -> int:
    """A picture of the patches that a method keeps of an image."""
    from PIL import Image, UnidentifiedImageError

    kinds = Image.registered_extensions()
    if given.out.suffix.lower() not in kinds or kinds[given.out.suffix.lower()] not in Image.SAVE:
        sys.exit(f"--out {given.out}: its name has to end like a picture's, as in kept.png")
    if not given.out.parent.is_dir():
        sys.exit(f"--out {given.out}: there is no folder {given.out.parent}")
    if given.out.resolve() == given.image.resolve():
        sys.exit(f"--out {given.out}: is the image itself")
    try:
        image = Image.open(given.image).convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        sys.exit(f"{given.image}: cannot be read as an image: {error}")
    from prunesid.methods.registry import DECODER, METHODS, resolve

    try:
        params = resolve(given.method)
        if METHODS[given.method].place == DECODER:
            raise ValueError(
                f"{given.method} keeps other tokens in every layer of the language model, which "
                "one picture cannot show; a study's explorer does"
            )
        from prunesid.families import load
        from prunesid.generate.stations import Pruning, Request, serve
        from prunesid.images.medium import IMAGE
        from prunesid.study.config.model import folder_of

        folder = folder_of(given.model)
        adapter = load(str(folder) if folder.is_dir() else given.model, "cpu", "float32")
        prompt = adapter.prompt(given.question, [IMAGE])
        request = Request("image", [image], prompt, given.question)
        (kept,) = serve(adapter, Pruning(given.method, given.budget, params), [request], 1).kept
    except ValueError as error:
        sys.exit(str(error))
    prunesid.draw(image, kept).save(given.out)
    print(given.out)
    return 0


def demo(given: argparse.Namespace) -> int:
    """The demo in the browser, on this machine alone."""
    if find_spec("gradio") is None:
        sys.exit("the demo needs gradio, which is not installed: `make demo` installs it")
    from prunesid.study.clone import in_clone

    app = in_clone("examples", "demo", "app.py")
    sys.argv = [str(app)]
    runpy.run_path(str(app), run_name="__main__")
    return 0


def _cores(value: str) -> str:
    if value != "all" and not (value.isdecimal() and int(value)):
        raise argparse.ArgumentTypeError(f"{value!r} is neither a number of cores nor 'all'")
    return value


def _tokens(value: str) -> int:
    if not (value.isdecimal() and int(value)):
        raise argparse.ArgumentTypeError(f"{value!r} is no positive number of tokens")
    return int(value)


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; each command's function is its `call`."""
    whole = argparse.ArgumentParser(
        prog="prunesid", description="Visual token pruning for vision-language models."
    )
    whole.add_argument("--version", action="version", version=prunesid.__version__)
    commands = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(
        call: Callable[[argparse.Namespace], int], example: str, more: str = ""
    ) -> argparse.ArgumentParser:
        said = (call.__doc__ or "").strip()
        made = commands.add_parser(
            call.__name__,
            help=said,
            description=f"{said} {more}".strip(),
            epilog=f"example:\n  prunesid {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.set_defaults(call=call)
        return made

    def takes_study(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made.add_argument("study", type=Path, metavar="STUDY", help="a study's YAML file")
        return made

    def takes_cores(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made.add_argument("--cores", type=_cores, default="all", help="a number, or all")
        return made

    one = command(methods, "methods prunesid")
    one.add_argument("method", nargs="?", metavar="METHOD", help="its parameters, too")
    takes_study(
        command(check, "check configs/llava-1.5-7b.yaml", "Nothing is downloaded or computed.")
    )
    takes_cores(takes_study(command(estimate, "estimate configs/study.yaml --cores 2")))
    study = takes_cores(takes_study(command(run, "run configs/quick.yaml --cores 2")))
    study.add_argument("--dry-run", action="store_true", help="list the jobs, run none")
    shown = command(draw, "draw photo.jpg --method visionzip --budget 64 --out kept.png")
    shown.add_argument("image", type=Path, metavar="IMAGE", help="a picture")
    shown.add_argument("--model", default="pocket", help="pocket, a checkpoint's folder or hub id")
    shown.add_argument("--method", default="prunesid", help="one of `prunesid methods`")
    shown.add_argument("--budget", type=_tokens, default=64, help="tokens kept (64)")
    shown.add_argument("--question", default="What is shown?", help="what is asked of it")
    shown.add_argument("--out", type=Path, default=Path("kept.png"), help="the picture (kept.png)")
    command(demo, "demo", "It needs the extra `demo`.")
    return whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit status. Problems of a study are said without a traceback."""
    given = parser().parse_args(arguments)
    from prunesid.study.surroundings import refuse_surroundings

    refuse_surroundings()
    from prunesid.study.config.documents import ConfigError

    try:
        status = int(given.call(given))
        sys.stdout.flush()
        return status
    except ConfigError as error:
        sys.exit(str(error))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EPIPE):
            raise
        # Python tries again when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # Whoever closes a pipe, as `head` does, has read enough.
        closed = error.errno == errno.EPIPE
        sys.exit(1 if closed else f"the output cannot be written: {error.strerror}")


if __name__ == "__main__":
    sys.exit(main())
