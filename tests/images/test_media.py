"""Clips hold the frames that they declare, and lmms-eval's visuals become images and clips."""

from __future__ import annotations

import numpy as np
import pytest
from builders.videos import write_video
from PIL import Image

from prunesid.images import media
from prunesid.images.media import Clip, frame_indices, media_of, read_clip


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv", ".webm", ".gif"])
def test_a_clip_holds_the_frames_of_its_indices(tmp_path, suffix):
    clip = read_clip(write_video(tmp_path / f"video{suffix}", 29))
    assert clip.frames.shape == (8, 32, 48, 3) and clip.frames.dtype == np.uint8
    assert clip.indices == (0, 4, 8, 12, 16, 20, 24, 28)
    assert clip.total == 29
    # gif has 8 levels of red and green, so a frame's brightness is known to half a level.
    tolerance = 20 if suffix == ".gif" else 4
    brightness = clip.frames.mean(axis=(1, 2, 3))
    assert np.abs(brightness - 8 * np.array(clip.indices)).max() <= tolerance


def test_frames_are_spread_evenly_ends_included():
    for total in (1, 2, 7, 8, 9, 100, 3001):
        for frames in (1, 2, 8, 16):
            expected = np.linspace(0, total - 1, frames, dtype=int).tolist()
            assert list(frame_indices(total, frames)) == expected
    assert frame_indices(1000, 8)[-1] == 999
    for wrong in ((0, 8), (8, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            frame_indices(*wrong)


def test_a_short_video_repeats_frames(tmp_path):
    clip = read_clip(write_video(tmp_path / "short.mp4", 3), frames=6)
    assert clip.indices == (0, 0, 0, 1, 1, 2)
    assert np.array_equal(clip.frames[0], clip.frames[2])
    assert not np.array_equal(clip.frames[2], clip.frames[3])


def test_times_and_rate_follow_the_frame_rate(tmp_path):
    clip = read_clip(write_video(tmp_path / "video.mp4", 21, fps=10), frames=5)
    assert clip.fps == 10
    assert clip.times == pytest.approx((0.0, 0.5, 1.0, 1.5, 2.0))
    assert clip.rate == pytest.approx(5 / 2.1)
    from transformers.video_utils import VideoMetadata

    theirs = VideoMetadata(total_num_frames=21, fps=10, frames_indices=list(clip.indices))
    assert clip.rate == theirs.sampled_fps
    assert list(clip.times) == theirs.timestamps


def test_packets_that_show_nothing_do_not_count(tmp_path, monkeypatch):
    path = write_video(tmp_path / "video.mp4", 21)
    plain = read_clip(path)
    monkeypatch.setattr(media, "_packets", lambda path, deadline: 25)
    clip = read_clip(path)
    assert (clip.indices, clip.total) == (plain.indices, 21)
    assert np.array_equal(clip.frames, plain.frames)


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"missing\.mp4 cannot be read"):
        read_clip(tmp_path / "missing.mp4")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all" * 100)
    with pytest.raises(ValueError, match=r"broken\.mp4 cannot be read"):
        read_clip(broken)
    cut = write_video(tmp_path / "cut.mp4", 20)
    cut.write_bytes(cut.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"cut\.mp4"):
        read_clip(cut)


def test_a_file_without_video_says_so(tmp_path):
    import av

    path = tmp_path / "sound.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        stream.layout = "mono"
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(ValueError, match=r"sound\.mkv holds no video stream"):
        read_clip(path)


def test_visuals_become_media_in_their_order(tmp_path):
    video = write_video(tmp_path / "video.mp4", 10)
    picture = Image.new("RGB", (5, 4), (10, 20, 30))
    picture.save(tmp_path / "picture.PNG")
    first, second, third = media_of([picture, str(video), tmp_path / "picture.PNG"], frames=4)
    assert first is picture
    assert isinstance(second, Clip) and second.indices == (0, 3, 6, 9)
    assert np.array_equal(np.asarray(third), np.asarray(picture))
    assert media_of([[picture], None, [[picture]]]) == (picture, picture)
    assert media_of(None) == media_of([]) == media_of([[], None]) == ()


def test_other_visuals_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"unknown kind of file; images end in .*\.png.*\.mp4"):
        media_of(["talk.mp3"])
    with pytest.raises(ValueError, match="shows a dict; supported: PIL images and paths"):
        media_of([{"array": [0.0], "sampling_rate": 16000}])
    (tmp_path / "no.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"no\.png cannot be read"):
        media_of([tmp_path / "no.png"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": np.zeros((2, 4, 4, 3))}, "uint8"),
        ({"frames": np.zeros((2, 3, 4, 4), np.uint8)}, r"\(F, H, W, 3\)"),
        ({"indices": (0,)}, "1 indices for 2 frames"),
        ({"indices": (3, 1)}, "must not fall"),
        ({"indices": (0, 9)}, "outside a video of 9 frames"),
        ({"fps": 0.0}, "fps must be positive"),
    ],
)
def test_a_clip_checks_itself(change, message):
    fitting = {"frames": np.zeros((2, 4, 4, 3), np.uint8), "indices": (0, 8), "total": 9, "fps": 5}
    Clip(**fitting)
    with pytest.raises(ValueError, match=message):
        Clip(**fitting | change)


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [
        ("MOST_PIXELS", 1000, "has 48 x 32 pixels; at most 1,000 are read"),
        ("MOST_FRAMES", 5, "has more than 5 frames"),
        ("MOST_SECONDS", -1.0, "takes more than -1 s to decode"),
    ],
)
def test_a_video_beyond_the_limits_is_refused(tmp_path, monkeypatch, limit, value, message):
    path = write_video(tmp_path / "video.mp4", 10)
    monkeypatch.setattr(media, limit, value)
    with pytest.raises(ValueError, match=message):
        read_clip(path)


