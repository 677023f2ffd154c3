"""Any folder of media, on the few real clips that `make data` brings."""

from __future__ import annotations

from pathlib import Path

import pytest

from avrec_spark import config, tables
from avrec_spark.lakehouse import Lakehouse
from avrec_spark.pipelines import runner

REPOSITORY = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def lakehouse(spark, data_folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("media")
    overrides = [f"catalog.source={data_folder / 'clips'}", f"lakehouse.root={root}"]
    settings = config.load(REPOSITORY / "conf" / "media.yaml", overrides, environment={})
    runner.run(runner.expand("media"), settings, "r")
    return Lakehouse(spark, str(root))


def test_every_real_clip_ends_ok_with_what_it_truly_is(lakehouse):
    titles = lakehouse.read(tables.ITEMS).select("item_id", "title")
    media = lakehouse.read(tables.MEDIA).join(titles, "item_id").toPandas().set_index("title")
    assert set(media["status"]) == {"ok"}
    bunny = media.loc["bigbuckbunny"]
    assert (bunny["width"], bunny["height"], bunny["video_codec"]) == (1280, 720, "h264")
    assert bunny["duration"] == pytest.approx(5.3, abs=0.1)
    # 176 pixels across, each 128/117 as wide as high.
    assert (media.loc["carphone_pristine", "width"], media.loc["carphone_pristine", "height"]) == (193, 144)


def test_a_clip_and_its_distorted_copy_are_nearest_neighbours_by_look(lakehouse):
    titles = lakehouse.read(tables.ITEMS).toPandas().set_index("item_id")["title"]
    near = lakehouse.read(tables.ITEM_NEIGHBOURS).where("kind = 'visual' AND rank = 1").toPandas()
    nearest = dict(zip(near["item_id"].map(titles), near["neighbour_id"].map(titles), strict=True))
    assert nearest["carphone_pristine"] == "carphone_distorted"
    assert nearest["carphone_distorted"] == "carphone_pristine"


def test_a_report_without_behaviour_says_so(lakehouse):
    page = Path(lakehouse.path("reports", "r", "index.html")).read_text()
    assert "This run read no behaviour." in page
    assert "This run made no recommendations." in page
    assert "data:image/jpeg;base64," in page


@pytest.mark.slow
def test_every_clip_of_a_large_real_folder_ends_ok_or_partial_with_a_reason(spark, tmp_path):
    folder = REPOSITORY.parent / "shared" / "data" / "media"
    if not folder.is_dir():
        pytest.skip(f"needs the folder of real clips {folder}")
    overrides = [f"catalog.source={folder}", f"lakehouse.root={tmp_path}"]
    settings = config.load(REPOSITORY / "conf" / "media.yaml", overrides, environment={})
    runner.run(["catalog", "features"], settings, "r")
    media = Lakehouse(spark, str(tmp_path)).read(tables.MEDIA).toPandas()
    assert len(media) == 52
    assert set(media["status"]) <= {"ok", "partial"}
    assert media.loc[media["status"] == "partial", "reason"].notna().all()
