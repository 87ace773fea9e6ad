"""Ask a model about an image with several ways of pruning its tokens, side by side.

    python examples/demo/app.py                                  # the embedded models
    python examples/demo/app.py --checkpoints ~/models/llava     # and checkpoint folders of yours

It listens on this machine alone. In a Space (README.md beside this file) it runs as it is.
"""

from __future__ import annotations

import argparse
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import torch
from PIL import Image

import prunesid
from prunesid import families
from prunesid.core.costs import STATIONS, account
from prunesid.generate.stations import Pruning, Request, Served, serve
from prunesid.images.media import IMAGE_SUFFIXES, Unreadable, media_of
from prunesid.images.medium import IMAGE
from prunesid.methods.registry import ENCODER
from prunesid.pocket import EMBEDDED
from prunesid.pocket.drawing import draw
from prunesid.pocket.scenes import sample_scene

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
ALL = "all tokens"
FIRST = ("prunesid", "divprune", "visionzip")
# A large request would keep others waiting.
MOST_METHODS, MOST_BUDGET, MOST_LETTERS, MOST_BYTES = 8, 4096, 500, 32 * 2**20
MAX_NEW_TOKENS = 32
COLUMNS = ["method", "answer", "tokens", *STATIONS, "total", "tower", "model"]
# Embedded models that are asked about images.
POCKETS = {name: path for name, path in EMBEDDED.items() if name != "pocket-video"}


@lru_cache(maxsize=2)
def adapter_of(path: Path) -> Any:
    """The model in a folder, loaded once."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return families.load(path, device, "bfloat16" if device == "cuda" else "float32")


def read(path: str) -> Image.Image:
    """An uploaded image, within the limits of `prunesid.images.media`."""
    try:
        (image,) = media_of([path])
    except (Unreadable, ValueError) as error:
        raise gr.Error(f"This image cannot be read: {error}") from error
    if not isinstance(image, Image.Image):
        raise gr.Error("Choose an image, not a video.")
    return image


def preview(path: str | None) -> Image.Image | None:
    """The image that is asked about."""
    return read(path) if path else None


def run_methods(
    models: dict[str, Path],
    path: str | None,
    question: str,
    model: str,
    methods: list[str],
    budget: float,
) -> tuple[list[tuple[Image.Image, str]], list[list[str]]]:
    """Pictures with captions, and a table row per method, all tokens first."""
    if not path or not (question or "").strip():
        raise gr.Error("Choose an image and ask a question.")
    if len(question) > MOST_LETTERS or len(methods) > MOST_METHODS:
        raise gr.Error(f"At most {MOST_METHODS} methods and {MOST_LETTERS} letters at once.")
    if model not in models or not 1 <= budget <= MOST_BUDGET:
        raise gr.Error(f"Choose a model of the list and a budget of 1 to {MOST_BUDGET} tokens.")
    image, adapter = read(path), adapter_of(models[model])
    prompt = adapter.prompt(question.strip(), [IMAGE])
    request = Request("image", [image], prompt, question.strip())
    # The first pass of a process is slow; it is not shown.
    serve(adapter, Pruning(), [request], 1)
    pictures, rows = [], []
    for method in [None, *methods]:
        label = method or ALL
        try:
            pruning = Pruning(method, int(budget), prunesid_params(method))
            served = serve(adapter, pruning, [request], MAX_NEW_TOKENS)
        except ValueError as error:
            rows.append([label, f"not possible here: {error}", *[""] * (len(COLUMNS) - 2)])
            continue
        answer = adapter.decode(served.answers[0]).strip()
        mean = sum(served.entering) / len(served.entering)
        rows.append([label, answer, f"{mean:.0f}", *timed(served),
                     *costs(adapter, pruning, served, prompt.text_tokens)])  # fmt: skip
        if served.kept:
            shown = image if method is None else prunesid.draw(image, served.kept[0])
            pictures.append((shown, f"{label}: {answer} ({served.tokens:.0f} tokens)"))
    return pictures, rows


def prunesid_params(method: str | None) -> dict[str, Any]:
    """All parameters of a method at their defaults, filled in."""
    from prunesid.methods.registry import resolve

    return {} if method is None else dict(resolve(method))


def timed(served: Served) -> list[str]:
    """Milliseconds of each station, and of all."""
    seconds = [served.seconds.get(name, 0.0) for name in STATIONS]
    return [f"{1000 * value:.1f}" for value in [*seconds, sum(seconds)]]


def costs(adapter: Any, pruning: Pruning, served: Served, text: int) -> list[str]:
    """Millions of multiply-adds of the tower and the prompt's prefill; "–" without a formula."""
    sizes = adapter.sizes
    found = account(
        sizes.decoder, served.entering, text, encoder=sizes.encoder,
        encoder_tokens=sizes.encoder_tokens, crops=served.crops,
    )  # fmt: skip
    # A method in the encoder has a pass of its own, whose cost depends on how crops share.
    known = sizes.encoder is not None and pruning.place != ENCODER
    return [f"{found.encoder_macs / 1e6:,.0f}" if known else "–", f"{found.llm_macs / 1e6:,.0f}"]


