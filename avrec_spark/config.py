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
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from avrec_spark.columns import EVENT_FIELDS
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


class DefenceSettings(Section):
    """What is too much for a person, or for honest people together; docs/events.md says how each was set."""

    enabled: bool = True
    max_events_per_minute: int = Field(100, ge=1, description="acts of one user; impressions are not counted")
    max_events_per_hour: int = Field(1_000, ge=1)
    max_events_per_day: int = Field(5_000, ge=1)
    regular_intervals: int = Field(30, ge=2, description="intervals that a user must have to be judged by them")
    regular_share: float = Field(0.9, gt=0, le=1, description="refused from this share of intervals near the median")
    regular_tolerance: float = Field(0.05, ge=0, lt=1, description="near: within this share of the median")
    max_repeats_per_day: int = Field(200, ge=1, description="acts of one user on one item; those beyond are refused")
    address_users: int = Field(10, ge=2, description="users of one address on one item in a day, from which …")
    address_share: float = Field(0.5, gt=0, le=1, description="… they are refused if they are this share of its users")
    flood_users: int = Field(8, ge=2, description="users new that day on one item in a day, from which …")
    flood_factor: float = Field(10.0, gt=1, description="… they are refused if they are so many times the expected")
    flood_grace_days: int = Field(7, ge=0, description="an item's first days, in which nothing is expected yet")
    opinion_days: list[int] = Field([1, 7, 28], description="windows in which newcomers come to tell one opinion …")
    opinion_factor: float = Field(5.0, gt=1, description="… refused as accounts if they are so many times the expected")
    opinion_agreement: float = Field(0.7, gt=0, le=1, description="… and if the crowd agrees so far beyond chance")
    ring_users: int = Field(5, ge=2, description="accounts of nearly the same opinions, from which they are refused")
    ring_opinions: int = Field(20, ge=1, description="opinions that an account must have to be judged by them")
    ring_similarity: float = Field(0.8, gt=0, le=1, description="Jaccard index beyond chance with what they share")


class StreamSettings(Section):
    files_per_trigger: int = Field(1_000, ge=1, description="files taken into one micro-batch")
    records_per_trigger: int = Field(200_000, ge=1, description="Kafka: records taken into one micro-batch")
    starting_offsets: Literal["earliest", "latest"] = Field(
        "earliest", description="Kafka: where a topic that was never read is begun"
    )
    fail_on_data_loss: bool = Field(
        True, description="Kafka: stop when a broker has removed records that were not taken yet; false: go on"
    )
    trigger_seconds: float = Field(60.0, ge=0, description="continuous: time between two micro-batches")
    stop_after_idle_seconds: float | None = Field(
        None, gt=0, description="continuous: end when nothing has arrived for so long; null: run until stopped"
    )


