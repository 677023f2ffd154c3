"""A fusion model over runs: pre-trained, fine-tuned, updated, fitted anew where an update forgets, and searched.

The catalogue has 60 items without files, whose vectors of two encoders tell the same latent factors.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from avrec_spark import columns as c
from avrec_spark import config, tables
from avrec_spark.encoders import registry
from avrec_spark.errors import DataError, SettingsError, UsageError
from avrec_spark.lakehouse import Lakehouse
from avrec_spark.models.base import Recommender
from avrec_spark.pipelines import find, look, runner
from avrec_spark.pipelines.rows import provenance
from avrec_spark.tracking import Tracking
from avrec_spark.training.warm_start import WarmStart
from tests.models.latent import behaviour, catalogue

# Jobs of a dozen runs: a minute on a quiet machine.
pytestmark = pytest.mark.slow

ENCODERS = {"visual": "palette", "audio": "optical-flow"}
QUICK = "train.parameters.fusion={dimension: 16, content_rank: 8, epochs: 6, batch_size: 256}"
ITEMS = 60


class Place:
    def __init__(self, spark, folder: Path) -> None:
        self.lakehouse, self.folder = Lakehouse(spark, str(folder / "lakehouse")), folder
        self.factors, self.features = catalogue(ITEMS, seed=1)

    def settings(self, *overrides: str) -> config.Settings:
        given = [
            f"catalog.source={self.folder / 'list.csv'}",
            f"events.source={self.folder / 'events'}",
            f"lakehouse.root={self.lakehouse.root}",
            "features.encoders=[palette, optical-flow]",
            "train.models=[fusion]",
            "train.launcher=in-process",
            "train.workers=1",
            QUICK,
        ]
        return config.load(None, [*given, *overrides], environment={})

    def run(self, jobs: list[str], run_id: str, *overrides: str) -> dict:
        runner.run(jobs, self.settings(*overrides), run_id)
        return json.loads(Path(self.lakehouse.path("manifests", run_id, f"{jobs[-1]}.json")).read_text())

    def act(self, name: str, users: int, each: int, day: int) -> None:
        rows = behaviour(self.factors, users, each, seed=day)
        rows["timestamp"] = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(
            day * 86_400 + rows["timestamp"], "s"
        )
        rows = rows.assign(item_id="i" + rows["item_id"].astype(str), user_id="u" + rows["user_id"].astype(str))
        (self.folder / "events").mkdir(exist_ok=True)
        rows.assign(event_type="like").to_json(
            self.folder / "events" / f"{name}.jsonl", orient="records", lines=True, date_format="iso"
        )

    def fusion(self, run_id: str) -> Recommender:
        (row,) = self.lakehouse.read(tables.MODELS).where(f"run_id = '{run_id}'").collect()
        tracking = Tracking(config.TrackingSettings(), self.lakehouse.root)
        return Recommender.load(tracking.download(row["model_uri"]) / "artifacts" / "model")


@pytest.fixture(scope="module")
def place(spark, tmp_path_factory) -> Place:
    """Items and their vectors, an encoder that was pre-trained on them, and a first day's model."""
    place = Place(spark, tmp_path_factory.mktemp("life"))
    listed = pd.DataFrame({"item_id": [f"i{n}" for n in range(ITEMS)]})
    tags = np.where(place.factors[:, 0] > 0.5, "loud", "quiet")
    listed.assign(uri=listed["item_id"] + ".mp4", tags=tags, title="about " + listed["item_id"]).to_csv(
        place.folder / "list.csv", index=False
    )
    place.run(["catalog"], "c1")
    for modality, encoder in ENCODERS.items():
        origin = provenance(registry.create(encoder, config.FeatureSettings()))
        rows = place.features[modality]
        frame = [(f"i{n}", *origin.values(), [float(x) for x in v]) for n, v in zip(*rows.to_numpy().T, strict=True)]
        schema = f"{c.ITEM_ID} string, {', '.join(f'{name} string' for name in origin)}, {c.VECTOR} array<float>"
        place.lakehouse.append(tables.ITEM_FEATURES, spark.createDataFrame(frame, schema))
    place.run(
        ["pretrain"], "p1", "train.parameters.fusion={dimension: 16, content_rank: 8, epochs: 60, batch_size: 32}"
    )
    place.act("first", users=60, each=8, day=1)
    place.run(["events", "snapshot", "train"], "first")
    return place


