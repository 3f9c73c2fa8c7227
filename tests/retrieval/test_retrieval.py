"""Search is evaluated on labelled sets: every method is scored, ties count right, parts are kept apart."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_made import bigearthnet, classes, sentinel
from PIL import Image
from typer.testing import CliRunner

from geostore.cli.app import app
from geostore.errors import InvalidInput
from geostore.index.descriptors.spectral import Spectral
from geostore.index.evaluation import average_precision, hits_expected, lenient_precision, strict_precision
from geostore.index.milan import project_published, train_published
from geostore.retrieval import METHODS, PUBLISHED_VIEWED, describe, evaluate, retrieval, sampled
from geostore.scene.labelled import LabelledScene, find_labelled, pixels_of

QUICK = {"bits": (32,), "steps": 20, "published_steps": 20}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """18 scenes of 3 classes."""
    return classes(tmp_path_factory.mktemp("classes"))


def test_every_method_is_scored_on_its_own_part(folder):
    """Classes that look different are found; database and queries share no scene."""
    found = retrieval(folder, **QUICK, train_share=0.5)
    assert (found.facts["database"], found.facts["queries"], found.facts["labels"]) == (9, 9, 3)
    assert {s.method for s in found.scores} == {"descriptor", "ceiling", *METHODS} - {PUBLISHED_VIEWED}
    assert [said.split(":")[0] for said in found.left_out] == [f"{PUBLISHED_VIEWED} at 32 bits"]
    best = found.score("descriptor")
    assert best.map > 0.9
    assert best.precision[1] > 0.9
    assert best.recall[100] == 1
    assert all(0 <= s.map_strict <= s.map <= 1 for s in found.scores)
    assert found.score("ceiling", 64) is None


def test_a_descriptor_with_weights_learns_from_the_training_part(folder, monkeypatch):
    """It is trained on as many scenes as the part has, without their labels, and then describes all."""
    seen = []
    monkeypatch.setattr("geostore.index.descriptors.simsiam.STEPS", 1)
    found = retrieval(folder, descriptor="simsiam", bits=(32,), methods=(), progress=lambda what, _: seen.append(what))
    assert (found.facts["descriptor"], found.facts["width"]) == ("simsiam-1", 128)
    assert seen.index("training simsiam") < seen.index("describing scenes")


class Rows:
    """Means of eight strips from top to bottom: it sees which way its pixels lie."""

    name, version = "rows", 1

    def width(self, bands):
        return 8 * len(bands)

    def describe(self, pixels, valid, bands):
        made = np.concatenate([strip.mean(axis=(1, 2)) for strip in np.array_split(pixels / 255.0, 8, axis=1)])
        return (made / np.linalg.norm(made)).astype(np.float32)


def test_scenes_of_the_database_are_described_turned_too(tmp_path):
    """In every other way; none that are asked for, and nothing for a descriptor that does not see the way."""
    for number in range(8):
        (tmp_path / f"class {number}").mkdir()
        for scene in range(4):
            pixels = np.random.default_rng([number, scene]).integers(0, 30 * number + 20, (32, 32, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"class {number}" / f"{number}_{scene}.png")
    labelled = find_labelled(tmp_path)
    described = describe(labelled, Rows(), train_share=0.5)
    assert (described.views.of == np.repeat(np.arange(16), 7)).all()
    first = np.flatnonzero(described.train)[0]
    upside_down = pixels_of(labelled, labelled.scenes[first])[:, ::-1]
    far = np.abs(described.views.vectors[:7] - Rows().describe(upside_down, None, labelled.bands)).max(axis=1)
    assert (far < 1e-6).sum() == 1 + 1  # mirroring left and right leaves strips as they are
    assert len(describe(labelled, Spectral(), train_share=0.5).views) == 0
    assert len(describe(labelled, Rows(), methods=("itq",), train_share=0.5).views) == 0
    found = evaluate(described, bits=(32,), methods=("learned", PUBLISHED_VIEWED), published_steps=5)
    assert not found.left_out


def test_parts_of_the_set_are_kept_and_validation_is_in_neither(folder, tmp_path):
    """Lists decide; what they leave out is not asked for and not found."""
    classes(tmp_path / "set")
    for part, numbers in (("train", (0, 1, 2)), ("val", (3,)), ("test", (4, 5))):
        names = [f"{c}{n:02d}" for c in ("forest", "harbor", "river") for n in numbers]
        (tmp_path / "set" / f"{part}.txt").write_text("\n".join(names))
    described = describe(find_labelled(tmp_path / "set"), Spectral())
    assert (described.train.sum(), described.test.sum()) == (9, 6)
    assert not (described.train & described.test).any()
    assert described.facts["parts"] == "of the set"


def test_scenes_that_share_a_label_are_relevant(tmp_path):
    """Several labels a scene: one in common is enough."""
    names = {f"S2A_1_{i}": ["Forest", "Water"] if i % 2 else ["Water"] for i in range(8)}
    described = describe(find_labelled(bigearthnet(tmp_path, names)), Spectral(), train_share=0.5)
    found = evaluate(described, bits=(32,), methods=("rotation",))
    assert found.scores[0].recall[100] == 1
    assert found.scores[0].map == 1.0


def test_a_sample_has_every_class_alike():
    """A tenth of a set is a tenth of each class, in its order, and no more than was asked for."""
    scenes = [LabelledScene(f"{c}{i}", (c,), "", ()) for c in "ab" for i in range(100)]
    kept = sampled(scenes, 20, 0)
    assert [s.labels[0] for s in kept] == ["a"] * 10 + ["b"] * 10
    assert sampled(scenes, 200, 0) == scenes
    with pytest.raises(InvalidInput, match="at least 2"):
        sampled(scenes, 1, 0)


def test_what_cannot_be_run_is_named(folder):
    """More bits than components are left out with the reason; a method that does not exist is refused."""
    found = retrieval(folder, bits=(64,), methods=("itq",))
    assert found.left_out[0].startswith("itq at 64 bits: 64 bits of")
    with pytest.raises(InvalidInput, match="use some of"):
        retrieval(folder, methods=("best",))
    with pytest.raises(InvalidInput, match="both parts need some"):
        retrieval(folder, train_share=0.01)


def test_the_verb_prints_a_table_and_json(folder):
    """`geostore bench retrieval` for people and for programs."""
    command = ["bench", "retrieval", str(folder), "--bits", "32", "--method", "rotation"]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0, shown.output
    assert "lenient (MiLaN)" in shown.output
    fields = json.loads(CliRunner().invoke(app, [*command, "--json"]).output)
    assert [s["method"] for s in fields["scores"]] == ["descriptor", "rotation"]
    refused = CliRunner().invoke(app, ["bench", "retrieval", str(folder / "forest" / "none")])
    assert refused.exit_code == 4


def _eurosat(folder):
    for level, name in ((800, "Forest"), (3000, "River")):
        (folder / name).mkdir(parents=True)
        for number in range(4):
            sentinel(folder / name / f"{name}_{number}.tif", 13, level=level, seed=number)


LAYOUTS = {
    "UC Merced": lambda to: classes(to / "UCMerced_LandUse" / "Images", suffix=".tif"),
    "RESISC45": lambda to: classes(to / "NWPU-RESISC45"),
    "AID": lambda to: classes(to / "AID", suffix=".png"),
    "EuroSAT": lambda to: _eurosat(to / "EuroSAT_MS"),
    "BigEarthNet": lambda to: bigearthnet(to / "BigEarthNet-S2" / "S2A_T33UUP", {
        f"S2A_T33UUP_{i}": ["Forest", "Water"] if i % 2 else ["Pastures"] for i in range(8)
    }),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_verb_takes_each_public_set_as_it_unpacks(name, tmp_path):
    """Generated scenes in the folders of the five sets, given the folder above them: every class is found again."""
    LAYOUTS[name](tmp_path)
    command = ["bench", "retrieval", str(tmp_path), "--bits", "32", "--method", "rotation", "--train-share", "0.5"]
    shown = CliRunner().invoke(app, [*command, "--json"])
    assert shown.exit_code == 0, shown.output
    fields = json.loads(shown.output)
    assert fields["facts"]["layout"] == ("bigearthnet" if name == "BigEarthNet" else "classes")
    assert fields["facts"]["database"] == fields["facts"]["queries"]
    assert fields["scores"][0]["map"] > 0.9


def test_the_published_recipe_learns(folder):
    """A few hundred of its steps bring classes together that differ; a sigmoid above a half is a set bit."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(4), 30)
    points = (rng.normal(size=(4, 16))[groups] + 0.3 * rng.normal(size=(120, 16))).astype(np.float32)
    scaling, layers = train_published(points, groups, 32, steps=60)
    bits = project_published(scaling, layers, points) > 0
    far = (bits[:, None] != bits[None]).mean(axis=2)
    same = groups[:, None] == groups[None]
    assert far[same].mean() < far[~same].mean() - 0.1


ROWS = st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=9)


@settings(max_examples=80, deadline=None)
@given(ROWS, st.integers(1, 10))
def test_measures_agree_with_each_other(rows, k):
    """Property: worst order <= expectation; without ties both are the same; the lenient one is never less than them."""
    far, relevant = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows])
    assert strict_precision(far, relevant, k) <= average_precision(far, relevant, k) + 1e-12
    apart = np.arange(len(rows), dtype=float)
    plain = average_precision(apart, relevant, k)
    assert strict_precision(apart, relevant, k) == pytest.approx(plain)
    assert lenient_precision(apart, relevant, k) >= plain - 1e-12
    assert hits_expected(apart, relevant, k) == relevant[:k].sum()
    assert hits_expected(far, relevant, len(rows)) == pytest.approx(relevant.sum())


def test_the_lenient_measure_calls_one_of_twenty_perfect():
    """The fault that makes it lenient: what was not found does not count."""
    relevant = np.zeros(40, bool)
    relevant[[0, *range(21, 40)]] = True
    far = np.arange(40.0)
    assert lenient_precision(far, relevant, 20) == 1
    assert average_precision(far, relevant, 20) == pytest.approx(1 / 20)
