"""The picture of kept patches: which arms and images, and that what is shown is what was kept."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from prunesid import VisionRecord, compress
from prunesid.core.record import Kept
from prunesid.images.medium import CENTER
from prunesid.images.patches import FADE, MERGED
from prunesid.study.config.arm import VANILLA, make_arm
from prunesid.study.config.documents import ConfigError
from prunesid.study.config.kept_patches import Patches, parse_patches
from prunesid.study.config.study import parse_study
from prunesid.study.files.kept import save_kept
from prunesid.study.files.kept_info import read_places
from prunesid.study.files.scenes import FirstCrop, KeptPatches, Scene
from prunesid.study.provenance.store import Store
from prunesid.study.report.kept_patches import (
    draw,
    group_color,
    kept_points,
    write_kept_patches,
)
from prunesid.study.report.panels import note_of
from prunesid.study.stages.patches import as_seen, read_scenes, spaced

DEFAULT = {"benchmark": None, "images": 2, "arms": None}
ARMS = {
    "a": (VANILLA, make_arm({"budget": 128})),
    "b": (VANILLA, make_arm({}), make_arm({"method": "grid"}), make_arm({"budget": 128})),
}
LABELS = {"budget-128": "PruneSID, 128 tokens"}


def test_the_usual_arms_are_those_that_the_study_has():
    found = parse_patches(DEFAULT | {"benchmark": "b"}, ARMS, LABELS)
    assert [(label, arm.name) for label, arm in found.columns] == [
        ("PruneSID: groups", "default"),
        ("uniform grid", "method-grid"),
    ]


def test_without_the_usual_arms_the_first_ones_are_shown():
    found = parse_patches(DEFAULT, ARMS, LABELS)
    assert found.benchmark == "a"
    assert [label for label, _ in found.columns] == ["PruneSID, 128 tokens"]


def test_every_paradigm_is_shown_where_the_study_has_it():
    methods = ("cls_topk", "visionzip", "prumerge", "divprune", "grid")
    arms = [make_arm(setting) for setting in (
        {}, {"preset": "matched"}, {"preset": "release"}, {"grouping": "random"},
        *({"method": method} for method in methods),
    )]  # fmt: skip
    found = parse_patches(DEFAULT, {"b": (VANILLA, *arms)}, LABELS)
    shown = [arm.method for _, arm in found.columns]
    assert shown == ["prunesid"] * 3 + list(methods)


def test_named_arms_have_to_be_arms_of_the_study():
    even = {"method": "grid", "label": "even"}
    found = parse_patches(DEFAULT | {"arms": [even], "benchmark": "b"}, ARMS, LABELS)
    assert found.columns[0][0] == "even"
    with pytest.raises(ConfigError) as caught:
        parse_patches(DEFAULT | {"arms": [even, {"budget": 32}], "benchmark": "b"}, ARMS, LABELS)
    (problem,) = caught.value.problems
    assert "budget-32" in problem and "method-grid" in problem
    with pytest.raises(ConfigError, match="Available: a, b"):
        parse_patches(DEFAULT | {"benchmark": "c"}, ARMS, LABELS)


def test_a_study_checks_its_picture_before_anything_runs():
    study = {"title": "t", "benchmarks": ["pocket_gqa"], "ablations": ["grouping"]}
    found = parse_study(study).patches
    assert [label for label, _ in found.columns] == ["PruneSID: groups", "random groups"]
    wrong = study | {"patches": {"arms": [{"method": "grid"}]}}
    with pytest.raises(
        ConfigError, match=r"patches\.arms: Unknown arm on pocket_gqa 'method-grid'"
    ):
        parse_study(wrong)


def test_images_are_spread_over_the_ranks_of_phi():
    phi = np.array([0.5, 0.9, 0.1, 0.7, 0.3, 0.8])
    assert [phi[i] for i in spaced(phi, 3)] == [0.3, 0.7, 0.9]
    assert len(spaced(phi, 9)) == 6


def test_the_tower_sees_the_middle_square():
    pixels = np.zeros((20, 60, 3), dtype=np.uint8)
    pixels[:, 20:40] = 200
    seen = as_seen(Image.fromarray(pixels), (10, 10), "center")
    assert seen.shape == (10, 10, 3)
    assert (seen == 200).all()


class Task:
    """Two images of one color each, as an lmms-eval task would give them."""

    def questions(self):
        from prunesid.core.questions import Question

        return [Question(str(i), f"img{i // 2}", "", {}, "yes", "") for i in range(4)]

    def image(self, question):
        shade = 60 * (1 + int(question.image_id[3:]))
        return Image.fromarray(np.full((8, 8, 3), shade, dtype=np.uint8))


class Source:
    def open(self):
        return Task()


@pytest.fixture
def scenes(tmp_path):
    store, grouped, plain = Store(tmp_path / "store"), make_arm({}), make_arm({"method": "grid"})
    index = torch.tensor([[0, 5, -1], [1, 2, 15]])
    tokens = torch.zeros(2, 3, 4)
    group = torch.arange(16).remainder(3).expand(2, 16).to(torch.int16)
    infos = {grouped.name: {"group": group}, plain.name: {}}
    keys = {
        name: store.put(
            {"arm": name},
            lambda path, info=info: save_kept(
                Kept(tokens, index, torch.tensor([2, 3]), info), path
            ),
            suffix=".safetensors",
        )
        for name, info in infos.items()
    }
    pd.DataFrame(
        {"benchmark": ["a", "b", "b"], "image_id": ["x", "img0", "img1"], "phi": [0.1, 0.9, 0.7]}
    ).to_parquet(tmp_path / "information.parquet")
    chosen = Patches("b", 2, (("PruneSID", grouped), ("even", plain)))
    crops = {f"img{row}": FirstCrop(keys, row, (4, 4), CENTER) for row in range(2)}
    return read_scenes(chosen, Source(), tmp_path / "information.parquet", crops, store)


def test_scenes_hold_what_the_store_holds(scenes):
    assert [(s.image_id, s.phi) for s in scenes] == [("img1", 0.7), ("img0", 0.9)]
    assert scenes[0].pixels.shape == (56, 56, 3)
    assert (scenes[0].pixels == 120).all() and (scenes[1].pixels == 60).all()
    grouped, plain = scenes[0].kept
    assert list(grouped.index) == [1, 2, 15]
    assert list(grouped.group[:4]) == [0, 1, 2, 0]
    assert plain.group is None


def test_the_points_are_the_kept_patches(scenes):
    data = kept_points(scenes)
    own = data[(data["image_id"] == "img0") & (data["arm"] == "PruneSID")]
    assert list(own["patch"]) == [0, 5]
    assert list(zip(own["row"], own["column"], strict=True)) == [(0, 0), (1, 1)]
    assert list(own["group"]) == [0, 2]
    assert set(data.loc[data["arm"] == "even", "group"]) == {""}


def test_kept_patches_stay_and_the_others_fade():
    random = np.random.default_rng(0)
    pixels = random.integers(0, 255, (56, 56, 3), dtype=np.uint8)
    scene = Scene("img", 0.5, pixels, (4, 4), (KeptPatches("arm", np.array([5, -1])),))
    ax = draw([scene]).axes[1]
    shown = np.asarray(ax.images[0].get_array())
    assert np.allclose(shown[14:28, 14:28], pixels[14:28, 14:28] / 255)
    assert shown[:14].min() >= FADE
    assert [len(collection.get_paths()) for collection in ax.collections] == [1]


def test_merged_tokens_are_shown_by_their_centers():
    pixels = np.random.default_rng(0).integers(0, 255, (56, 56, 3), dtype=np.uint8)
    kept = KeptPatches("arm", np.array([-1, 5, -1]), made=np.arange(16) == 3)
    scene = Scene("img", 0.5, pixels, (4, 4), (kept,))
    data = kept_points([scene])
    assert list(zip(data["patch"], data["merged"], strict=True)) == [(5, False), (3, True)]
    drawn = draw([scene])
    ax = drawn.axes[1]
    shown = np.asarray(ax.images[0].get_array())
    assert np.allclose(shown[:14, 42:], pixels[:14, 42:] / 255)
    assert np.allclose(ax.collections[0].get_edgecolor()[0, :3], to_rgb(MERGED))
    assert "center of a merged token" in note_of(drawn)
    plain = Scene("img", 0.5, pixels, (4, 4), (KeptPatches("arm", np.array([5])),))
    assert "merged" not in note_of(draw([plain]))


@pytest.mark.parametrize(("method", "centers"), [("visionzip", 1), ("prumerge", 11)])
def test_methods_that_merge_tell_their_centers(method, centers, tmp_path):
    draws = torch.Generator().manual_seed(0)
    record = VisionRecord(
        **{name: torch.randn((2, *shape), generator=draws).abs() for name, shape in {
            "features": (36, 8), "cls": (8,), "cls_attention": (2, 36), "keys": (2, 36, 4),
            "last_attention": (36,), "last_keys": (36, 8),
        }.items()}
    )  # fmt: skip
    kept = compress(record, method, budget=torch.tensor([12, 36]))
    save_kept(kept, tmp_path / "kept.safetensors")
    places = read_places(tmp_path / "kept.safetensors")
    assert places["selected"].sum(axis=1).tolist() == [centers, 0]
    shown = KeptPatches("", places["index"][0], made=places["selected"][0])
    own = shown.index[shown.index >= 0]
    # A center is no patch that is kept as well; one made token has no center (CLS, the extra one).
    assert not set(own) & set(shown.centers)
    assert len(own) + len(shown.centers) == 11


def test_frames_have_the_colors_of_their_groups():
    pixels = np.zeros((56, 56, 3), dtype=np.uint8)
    kept = KeptPatches("arm", np.array([0, 3, 7]), np.arange(16) % 4)
    ax = draw([Scene("img", 0.5, pixels, (4, 4), (kept,))]).axes[1]
    colors = ax.collections[0].get_edgecolor()[:, :3]
    assert np.allclose(colors, [group_color(g) for g in (0, 3, 3)])
    assert len({group_color(g) for g in range(48)}) == 48


def test_files_are_the_same_each_time(scenes, tmp_path):
    for folder in ("one", "other"):
        write_kept_patches(
            scenes, [tmp_path / folder / f"patches.{s}" for s in ("svg", "png", "csv")]
        )
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()