def samples(folder: Path) -> list[list[str]]:
    """Rendered scenes with a question each, written into `folder`."""
    asked = ("is there a red circle ?", "how many star ?", "what color is the square ?")
    found = []
    for seed, question in enumerate(asked, start=3):
        path = folder / f"scene-{seed}.png"
        draw(sample_scene(np.random.default_rng(seed), kind="scene"))[0].save(path)
        found.append([str(path), question])
    return found


def build(models: dict[str, Path], folder: Path) -> gr.Blocks:
    """The page; `folder` takes the sample images."""
    with gr.Blocks(title="prunesid", analytics_enabled=False) as page:
        gr.Markdown("## Which visual tokens are kept, and does the answer survive?")
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                # A file, since an image component decodes any format of any size.
                image = gr.File(label="Image", file_types=list(IMAGE_SUFFIXES), height=120)
                seen = gr.Image(label="As uploaded", interactive=False, height=260)
                question = gr.Textbox(label="Question", max_length=MOST_LETTERS)
                model = gr.Dropdown(list(models), value=next(iter(models)), label="Model")
                methods = gr.Dropdown(
                    list(prunesid.list_methods()), value=list(FIRST), multiselect=True,
                    max_choices=MOST_METHODS, label="Methods",
                )  # fmt: skip
                budget = gr.Slider(1, 576, 64, step=1, label="Budget (tokens per image)")
                go = gr.Button("Ask", variant="primary")
                gr.Examples(samples(folder), [image, question], label="Or choose a scene")
                image.change(preview, image, seen, api_name=False)
            with gr.Column(scale=3):
                pictures = gr.Gallery(
                    label="Kept patches (LLaVA-NeXT: base crop, then sub-crops)", columns=2,
                    height="auto", object_fit="contain",
                )  # fmt: skip
        table = gr.Dataframe(
            headers=COLUMNS, wrap=True,
            label="Answers, milliseconds by stage, and millions of multiply-adds of the vision "
            "tower and the language model",
        )  # fmt: skip
        gr.Markdown(
            "Times are of one request on this machine. Multiply-adds are those of the vision tower "
            "and of the prompt's prefill; the choice of tokens is not counted. Methods inside the "
            "language model keep other tokens in every layer: their tokens are the mean over "
            "layers, and there is no picture."
        )

        def ask(path: str | None, asked: str, name: str, chosen: list[str], count: float) -> Any:
            return run_methods(models, path, asked, name, chosen, count)

        gr.on(
            [go.click, question.submit], ask, [image, question, model, methods, budget],
            [pictures, table], concurrency_limit=1, api_name="ask",
        )  # fmt: skip
    return page


def main() -> None:
    """Start the server; in a Space on the port that it names, else on 127.0.0.1 alone."""
    import tempfile

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--checkpoints", nargs="*", type=Path, default=[], metavar="FOLDER")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    parser.add_argument("--no-browser", action="store_true", help="print the address only")
    given = parser.parse_args()
    lacking = [str(path) for path in given.checkpoints if not (path / "config.json").is_file()]
    if lacking:
        parser.error(f"no config.json in {', '.join(lacking)}; name folders of checkpoints")
    models = POCKETS | {path.name: path for path in given.checkpoints}
    space = "SPACE_ID" in os.environ
    with tempfile.TemporaryDirectory() as folder:
        build(models, Path(folder)).queue(max_size=16).launch(
            server_name=None if space else "127.0.0.1",
            server_port=given.port,
            share=False,
            inbrowser=not (given.no_browser or space),
            max_file_size=MOST_BYTES,
            allowed_paths=[folder],
            mcp_server=False,
        )


if __name__ == "__main__":
    main()
