import math
import warnings

import pytest
import torch
from builders.synthetic import record
from hypothesis import given, settings
from hypothesis import strategies as st

from prunesid import VisionRecord, compress
from prunesid.core.needs import Needs
from prunesid.core.parameters import Param
from prunesid.core.record import keep
from prunesid.methods import features
from prunesid.methods.features import is_random, register
from prunesid.methods.features.grid import grid_index
from prunesid.methods.registry import METHODS, requirements, resolve

SIMPLE = ("cls_topk", "grid", "random")


def test_the_methods():
    assert {"prunesid", *SIMPLE} <= set(features.list_feature_methods())
    assert is_random("random")
    assert not is_random("grid")
    assert not is_random("prunesid")
    assert is_random("prunesid", grouping="kmeans")
    assert is_random("prunesid", preset="release")
    assert requirements("cls_topk") == Needs(cls_attention=True)
    assert resolve("grid") == {}


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    method=st.sampled_from(SIMPLE),
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    budget=st.lists(st.integers(1, 90), min_size=2, max_size=2),
)
def test_budget_is_exact_in_raster_order_whatever_the_batch(method, rows, columns, budget):
    rec = record(tokens=rows * columns, channels=3, grid=(rows, columns))
    kept = compress(rec, method, budget=torch.tensor(budget))
    for i, n in enumerate(budget):
        count = min(n, rows * columns)
        index = kept.index[i, :count]
        assert kept.count[i] == count
        assert index.min() >= 0
        assert index.unique().tolist() == index.tolist()
        assert torch.equal(kept.tokens[i, :count], rec.features[i, index])
        alone = compress(rec.rows([i]), method, budget=n)
        assert torch.equal(alone.index[0], index)