class EventSettings(Section):
    source: str | None = Field(
        None,
        description="CSV, JSON lines (.jsonl, .json) or Parquet, a file or a folder; a Delta table; or topics of "
        "Kafka, kafka://host:port[,host:port]/topic[,topic]",
    )
    format: Literal["csv", "json", "parquet", "delta"] | None = Field(None, description="null: by the files' names")
    delimiter: str | None = Field(None, min_length=1, description="of CSV files; null: a tab in .tsv, else a comma")
    mode: Literal["batch", "available-now", "continuous"] = Field(
        "batch", description="the other two take each file of a folder, or record of Kafka, once, by a checkpoint"
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="our name: your name, where yours differs, e.g. {user_id: uid, device: client.device}",
    )
    constants: dict[str, str] = Field(
        default_factory=dict,
        description="our name: value, where yours has no such column or nothing in it, e.g. {event_type: rating}",
    )
    values: dict[str, dict[str, str]] = Field(
        default_factory=dict,
        description="our name: {your value: our value}, e.g. {event_type: {play: view, heart: like}}",
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
    completed_ratio: float = Field(
        0.8, gt=0, description="the same as a share of the medium, where its duration is known"
    )
    durations: Literal["event", "media"] = Field(
        "event", description="media: where an event has none, the duration that an earlier features job has found"
    )
    best_rating: float = Field(5.0, description="a rating counts in full from here on …")
    neutral_rating: float = Field(0.0, description="… and not at all up to here")
    half_life_days: float | None = Field(None, gt=0, description="an event so old counts half; null: age is no matter")
    max_watch_seconds: float = Field(86_400.0, gt=0, description="longer watch times are refused as impossible")
    max_watch_ratio: float = Field(100.0, gt=0, description="so are more rounds of the medium in one event")
    future_tolerance_seconds: float = Field(300.0, ge=0, description="how far a clock may run ahead of arrival")
    future_times: Literal["quarantine", "arrival"] = Field(
        "quarantine", description="events beyond that are refused, or take the time of their arrival"
    )
    max_late_days: float | None = Field(None, gt=0, description="later arrivals are refused; null: none is too late")
    unknown_items: Literal["quarantine", "accept"] = Field(
        "quarantine", description="events on items that the catalogue, where there is one, does not list"
    )
    users: str | None = Field(
        None, description="CSV or Parquet list with a column user_id; events of others are refused; null: all are known"
    )
    defences: DefenceSettings = DefenceSettings()
    stream: StreamSettings = StreamSettings()

    @field_validator("columns", "constants", "values")
    @classmethod
    def _ours(cls, named: dict[str, Any]) -> dict[str, Any]:
        unknown = sorted(set(named) - set(EVENT_FIELDS))
        if unknown:
            raise ValueError(f"{unknown[0]} is no column of an event (there are {', '.join(EVENT_FIELDS)})")
        return named

    @model_validator(mode="after")
    def _ratings_ascend(self) -> Self:
        if self.neutral_rating >= self.best_rating:
            raise ValueError("neutral_rating must be below best_rating")
        return self


class LakehouseSettings(Section):
    root: str = Field("lakehouse", description="where tables, snapshots, manifests and reports lie")


class SparkSettings(Section):
    master: str | None = Field(None, description="null: what spark-submit or the cluster says, else local[2,4]")
    app_name: str = "avrec"
    jars_dir: str | None = Field(None, description="folder of JARs; null: those in pyspark's own jars folder")
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
    split: Literal["time", "random", "random-item", "last-out", "global-time", "cold-item", "cold-user", "k-fold"] = (
        Field("time", description="what is held out; avrec_spark.dataset.splits says what each of them means")
    )
    validation_share: float = Field(0.1, gt=0, lt=0.5)
    test_share: float = Field(0.2, gt=0, lt=0.5)
    last_n: int = Field(1, ge=1, description="last-out: rows a user in validation, and in test")
    folds: int = Field(5, ge=3, description="k-fold: number of parts")
    fold: int = Field(0, ge=0, description="k-fold: the part that is test, from 0; the next one is validation")
    seed: int = 42
    row_groups: int = Field(8, ge=1, description="row groups of the training part; at least one a rank")

    @model_validator(mode="after")
    def _fold_exists(self) -> SnapshotSettings:
        if self.fold >= self.folds:
            raise ValueError(f"fold {self.fold} is none of {self.folds} folds, which count from 0")
        return self


class StartSettings(Section):
    model: str | None = Field(
        None,
        description="latest, a run id, or the folder or MLflow URI of a fusion model or a pre-trained encoder; null: "
        "at random",
    )
    ids: bool = Field(
        True, description="vectors of known users and items are taken over; false: of content only, for other ids"
    )
    update: bool = Field(False, description="read little more than what is new since then; else train in full")
    epochs: int = Field(3, ge=1, description="of an update, at most")
    rehearsal: float = Field(1.0, ge=0, description="old interactions that an update reads for each new one")
    most_forgotten: float = Field(
        0.05, ge=0, le=1, description="of the older NDCG@10 that an update may lose; beyond, fusion is fitted anew"
    )

    @model_validator(mode="after")
    def _something_to_update(self) -> Self:
        if self.update and self.model is None:
            raise ValueError("an update needs a model to start from, e.g. latest")
        if self.update and not self.ids:
            raise ValueError("an update keeps the ids; set update to false for another catalogue")
        return self


class TrainSettings(Section):
    models: tuple[str, ...] = ("popular", "sar", "als", "ease", "mf", "fusion")
    parameters: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="model: {parameter: value}, over the model's own defaults"
    )
    launcher: Literal["horovod", "ddp", "in-process"] = "horovod"
    workers: int = Field(2, ge=1, description="ranks, each in its own Spark task slot")
    start_timeout_seconds: int = Field(60, ge=1)
    checkpoint_every_steps: int = Field(
        1000, ge=0, description="a killed run goes on from the last checkpoint when it is run again; 0: none"
    )
    scale_with_ranks: bool = Field(
        False, description="batch_size is of one rank, and the learning rate grows with the ranks; else of all together"
    )
    warmup_steps: int = Field(0, ge=0, description="over which the learning rate rises to its value")
    lazy_embeddings: bool = Field(False, description="move only the rows that a step touches: for very large tables")
    precision: Literal["float32", "bfloat16", "float16"] = Field("float32", description="of the forward pass")
    start: StartSettings = StartSettings()
    seed: int = 42


