"""Typed settings: a YAML file < the environment (`AVREC_…`) < `--set key=value`.

Unknown keys and impossible values stop a job before Spark starts. `conf/default.yaml` lists every setting with its
default and a comment; the files beside it only say what differs.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from avrec_spark.errors import SettingsError, UsageError, closest

ENVIRONMENT_PREFIX = "AVREC_"


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CatalogSettings(Section):
    source: str | None = Field(None, description="folder of media files, or a CSV/Parquet list with a column uri")
    extensions: tuple[str, ...] = Field(
        (
            *("mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ts", "flv", "wmv", "3gp", "ogv"),
            *("mp3", "m4a", "aac", "wav", "flac", "ogg", "opus", "wma"),
        ),
        description="what counts as media in a folder; other files go to quarantine",
    )


class EventSettings(Section):
    source: str | None = Field(None, description="CSV, JSON lines (.jsonl, .json) or Parquet; a file or a folder")
    columns: dict[str, str] = Field(
        default_factory=dict, description="our name: your name, where yours differs, e.g. {user_id: uid}"
    )
    weights: dict[str, float] = Field(
        default_factory=lambda: {
            "view": 1.0,
            "like": 2.0,
            "favourite": 2.0,
            "share": 3.0,
            "comment": 1.5,
            "follow": 2.0,
            "purchase": 4.0,
            "tip": 4.0,
            "rating": 1.0,
            "skip": 0.0,
            "dislike": 0.0,
            "impression": 0.0,
        },
        description="preference that one event of the type expresses; unlisted types are refused",
    )
    completed_seconds: float = Field(
        5.0, gt=0, description="a view counts in full from this many watched seconds, and pro rata below"
    )
    max_watch_seconds: float = Field(86_400.0, gt=0, description="longer watch times are refused as impossible")
    future_tolerance_seconds: float = Field(300.0, ge=0, description="how far a clock may run ahead of arrival")


class LakehouseSettings(Section):
    root: str = Field("lakehouse", description="where tables, snapshots, manifests and reports lie")


class SparkSettings(Section):
    master: str | None = Field(None, description="null: what spark-submit or the cluster says, else local[2,4]")
    app_name: str = "avrec"
    jars_dir: str | None = Field(None, description="folder of Delta JARs; null: those in pyspark's own jars folder")
    conf: dict[str, str] = Field(default_factory=dict, description="any further Spark setting")


class LocalModel(Section):
    """A folder of weights of one's own, in the layout of the library transformers."""

    path: str = Field(description="folder with config.json and weights")
    reads: Literal["frames", "sound", "text"] = "frames"


class FeatureSettings(Section):
    encoders: tuple[str, ...] = Field(
        ("efficientnet-lite0", "palette", "optical-flow", "librosa", "e5-text"),
        description="names in avrec_spark.encoders.registry, or in local_models",
    )
    local_models: dict[str, LocalModel] = Field(
        default_factory=dict, description="name: {path: FOLDER, reads: frames, sound or text}; encoders of your own"
    )
    whisper_model: str | None = Field(
        None, description="folder of a faster-whisper model; null: the tiny English one that a wheel brings"
    )
    max_key_frames: int = Field(8, ge=1, description="key frames encoded a file, or a range of a long one")
    sample_rate: int = Field(22_050, gt=0, description="Hz, mono")
    thumbnail_width: int = Field(192, ge=16)
    shots: Literal["fast", "transnetv2"] = Field("fast", description="transnetv2 reads every frame")
    range_seconds: float = Field(600.0, ge=30, multiple_of=10, description="longer files are decoded in such ranges")
    max_seconds: float = Field(14_400.0, gt=0, description="how much of a file is described, from its beginning")
    max_pixels: int = Field(8_294_400 * 4, gt=0, description="largest frame (width × height) that is decoded")
    max_bytes: int = Field(2**38, gt=0, description="largest file that is opened")
    max_memory_mib: int = Field(1536, ge=256, description="memory that a decoder may take")
    timeout_seconds: float = Field(180.0, gt=0, description="wall time that a file, or a range, may take to decode")
    protocols: tuple[str, ...] = Field(
        ("file", "s3", "s3a", "gs", "gcs", "abfs", "abfss"),
        description="places that media may be read from, by the protocol of their URIs (fsspec)",
    )
    cache_folder: str | None = Field(None, description="for what is read from object stores; null: a temporary folder")
    cache_mib: int = Field(1024, ge=0, description="largest size of that cache, a machine; 0: none")
    seconds_per_task: float = Field(5.0, gt=0, description="estimated work packed into a Spark task, at least")
    commit_seconds: float = Field(
        300.0, gt=0, description="estimated time between two commits; an interrupted run goes on after the last one"
    )


class SnapshotSettings(Section):
    split: Literal["time", "random"] = Field("time", description="hold out each user's latest, or random, items")
    validation_share: float = Field(0.1, gt=0, lt=0.5)
    test_share: float = Field(0.2, gt=0, lt=0.5)
    seed: int = 42
    row_groups: int = Field(8, ge=1, description="row groups of the training part; at least one a rank")