def test_grid_is_uniform_in_both_directions():
    rows, columns = 24, 24
    assert grid_index(rows, columns, 64) == [
        24 * r + c for r in range(1, 24, 3) for c in range(1, 24, 3)
    ]
    for budget in (64, 128, 192):
        index = torch.tensor(grid_index(rows, columns, budget))
        points = torch.stack([index // columns, index % columns], dim=1).double()
        nearest = torch.cdist(points, points).fill_diagonal_(math.inf).amin(1)
        assert nearest.min() >= math.floor(math.sqrt(rows * columns / budget))


def test_random_is_nested_over_budgets_and_seeded_by_the_image():
    rec = record(images=2, tokens=50)
    small, large = (compress(rec, "random", budget=n, seed=5).index for n in (10, 30))
    assert set(small[0].tolist()) < set(large[0].tolist())
    assert small[0].tolist() != small[1].tolist()
    assert not torch.equal(compress(rec, "random", budget=10, seed=6).index, small)
    per_image = compress(rec, "random", budget=10, seed=[5, 6]).index
    assert torch.equal(per_image[0], small[0])
    assert not torch.equal(per_image[1], small[1])
    unnamed = VisionRecord(rec.features)
    both = compress(unnamed, "random", budget=10).index
    assert torch.equal(both[1:], compress(unnamed.rows([1]), "random", budget=10).index)


def test_cls_topk_takes_the_most_attended():
    rec = record(images=1, tokens=30)
    kept = compress(rec, "cls_topk", budget=7)
    expected = rec.cls_attention[0].double().sum(0).topk(7).indices.sort().values
    assert kept.index[0].tolist() == expected.tolist()


def test_unknown_names_give_the_choices():
    rec = record()
    with pytest.raises(ValueError, match=r"Did you mean 'prunesid'.*Available: .*random"):
        compress(rec, "prunsid", budget=4)
    with pytest.raises(ValueError, match=r"parameter of prunesid 'gruping'.*'grouping'"):
        compress(rec, "prunesid", budget=4, gruping="psca")
    with pytest.raises(ValueError, match=r"grouping 'kmean'.*'kmeans'.*Available: kmeans, psca"):
        compress(rec, "prunesid", budget=4, grouping="kmean")
    with pytest.raises(ValueError, match="num_groups must be at least 1"):
        compress(rec, "prunesid", budget=4, num_groups=0)
    with pytest.raises(ValueError, match="num_groups must be an integer"):
        compress(rec, "prunesid", budget=4, num_groups=2.5)
    with pytest.raises(ValueError, match="cls_token must be true or false"):
        compress(rec, "prunesid", budget=4, cls_token=1)
    with pytest.raises(ValueError, match="lam must be a finite number"):
        compress(rec, "prunesid", budget=4, lam=math.nan)
    with pytest.raises(ValueError, match="parameter of grid"):
        compress(rec, "grid", budget=4, step=2)


def test_missing_attention_is_said():
    with pytest.raises(ValueError, match=r"cls_topk needs cls_attention.*grid, .*prunesid, random"):
        compress(VisionRecord(record().features), "cls_topk", budget=4)


def test_a_budget_above_the_tokens_is_told():
    images = record(tokens=24)
    with pytest.warns(UserWarning, match="budget 25 exceeds the 24 tokens"):
        kept = compress(images, "prunesid", budget=25)
    assert kept.count.tolist() == [24, 24]
    with warnings.catch_warnings(action="error"):
        compress(images, "prunesid", budget=24)
        compress(images, "prunesid", budget=torch.tensor([25, 25]))


@pytest.mark.parametrize("budget", [0, -1, 2.0, True, "8", torch.tensor([4]), torch.ones(2)])
def test_budget_must_be_positive_integers(budget):
    with pytest.raises(ValueError, match="budget"):
        compress(record(), "grid", budget=budget)


@pytest.mark.parametrize("method", ["prunesid", *SIMPLE])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_infinity_raise(method, bad):
    rec = record()
    rec.features[1, 3, 2] = bad
    with pytest.raises(ValueError, match="features holds NaN or infinite"):
        compress(rec, method, budget=4)


def test_one_seed_per_image():
    with pytest.raises(ValueError, match="3 seeds for 2 images"):
        compress(record(), "random", budget=4, seed=[1, 2, 3])


def test_large_batches_are_cut_into_chunks(monkeypatch):
    rec = record(images=5, tokens=20)
    whole = compress(rec, "prunesid", budget=torch.tensor([3, 9, 4, 8, 5]))
    monkeypatch.setattr("prunesid.methods.features.CHUNK_ELEMENTS", 2 * 20**2)
    parts = compress(rec, "prunesid", budget=torch.tensor([3, 9, 4, 8, 5]))
    assert torch.equal(parts.index, whole.index)
    assert torch.equal(parts.tokens, whole.tokens)
    assert all(torch.equal(parts.info[name], whole.info[name]) for name in whole.info)


@pytest.fixture
def registry(monkeypatch):
    """The registry of methods; entries that a test adds are removed after it."""
    features.list_feature_methods()
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS._entries))
    return METHODS


def test_a_method_is_one_decorated_function(registry):
    @register("last", params={"step": Param(1, int, minimum=1)})
    def last(rec, budget, draws, *, step):
        rank = torch.arange(rec.num_tokens).flip(0).expand(len(rec), -1)
        return keep(rec, rank // step, budget)

    assert "last" in features.list_feature_methods()
    assert compress(record(), "last", budget=3).index.tolist() == [[21, 22, 23]] * 2
    with pytest.raises(ValueError, match="already is a method named 'last'"):
        register("last", params={"step": Param(1, int)})(last)


def test_plug_ins_come_by_entry_point_and_broken_ones_only_warn(registry, tmp_path, monkeypatch):
    (tmp_path / "first_tokens.py").write_text(
        "import torch\n"
        "from prunesid.methods.features import register\n"
        "from prunesid.core.record import keep\n"
        "@register('first')\n"
        "def first(record, budget, draws):\n"
        "    rank = torch.arange(record.num_tokens).expand(len(record), -1)\n"
        "    return keep(record, rank, budget)\n"
    )
    info = tmp_path / "first_tokens-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: first-tokens\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[prunesid.methods]\nfirst = first_tokens\nbroken = no_such_module\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_discovered", False)
    with pytest.warns(UserWarning, match="method plug-in 'broken': No module named"):
        assert "first" in features.list_feature_methods()
    assert compress(record(), "first", budget=2).index.tolist() == [[0, 1], [0, 1]]
