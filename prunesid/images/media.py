"""The images and clips of a question, from lmms-eval's visuals and from files.

clip = read_clip("video.mp4")  # 8 frames, evenly spread
media = media_of(task.doc_to_visual(doc))
"""

from __future__ import annotations

import io
import os
import struct
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")
FRAMES = 8
VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov"),
    *(".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm", ".wmv"),
)
# Limits on a data set's files: pixels of a picture, and frames and seconds of decoding of a video.
# Far beyond any benchmark, and low enough that a file is refused before the machine is exhausted.
MOST_PIXELS = 2**26
MOST_FRAMES = 2**20
MOST_SECONDS = 600.0
# Pillow's formats of `IMAGE_SUFFIXES`; others start programs (EPS) or are rare and little tested.
IMAGE_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
# FFmpeg's readers of `VIDEO_SUFFIXES`; others, such as playlists, open further files and addresses.
SAFE = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,matroska,avi,gif,flv,mpeg,mpegts,mpegvideo,ogg,asf",
}
# What decoders raise on files that are damaged, missing or of another kind.
BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
# The path of a video file, or its bytes.
VideoFile = str | os.PathLike[str] | bytes
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


class Unreadable(ValueError):
    """An image or video that is missing, damaged or too large to be read."""


@dataclass(frozen=True, eq=False)
class Clip:
    """F frames of one video, in the order of time.

    frames   (F, H, W, 3) uint8, RGB
    indices  the frames' numbers in the video, from 0; a number repeats if the video is too short
    total    number of frames of the video
    fps      frames per second of the video

    ValueError if they do not fit together.
    """

    frames: NDArray[np.uint8]
    indices: tuple[int, ...]
    total: int
    fps: float

    def __post_init__(self) -> None:
        shape = self.frames.shape
        if len(shape) != 4 or shape[-1] != 3 or 0 in shape or self.frames.dtype != np.uint8:
            raise ValueError(
                f"frames must be a non-empty (F, H, W, 3) uint8 array, not {shape} of "
                f"{self.frames.dtype}"
            )
        if len(self.indices) != len(self.frames):
            raise ValueError(f"{len(self.indices)} indices for {len(self.frames)} frames")
        if list(self.indices) != sorted(self.indices):
            raise ValueError(f"indices must not fall: {self.indices}")
        if self.indices[0] < 0 or self.indices[-1] >= self.total:
            raise ValueError(f"indices {self.indices} lie outside a video of {self.total} frames")
        if not self.fps > 0:
            raise ValueError(f"fps must be positive, not {self.fps}")

    @property
    def times(self) -> tuple[float, ...]:
        """Time of each frame, in seconds from the start of the video."""
        return tuple(index / self.fps for index in self.indices)

    @property
    def rate(self) -> float:
        """Frames of the clip per second of the video, by which Qwen2.5-VL times temporal patches.

        It equals `sampled_fps` of transformers' VideoMetadata.
        """
        return len(self.indices) / self.total * self.fps


def frame_indices(total: int, frames: int = FRAMES) -> tuple[int, ...]:
    """Numbers of `frames` frames spread evenly over a video of `total`, from the first to the last.

    One frame is the first.

    i (total - 1) / (frames - 1) rounded down, as Video-LLaVA samples with its decord reader
    (`np.linspace(0, total - 1, frames, dtype=int)`). A video of fewer frames repeats some.
    """
    if total < 1 or frames < 1:
        raise ValueError(f"cannot take {frames} frames of {total}; both must be at least 1")
    return tuple(int(index) for index in np.linspace(0, total - 1, frames, dtype=int))


def read_clip(path: VideoFile, frames: int = FRAMES) -> Clip:
    """`frames` frames of a video file, or of the bytes of one, spread evenly (`frame_indices`).

    Frames are taken as stored: a rotation that the file asks players for is not applied. If there
    are several video streams, the first is read. Unreadable, naming the file, if it is missing or
    damaged, too large (`MOST_PIXELS`, `MOST_FRAMES`, `MOST_SECONDS`), or holds no video.
    """
    import av

    deadline = time.monotonic() + MOST_SECONDS
    try:
        total = _packets(path, deadline)
        pictures, count, fps = _decode(path, frame_indices(total, frames), deadline)
        if pictures is None:
            # Some packets of the stream hold no frame to show; count those that do.
            pictures, _, fps = _decode(path, frame_indices(count, frames), deadline)
            total = count
    except (OSError, UnicodeError, av.FFmpegError) as error:
        raise Unreadable(f"video {_name(path)} cannot be read: {error}") from error
    if pictures is None:
        raise Unreadable(f"video {_name(path)} gives another number of frames each time")
    return Clip(pictures, frame_indices(total, frames), total, fps)


def media_of(visuals: Sequence[Any] | None, frames: int = FRAMES) -> tuple[Image | Clip, ...]:
    """The visuals that lmms-eval's `doc_to_visual` returns, as images and clips in the same order.

    Images stay as they are. A path is read as an image or as a clip of `frames` frames, by its
    suffix; bytes are those of a video file. Nested lists are flattened. None and an empty list
    give (), for a question without visuals. Unreadable, naming a file, if one cannot be read,
    ValueError on anything else.
    """
    return tuple(_medium(visual, frames) for visual in flat(visuals))