def test_frames_that_are_larger_than_the_file_says_are_not_decoded(tmp_path, monkeypatch):
    path = write_video(tmp_path / "video.mp4", 10)
    monkeypatch.setattr(media, "MOST_PIXELS", 1000)
    monkeypatch.setattr(media, "_refuse_large", lambda *known: None)
    with pytest.raises(ValueError, match=r"video\.mp4"):
        read_clip(path)


def test_an_image_beyond_the_limit_is_refused_before_it_is_decoded(tmp_path):
    """A few bytes may say that they are any number of pixels."""
    head = b"P5 200000 200000 255\n"
    bitmap = b"BM" + (54).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little")
    side = (20_000).to_bytes(4, "little")
    bitmap += (40).to_bytes(4, "little") + side + side + b"\x01\x00\x18\x00" + bytes(24)
    (tmp_path / "large.bmp").write_bytes(bitmap)
    with pytest.raises(ValueError, match=r"large\.bmp (has|cannot be read)"):
        media_of([tmp_path / "large.bmp"])
    # Not by its name, but by what it holds: Pillow would read any of its formats.
    (tmp_path / "other.png").write_bytes(head + bytes(10))
    with pytest.raises(ValueError, match=r"other\.png cannot be read"):
        media_of([tmp_path / "other.png"])


@pytest.mark.parametrize("kind", ["playlist", "list of files", "address"])
def test_a_video_opens_no_other_file_or_address(tmp_path, kind):
    inside = write_video(tmp_path / "inside.ts", 10)
    text = {
        "playlist": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{inside}\n#EXT-X-ENDLIST\n",
        "list of files": f"ffconcat version 1.0\nfile '{inside.name}'\n",
        "address": "",
    }[kind]
    path = tmp_path / "video.mp4"
    path.write_text(text)
    with pytest.raises(ValueError, match="cannot be read"):
        read_clip("http://127.0.0.1:9/video.mp4" if kind == "address" else path)