class TrainSettings(Section):
    models: tuple[str, ...] = ("popular", "sar", "als", "ease", "mf", "fusion")
    parameters: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="model: {parameter: value}, over the model's own defaults"
    )
    launcher: Literal["horovod", "in-process"] = "horovod"
    workers: int = Field(2, ge=1, description="ranks, each in its own Spark task slot")
    start_timeout_seconds: int = Field(60, ge=1)
    seed: int = 42


class EvaluateSettings(Section):
    ks: tuple[int, ...] = (10, 20)
    executor: Literal["spark", "numpy"] = "spark"
    bootstrap_samples: int = Field(200, ge=0, description="for the 95 % intervals over users; 0: none")


class PromoteSettings(Section):
    metric: str = Field("ndcg@10", description="validation metric that decides")
    registered_model: str = "avrec-recommender"


class RecommendSettings(Section):
    k: int = Field(20, ge=1)
    users_per_task: int = Field(20_000, ge=1)


class NeighbourSettings(Section):
    k: int = Field(10, ge=1)


class TrackingSettings(Section):
    uri: str | None = Field(None, description="MLflow tracking server; null: sqlite under lakehouse.root")
    experiment: str = "avrec"


class ReportSettings(Section):
    users: int = Field(6, ge=0, description="users shown with history and recommendations")
    contact_sheet_items: int = Field(120, ge=0)


class WorldSettings(Section):
    """The rendered world: what the demo, the tests and the benchmarks use for input."""

    clips: int = Field(120, ge=1)
    users: int = Field(800, ge=1)
    events_per_user: float = Field(40.0, gt=0)
    seed: int = 7
    folder: str | None = Field(None, description="where it is rendered; null: world/ under lakehouse.root")


class Settings(Section):
    """All settings of a run.

    >>> Settings().train.workers
    2
    >>> load(overrides=["train.workers=4"]).train.workers
    4
    """

    catalog: CatalogSettings = CatalogSettings()
    events: EventSettings = EventSettings()
    lakehouse: LakehouseSettings = LakehouseSettings()
    spark: SparkSettings = SparkSettings()
    features: FeatureSettings = FeatureSettings()
    snapshot: SnapshotSettings = SnapshotSettings()
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    promote: PromoteSettings = PromoteSettings()
    recommend: RecommendSettings = RecommendSettings()
    neighbours: NeighbourSettings = NeighbourSettings()
    tracking: TrackingSettings = TrackingSettings()
    report: ReportSettings = ReportSettings()
    world: WorldSettings = WorldSettings()


def load(
    path: str | Path | None = None,
    overrides: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Settings from a YAML file, the environment and `key=value` overrides, in rising precedence.

    `AVREC_TRAIN__WORKERS=4` is the environment's way to say `train.workers=4`. Values are YAML.
    Raises `SettingsError` for an unknown key or an impossible value, `UsageError` for an unreadable file.
    """
    values = _read(Path(path)) if path is not None else {}
    for name, text in (os.environ if environment is None else environment).items():
        if name.startswith(ENVIRONMENT_PREFIX) and "__" in name:
            _put(values, name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"), text, f"{name} (environment)")
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise UsageError(f"--set {override} has no value.", "Write --set key=value, e.g. --set train.workers=4.")
        _put(values, key.strip().split("."), text, f"--set {key}")
    return from_dict(values, where=str(path) if path is not None else "the settings")


def from_dict(values: Mapping[str, Any], where: str = "the settings") -> Settings:
    """Settings from nested dictionaries; `where` names their origin in errors."""
    try:
        return Settings.model_validate(dict(values))
    except ValidationError as error:
        raise SettingsError(_explain(error, where), "conf/default.yaml lists every setting.") from None


def to_yaml(settings: Settings) -> str:
    """The whole settings as YAML that `load` reads back to an equal value."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def fingerprint(section: BaseModel) -> str:
    """A short hash of a section's values; equal values give equal hashes in any process."""
    text = json.dumps(section.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UsageError(f"The settings file {path} does not exist.", "Name one with --config, e.g. conf/demo.yaml.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not valid YAML: {error}", "Correct the file.") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path} holds {type(values).__name__}, not settings.", "Write section: {key: value} lines.")
    return values


def _put(values: dict[str, Any], path: list[str], text: str, where: str) -> None:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    for part in path[:-1]:
        inner = values.setdefault(part, {})
        if not isinstance(inner, dict):
            raise SettingsError(f"{where}: {part} is a value, not a section.", "Check the name.")
        values = inner
    values[path[-1]] = value


def _explain(error: ValidationError, where: str) -> str:
    """The first problem of a validation error as a sentence; the number of others, if any, at the end."""
    problems = error.errors()
    first = problems[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        model = _section_at(first["loc"][:-1])
        hint = closest(str(first["loc"][-1]), model.model_fields) if model else ""
        sentence = f"Unknown setting {key} in {where}.{hint}"
    else:
        sentence = f"Setting {key} in {where} cannot be {first['input']!r}: {first['msg'].lower()}."
    return sentence + (f" ({len(problems) - 1} more problems.)" if len(problems) > 1 else "")


def _section_at(path: Iterable[int | str]) -> type[BaseModel] | None:
    model: type[BaseModel] = Settings
    for part in path:
        annotation = model.model_fields[str(part)].annotation if str(part) in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return None
        model = annotation
    return model