def flat(visuals: Sequence[Any] | None) -> list[Any]:
    """The visuals of a question in one flat list, without None.

    A task whose `doc_to_visual` names a field wraps that field in a list, even if it is a list or
    empty.
    """
    if not isinstance(visuals, (list, tuple)):
        return [] if visuals is None else [visuals]
    return [each for visual in visuals for each in flat(visual)]


def first_image(media: Sequence[Image | Clip]) -> Image:
    """The first image, or the first frame if the first medium is a clip; ValueError if none."""
    from PIL import Image

    if not media:
        raise ValueError("this question shows nothing")
    first = media[0]
    return Image.fromarray(first.frames[0]) if isinstance(first, Clip) else first


def _medium(visual: Any, frames: int) -> Image | Clip:
    from PIL import Image

    if isinstance(visual, Image.Image):
        _refuse_large("an image", *visual.size)
        try:
            # An image may have been opened but not read. Read it now, while its question is known.
            visual.load()
        except BROKEN as error:
            named = getattr(visual, "filename", "") or "in the data"
            raise Unreadable(f"image {named} cannot be read: {error}") from error
    if isinstance(visual, (Image.Image, Clip)):
        return visual
    if isinstance(visual, bytes):
        return read_clip(visual, frames)
    if not isinstance(visual, (str, os.PathLike)):
        raise ValueError(
            f"a question shows a {type(visual).__name__}; supported: PIL images and paths of image "
            "and video files, or the bytes of video files"
        )
    suffix = Path(visual).suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return read_clip(visual, frames)
    if suffix not in IMAGE_SUFFIXES:
        raise ValueError(
            f"{os.fspath(visual)}: unknown kind of file; images end in "
            f"{', '.join(IMAGE_SUFFIXES)}, videos in {', '.join(VIDEO_SUFFIXES)}"
        )
    try:
        with Image.open(visual, formats=IMAGE_FORMATS) as picture:
            _refuse_large(f"image {os.fspath(visual)}", *picture.size)
            return picture.convert("RGB")
    except _TooLarge:
        raise
    except (*BROKEN, Image.DecompressionBombError) as error:
        raise Unreadable(f"image {os.fspath(visual)} cannot be read: {error}") from error


class _TooLarge(Unreadable):
    """An image or video with more than `MOST_PIXELS` pixels."""


def _refuse_large(what: str, width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise _TooLarge(f"{what} has {width} x {height} pixels; at most {MOST_PIXELS:,} are read")


def _name(path: VideoFile) -> str:
    return f"of {len(path)} bytes" if isinstance(path, bytes) else os.fspath(path)


def _open(path: VideoFile) -> Any:
    import av

    return av.open(io.BytesIO(path) if isinstance(path, bytes) else os.fspath(path), options=SAFE)


def _in_time(path: VideoFile, packets: Iterable[T], deadline: float) -> Iterator[T]:
    """The packets or frames of a video; Unreadable if there are too many or the deadline passes."""
    for number, each in enumerate(packets):
        if number >= MOST_FRAMES or time.monotonic() > deadline:
            raise Unreadable(
                f"video {_name(path)} has more than {MOST_FRAMES:,} frames, or takes more than "
                f"{MOST_SECONDS:g} s to decode"
            )
        yield each


def _packets(path: VideoFile, deadline: float) -> int:
    """Number of packets of the first video stream; each is a frame, unless some are not shown."""
    with _open(path) as container:
        if not container.streams.video:
            raise Unreadable(f"video {_name(path)} holds no video stream")
        codec = container.streams.video[0].codec_context
        if codec is None:
            raise Unreadable(f"video {_name(path)} is of no kind that can be decoded")
        _refuse_large(f"video {_name(path)}", codec.width, codec.height)
        packets = _in_time(path, container.demux(video=0), deadline)
        total = sum(1 for packet in packets if packet.size)
    if not total:
        raise Unreadable(f"video {_name(path)} holds no frames")
    return total


def _decode(
    path: VideoFile, wanted: tuple[int, ...], deadline: float
) -> tuple[NDArray[np.uint8] | None, int, float]:
    """The wanted frames (F, H, W, 3), the number of frames decoded for them, and the stream's fps.

    The frames are None if the stream ends before the last one.
    """
    with _open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        # A frame may be larger than the file says.
        stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
        rate: Fraction | None = stream.average_rate or stream.guessed_rate
        if not rate:
            raise Unreadable(f"video {_name(path)} states no frame rate")
        fps = float(rate)
        width, height = stream.codec_context.width, stream.codec_context.height
        found: dict[int, NDArray[np.uint8]] = {}
        count = 0
        for frame in _in_time(path, container.decode(stream), deadline):
            if count in wanted:
                picture = frame.reformat(width=width, height=height, format="rgb24")
                found[count] = np.asarray(picture.to_ndarray(), np.uint8)
            count += 1
            if count > wanted[-1]:
                return np.stack([found[index] for index in wanted]), count, fps
    if not count:
        raise Unreadable(f"video {_name(path)} holds no frames")
    return None, count, fps
