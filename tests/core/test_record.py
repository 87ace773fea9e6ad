import dataclasses

import pytest
import torch
from builders.synthetic import record

from prunesid import Kept, VisionRecord, compress
from prunesid.core.record import OPTIONAL, keep


def test_rows_pick_images_of_every_field():
    rec = record(images=4, grid=(4, 6))
    for rows in ([3, 1], torch.tensor([3, 1])):
        part = rec.rows(rows)
        assert len(part) == 2
        assert part.grid == (4, 6)
        assert part.image_ids == (rec.image_ids[3], rec.image_ids[1])
        assert torch.equal(part.features, rec.features[[3, 1]])
        assert torch.equal(part.cls_attention, rec.cls_attention[[3, 1]])
        assert torch.equal(part.hidden[1], rec.hidden[1][[3, 1]])
    part = rec.rows(slice(1, None, 2))
    assert part.image_ids == rec.image_ids[1::2]
    assert torch.equal(part.cls, rec.cls[1::2])


def test_every_optional_field_moves_along():
    shapes = {"cls": (4, 5), "cls_attention": (4, 2, 3), "keys": (4, 2, 3, 6)}
    shapes |= {"projected": (4, 3, 7), "joint": (4, 3, 8), "relevance": (4, 3)}
    shapes |= {"last_attention": (4, 3), "last_keys": (4, 3, 5)}
    shapes |= {"first_cls_attention": (4, 3), "last_cls_attention": (4, 3)}
    assert set(shapes) == set(OPTIONAL)
    given = {name: torch.randn(shape) for name, shape in shapes.items()}
    rec = VisionRecord(torch.zeros(4, 3, 5), **given)
    for name, value in given.items():
        assert torch.equal(getattr(rec.rows([3, 1]), name), value[[3, 1]])
        assert torch.equal(getattr(rec.rows(slice(2)), name), value[:2])
        assert getattr(rec.to(dtype=torch.float16), name).dtype == torch.float16


def test_bare_record():
    rec = VisionRecord(torch.zeros(2, 3, 4))
    assert len(rec.rows([1])) == 1
    assert rec.num_tokens == 3
    assert rec.to("cpu").cls is None


def test_to_changes_the_dtype_of_every_field():
    rec = record().to(dtype=torch.float16)
    tensors = (rec.features, rec.cls, rec.cls_attention, rec.hidden[1])
    assert all(tensor.dtype == torch.float16 for tensor in tensors)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": torch.zeros(3, 4)}, "features must be a non-empty"),
        ({"features": torch.zeros(2, 0, 4)}, "features must be a non-empty"),
        ({"features": torch.zeros(2, 3, 4).long()}, "floating point"),
        ({"cls": torch.zeros(2, 5)}, r"cls must be \(2, 4\), not \(2, 5\)"),
        ({"cls_attention": torch.zeros(2, 3)}, r"cls_attention must be \(2, \*, 3\)"),
        ({"keys": torch.zeros(2, 1, 9, 4)}, "keys must be"),
        ({"projected": torch.zeros(2, 9, 4)}, r"projected must be \(2, 3, \*\), not \(2, 9, 4\)"),
        ({"relevance": torch.zeros(2, 1, 3)}, r"relevance must be \(2, 3\)"),
        ({"last_attention": torch.zeros(2, 4)}, r"last_attention must be \(2, 3\)"),
        ({"last_cls_attention": torch.zeros(2, 2, 3)}, r"last_cls_attention must be \(2, 3\)"),
        ({"first_cls_attention": torch.zeros(2, 4)}, r"first_cls_attention must be \(2, 3\)"),
        ({"last_keys": torch.zeros(2, 3)}, r"last_keys must be \(2, 3, \*\)"),
        ({"hidden": {5: torch.zeros(1, 3, 4)}}, r"hidden\[5\] must be"),
        ({"grid": (2, 2)}, "grid .* does not hold 3 tokens"),
        ({"image_ids": ("a",)}, "1 image_ids for 2 images"),
    ],
)
def test_shapes_must_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(VisionRecord(torch.zeros(2, 3, 4)), **changes)


def test_kept_splits_and_joins():
    rec = record(images=3, tokens=10)
    kept = compress(rec, "grid", budget=torch.tensor([2, 5, 3]))
    assert [len(tokens) for tokens in kept.split()] == [2, 5, 3]
    assert kept.mask.sum(1).tolist() == [2, 5, 3]
    assert len(kept) == 3
    parts = [compress(rec.rows([i]), "grid", budget=n) for i, n in enumerate((2, 5, 3))]
    joined = Kept.cat(parts)
    assert torch.equal(joined.index, kept.index)
    assert torch.equal(joined.tokens, kept.tokens)
    assert torch.equal(joined.count, kept.count)


def test_batches_with_other_info_are_joined():
    whole = compress(record(tokens=9), "pool", budget=20)
    some = compress(record(tokens=20), "pool", budget=6)
    assert "members" not in whole.info
    joined = Kept.cat([whole, some])
    assert (joined.info["members"][: len(whole)] == -1).all()
    assert torch.equal(joined.info["members"][len(whole) :], some.info["members"])
    wider = Kept.cat([some, compress(record(tokens=20), "pool", budget=12)])
    members = wider.info["members"]
    first = some.info["members"]
    assert members.shape[1] > first.shape[1]
    assert torch.equal(members[: len(some), : first.shape[1], : first.shape[2]], first)
    assert (members[: len(some), first.shape[1] :] == -1).all()


def test_keep_orders_and_adds_the_cls_token():
    rec = record(images=1, tokens=4)
    rank = torch.tensor([[2, 0, 3, 1]])
    assert keep(rec, rank, torch.tensor([2])).index.tolist() == [[1, 3]]
    layout = torch.tensor([[0, 5, 1, 2]])
    kept = keep(rec, rank, torch.tensor([3]), layout=layout, cls_token=True)
    assert kept.index.tolist() == [[-1, 3, 1]]
    assert torch.equal(kept.tokens[0, 0], rec.cls[0])
    with pytest.raises(ValueError, match="pass cls_token=False"):
        keep(VisionRecord(rec.features), rank, torch.tensor([3]), cls_token=True)
