"""Clips as video files."""

from __future__ import annotations

import io
from typing import Any

from prunesid.pocket.video.clips import MOMENTS, SIDE, Film, frames_at

FPS = 5
# H.264 in RGB without loss: the frames read are those that were drawn, on every machine.
_CODEC, _OPTIONS = "libx264rgb", {"crf": "0", "preset": "veryfast"}


def video_of(film: Film) -> bytes:
    """An MP4 file of 2 MOMENTS - 1 frames: the moments, and one frame between each two.

    One thread and no dates, so that a clip is the same to the byte wherever PyAV is of one version.
    """
    import av

    frames, _ = frames_at(film, [number / 2 for number in range(2 * MOMENTS - 1)])
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream(_CODEC, rate=FPS, options=_OPTIONS)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "rgb24"
        stream.thread_count = 1
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()
