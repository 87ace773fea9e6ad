"""Small videos in which frame number f is told by its brightness."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def write_video(
    path: Path, frames: int, *, step: int = 8, size: tuple[int, int] = (48, 32), fps: int = 10
) -> Path:
    """`frames` plain frames of width and height `size`; frame f has brightness f * step."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    codec = {".gif": "gif", ".webm": "libvpx-vp9"}.get(path.suffix, "mpeg4")
    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height = width, height
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        for number in range(frames):
            picture = np.full((height, width, 3), number * step, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def write_clips(folder: Path, answers: Sequence[str] = ("sing",) * 4) -> Path:
    """Two clips with two questions each, in the file that `msvd_qa` reads from `folder`."""
    from prunesid.lmms.tasks.video_qa import convert

    names = ("first", "second")
    asked = [
        {"video_name": name, "question_id": f"{name}{n}", "question": "what is a man doing?"}
        for name in names
        for n in range(2)
    ]
    given = [
        {"question_id": question["question_id"], "answer": text, "type": 0}
        for question, text in zip(asked, answers, strict=True)
    ]
    for number, name in enumerate(names):
        write_video(folder / "videos" / f"{name}.mp4", 10 + 6 * number)
    (folder / "q.json").write_text(json.dumps(asked))
    (folder / "a.json").write_text(json.dumps(given))
    data = folder / "msvd_qa.parquet"
    convert(folder / "q.json", folder / "a.json", folder / "videos", data)
    return data
