"""Many arms, one model: what is stored is not computed again, and a crash costs one arm."""

from __future__ import annotations

import pytest
from builders.tiny_llava import random_images

from prunesid import families
from prunesid.core.questions import Question, read_answers
from prunesid.generate.engine import answer
from prunesid.study.provenance.store import Store
from prunesid.study.stages.arm_answers import Job, answer_arms, answer_material, missing

IMAGES = ("a", "b", "c")
QUESTIONS = [
    Question(f"{number}{image}", image, context, {"max_new_tokens": 3})
    for number, context in enumerate(("is there a red circle ?", "how many ?"))
    for image in IMAGES
]


@pytest.fixture(scope="module")
def adapter(tiny_llava):
    return families.load(tiny_llava)


@pytest.fixture(scope="module")
def records(adapter):
    return adapter.encode(adapter.preprocess(random_images(3)), names=IMAGES)


def material(**arm):
    return answer_material(arm=arm, benchmark="b", model="m", batch_size=2, code="c")


def job(records, name, calls, **arm):
    def kept():
        calls.append(name)
        return records.compress(**arm) if arm else records.all_tokens()

    return Job(name, material(**arm), kept)


def run(adapter, records, jobs, store):
    return answer_arms(adapter, jobs, records.inputs, QUESTIONS, store, batch_size=2, quiet=True)


def test_answers_are_stored_and_only_new_arms_are_computed(adapter, records, tmp_path):
    store, calls = Store(tmp_path), []
    jobs = [
        job(records, "vanilla", calls),
        job(records, "default", calls, method="prunesid", budget=4),
    ]
    keys = run(adapter, records, jobs, store)
    assert calls == ["vanilla", "default"] and list(keys) == calls
    for name, kept in (("vanilla", jobs[0].kept()), ("default", jobs[1].kept())):
        assert read_answers(store.get(keys[name])) == answer(
            adapter, kept, records.inputs, QUESTIONS
        )

    calls.clear()
    jobs.append(job(records, "method-grid", calls, method="grid", budget=4))
    assert missing(jobs, store) == jobs[2:]
    again = run(adapter, records, jobs, store)
    assert calls == ["method-grid"]
    assert {name: again[name] for name in keys} == keys


def test_a_crash_costs_the_arm_in_progress(adapter, records, tmp_path):
    store, calls = Store(tmp_path), []
    jobs = [job(records, "vanilla", calls), job(records, "grid", calls, method="grid", budget=4)]

    def crash():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(adapter, records, [jobs[0], Job("grid", jobs[1].material, crash)], store)
    assert missing(jobs, store) == jobs[1:]
    calls.clear()
    run(adapter, records, jobs, store)
    assert calls == ["grid"]


def test_the_same_answers_give_the_same_bytes(adapter, records, tmp_path):
    jobs = [job(records, "grid", [], method="grid", budget=4)]
    stores = [Store(tmp_path / name) for name in ("one", "two")]
    paths = [store.get(run(adapter, records, jobs, store)["grid"]) for store in stores]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_the_material_tells_arms_and_settings_apart():
    one = material(budget=4)
    assert Store.key(one) == Store.key(material(budget=4))
    assert Store.key(one) != Store.key(material(budget=5))
    assert Store.key(one) != Store.key({**one, "batch_size": 3})


def test_names_are_unique(adapter, records, tmp_path):
    with pytest.raises(ValueError, match="same name"):
        run(adapter, records, [job(records, "a", []), job(records, "a", [])], Store(tmp_path))
