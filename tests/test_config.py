from __future__ import annotations

from pathlib import Path

import pytest

from avrec_spark import config
from avrec_spark.errors import SettingsError, UsageError

REPOSITORY = Path(__file__).resolve().parent.parent


def test_the_default_file_says_exactly_what_the_code_says():
    assert config.load(REPOSITORY / "conf" / "default.yaml", environment={}) == config.Settings()


@pytest.mark.parametrize("path", sorted((REPOSITORY / "conf").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_settings_file_loads(path):
    config.load(path, environment={})


def test_settings_survive_a_round_trip_through_yaml(tmp_path):
    settings = config.load(overrides=["train.workers=4", "events.columns={user_id: uid}", "catalog.source=影片"])
    file = tmp_path / "settings.yaml"
    file.write_text(config.to_yaml(settings), encoding="utf-8")
    assert config.load(file, environment={}) == settings


def test_an_override_beats_the_environment_which_beats_the_file(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("train: {workers: 3, seed: 1}\nrecommend: {k: 7}\n")
    environment = {"AVREC_TRAIN__WORKERS": "5", "AVREC_TRAIN__SEED": "2", "PATH": "/bin"}
    settings = config.load(file, ["train.workers=6"], environment)
    assert (settings.train.workers, settings.train.seed, settings.recommend.k) == (6, 2, 7)


def test_an_unknown_setting_is_named_with_its_file_and_the_nearest_known_one(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("train: {wrokers: 3}\n")
    with pytest.raises(SettingsError) as error:
        config.load(file, environment={})
    assert str(error.value) == (
        f"Unknown setting train.wrokers in {file}. Did you mean workers? conf/default.yaml lists every setting."
    )


def test_an_impossible_value_is_named():
    with pytest.raises(SettingsError, match=r"Setting train\.workers in the settings cannot be 0: .*greater than"):
        config.load(overrides=["train.workers=0"], environment={})


def test_a_missing_settings_file_is_named():
    with pytest.raises(UsageError, match=r"nowhere\.yaml does not exist"):
        config.load("nowhere.yaml", environment={})


def test_equal_sections_have_equal_fingerprints_and_others_do_not():
    first, second = config.TrainSettings(), config.TrainSettings(workers=2)
    assert config.fingerprint(first) == config.fingerprint(second)
    assert config.fingerprint(first) != config.fingerprint(config.TrainSettings(workers=3))