class EvaluateSettings(Section):
    ks: tuple[int, ...] = (10, 20)
    executor: Literal["auto", "numpy", "spark"] = Field(
        "auto", description="auto: numpy, on the driver, up to 5 million rows of lists and histories; else spark"
    )
    bootstrap_samples: int = Field(200, ge=0, description="for the 95 % intervals over users; 0: none")


class PromoteSettings(Section):
    metric: str = Field("ndcg@10", description="validation metric that decides")
    registered_model: str = "avrec-recommender"


class RecommendSettings(Section):
    k: int = Field(20, ge=1)
    users_per_task: int = Field(20_000, ge=1)


class NeighbourSettings(Section):
    k: int = Field(10, ge=1)


class LabelSettings(Section):
    corrections: tuple[str, ...] = Field(
        (), description="filled-in review lists (CSV with item_id, label, decision); their answers are kept"
    )
    min_positives: int = Field(20, ge=2, description="items with a label, and without it, that it is learnt from")
    confidence: float = Field(0.5, gt=0, lt=1, description="calibrated probability from which a tag is predicted")
    calibration: Literal["temperature", "isotonic"] = "temperature"
    review_items: int = Field(100, ge=0, description="items on the review list")
    seed: int = 42


class TrackingSettings(Section):
    uri: str | None = Field(None, description="MLflow tracking server; null: sqlite under lakehouse.root")
    experiment: str = "avrec"


class ReportSettings(Section):
    users: int = Field(6, ge=0, description="users shown with history and recommendations")
    contact_sheet_items: int = Field(120, ge=0)
    map_items: int = Field(1000, ge=0, description="drawn at random for the map of the items' vectors; 0: no map")


class WorldSettings(Section):
    """The rendered world: what the demo, the tests and the benchmarks use for input."""

    clips: int = Field(120, ge=1)
    users: int = Field(800, ge=1)
    events_per_user: float = Field(40.0, gt=0, description="about so many acts; what was shown comes on top")
    missing_share: float = Field(
        0.1, ge=0, le=0.3, description="of clips without video, as many without audio, and as many without text"
    )
    new_share: float = Field(
        0.1, ge=0, le=0.5, description="of clips that come out after the last event: nobody has acted on them"
    )
    spoken: bool = Field(True, description="a voice says a keyword, where espeak-ng, espeak or flite is installed")
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
    labels: LabelSettings = LabelSettings()
    tracking: TrackingSettings = TrackingSettings()
    report: ReportSettings = ReportSettings()
    world: WorldSettings = WorldSettings()


def shipped(*names: str) -> Path:
    """A file of conf/: in a checkout beside the package, in an installed one inside it.

    >>> shipped("demo.yaml").name
    'demo.yaml'
    """
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return (inside if inside.is_dir() else package.parent / "conf").joinpath(*names)


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