def test_an_encoder_is_pre_trained_without_events_and_a_fit_begins_with_it(place):
    start = WarmStart.load(place.lakehouse.path("pretrained", "p1"))
    assert start.aligned
    # A step that moves nothing: what the fit has is what was pre-trained.
    still = "train.parameters.fusion={dimension: 16, content_rank: 8, epochs: 1, learning_rate: 1.0e-09}"
    place.run(["train"], "t1", "train.start.model=p1", still)
    learnt = place.fusion("t1").learnt()
    for name, value in start.parameters.items():
        np.testing.assert_allclose(learnt.parameters[name], value, atol=1e-6)


def test_an_update_goes_on_from_an_earlier_run_and_one_that_forgets_gives_way_to_a_full_fit(place):
    place.act("second", users=70, each=5, day=2)
    start = ("train.start.model=first", "train.start.update=true", "train.start.epochs=2")
    updated = place.run(["events", "snapshot", "train"], "t2", *start, "train.start.most_forgotten=0.5")
    assert updated["update"]["accepted"]
    assert updated["update"]["older_before"] > 0.1
    assert len(place.fusion("t2").history) == 2
    assert len(place.fusion("t2").users) == 70
    wild = QUICK.replace("epochs: 6", "epochs: 6, learning_rate: 5.0")
    refused = place.run(["train"], "t3", *start, wild)
    assert not refused["update"]["accepted"]
    assert len(place.fusion("t3").history) > 2
    # What was written for the ranks is gone.
    assert {path.name[:6] for path in Path(place.lakehouse.path("snapshots")).iterdir()} & {"update", "pretra"} == set()


def test_a_start_that_is_not_there_or_not_for_fusion_is_refused(place):
    with pytest.raises(UsageError, match=r"no fusion model to start from at train\.start\.model=nowhere"):
        place.run(["train"], "t4", "train.start.model=nowhere")
    with pytest.raises(UsageError, match="pre-trained encoder, which has no behaviour to update"):
        place.run(["train"], "t5", "train.start.model=p1", "train.start.update=true")
    with pytest.raises(SettingsError, match=r"for the model fusion, which train\.models lacks"):
        place.run(["train"], "t6", "train.start.model=first", "train.models=[popular]")
    with pytest.raises(SettingsError, match="an update needs a model to start from"):
        config.load(overrides=["train.start.update=true"], environment={})


def test_what_one_modality_says_finds_items_by_another(place, monkeypatch, capsys):
    # The file is not there; its vector is that of an item, which its other modality must find.
    vector = np.stack(place.features["visual"]["vector"].tolist())[7:8]
    monkeypatch.setattr(find, "of_file", lambda settings, file: {"colour": vector, "smell": vector})
    found = find.find(place.settings(), None, "clip.mp4", (), "p1", 5)
    assert "i7" in found["item_id"].tolist()
    assert found["title"].tolist() == ["about " + item for item in found["item_id"]]
    look.show_found(place.settings(), None, "clip.mp4", ("motion",), "p1", 5)
    assert "about i7" in capsys.readouterr().out
    with pytest.raises(DataError, match="fitted without the loss align"):
        find.find(place.settings(), None, "clip.mp4", (), "first", 5)


def test_a_file_that_cannot_be_decoded_finds_nothing(tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no film")
    with pytest.raises(DataError, match="broken.mp4 cannot be used: "):
        find.of_file(config.FeatureSettings(encoders=("palette",)), str(tmp_path / "broken.mp4"))


def test_declared_tags_are_recommended_by_the_champion(place, capsys):
    with pytest.raises(UsageError, match="No model has been promoted"):
        look.show_tastes(place.settings("promote.registered_model=nobody"), ["loud"])
    place.run(["evaluate", "promote"], "first", "train.models=[fusion]")
    look.show_tastes(place.settings(), ["loud"])
    assert "about i" in capsys.readouterr().out
    with pytest.raises(UsageError, match="No item has any of the tags silent"):
        look.show_tastes(place.settings(), ["silent"])
