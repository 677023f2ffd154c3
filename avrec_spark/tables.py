"""Every Delta table as a value: name, layer, columns, key, and the job that writes it.

Ids keep the type they came in: a column of type `ID` is stored as bigint when the data brings integers and as string
otherwise. All other columns are cast to the declared type when they are written.
"""

from __future__ import annotations

from dataclasses import dataclass

from avrec_spark import columns as c

ID = "id"
FLOATS = "array<float>"
STRINGS = "array<string>"


@dataclass(frozen=True)
class Table:
    """One table of the lakehouse.

    `columns` maps each name to a Spark SQL type (or `ID`); `key` identifies a row and is enforced by merges;
    `writer` is the job that fills the table, named in the error when the table is missing.
    """

    layer: str
    name: str
    columns: dict[str, str]
    key: tuple[str, ...]
    writer: str

    @property
    def full_name(self) -> str:
        return f"{self.layer}.{self.name}"


# The catalogue's word on a file: there, named by a list and not there, or there in an earlier run.
PRESENT, MISSING, GONE = "present", "missing", "gone"
# The media statuses of items that something could be decoded of.
USABLE = ("ok", "partial")

CATALOG = Table(
    "bronze",
    "catalog",
    {
        c.ITEM_ID: ID,
        c.URI: "string",
        c.SIZE: "bigint",
        c.MODIFIED_AT: "timestamp",
        # What a store calls this state of the object, such as an ETag.
        c.VERSION: "string",
        c.CONTENT_HASH: "string",
        c.TITLE: "string",
        c.DESCRIPTION: "string",
        c.TAGS: STRINGS,
        c.CHANNEL: "string",
        c.LICENCE: "string",
        c.PUBLISHED_AT: "timestamp",
        c.STATUS: "string",
    },
    key=(c.ITEM_ID,),
    writer="catalog",
)

EVENTS = Table(
    "bronze",
    "events",
    {
        c.EVENT_ID: "string",
        c.USER_ID: ID,
        c.ITEM_ID: ID,
        c.EVENT_TYPE: "string",
        c.TIMESTAMP: "string",
        c.WATCH_SECONDS: "string",
        # The medium's length in seconds, as the client knew it.
        c.DURATION: "string",
        c.RATING: "string",
        c.PLATFORM: "string",
        c.DEVICE: "string",
        c.SESSION_ID: "string",
        # Where the event came from on the network, or a hash of it; it ends here.
        c.ADDRESS: "string",
        c.LIST_ID: "string",
        c.POSITION: "string",
        c.EXPERIMENT_ARM: "string",
        c.PROPENSITY: "string",
        c.SOURCE: "string",
        c.ROW: "bigint",
        c.RECORD: "string",
        c.ARRIVED_AT: "timestamp",
    },
    key=(c.EVENT_ID,),
    writer="events",
)

MEDIA = Table(
    "silver",
    "media",
    {
        c.ITEM_ID: ID,
        c.CONTENT_HASH: "string",
        # What the file is; `media.records.MediaInfo` says what each field means.
        "container": "string",
        "width": "int",
        "height": "int",
        c.DURATION: "double",
        "frame_rate": "double",
        "variable_frame_rate": "boolean",
        "video_codec": "string",
        "bit_depth": "int",
        "colour": "string",
        "gop": "int",
        "audio_codec": "string",
        "sample_rate": "int",
        "channels": "int",
        "bit_rate": "bigint",
        "loudness": "double",
        "silence_share": "double",
        "black_share": "double",
        "languages": STRINGS,
        "chapters": "array<struct<start: double, end: double, title: string>>",
        "media_tags": "map<string,string>",
        # ok, partial, corrupt, unsupported, missing, timeout or too_large; reason is a typed word, detail a sentence.
        c.STATUS: "string",
        c.REASON: "string",
        c.DETAIL: "string",
        c.RETRYABLE: "boolean",
        # How often the file was opened; a failure that a retry may mend is retried a few times only.
        c.ATTEMPTS: "int",
        # Into how many time ranges it was split.
        c.PARTS: "int",
        c.FRAMES_DECODED: "int",
        c.SECONDS_DECODED: "double",
        c.SECONDS_SPENT: "double",
    },
    key=(c.ITEM_ID,),
    writer="features",
)

SHOTS = Table(
    "silver",
    "shots",
    {
        c.ITEM_ID: ID,
        c.SHOT: "int",
        c.START: "double",
        c.END: "double",
        c.KEY_FRAME_TIME: "double",
        # How it begins: start (of the file), cut or fade; and how long the fade takes.
        c.TRANSITION: "string",
        c.TRANSITION_SECONDS: "double",
        # Whether it is one of the few that represent the file.
        c.KEY_SCENE: "boolean",
        c.THUMBNAIL: "binary",
    },
    key=(c.ITEM_ID, c.SHOT),
    writer="features",
)

TRANSCRIPTS = Table(
    "silver",
    "transcripts",
    {
        c.ITEM_ID: ID,
        # Who read or heard the words: an encoder of modality speech or screen.
        c.ENCODER: "string",
        c.ENCODER_VERSION: "string",
        c.SEGMENT: "int",
        c.START: "double",
        c.END: "double",
        c.LANGUAGE: "string",
        c.TEXT: "string",
        c.CONFIDENCE: "double",
    },
    key=(c.ITEM_ID, c.ENCODER, c.ENCODER_VERSION, c.SEGMENT),
    writer="features",
)

ITEMS = Table(
    "silver",
    "items",
    {
        c.ITEM_ID: ID,
        c.TITLE: "string",
        c.DESCRIPTION: "string",
        # As declared; beside them what the labels job predicts or people have decided, never the declared ones again.
        c.TAGS: STRINGS,
        c.PREDICTED_TAGS: "array<struct<tag: string, confidence: double>>",
        c.CHANNEL: "string",
        c.PUBLISHED_AT: "timestamp",
    },
    key=(c.ITEM_ID,),
    writer="catalog",
)

# What people have decided on the review lists.
DECISIONS = Table(
    "silver",
    "decisions",
    {
        c.ITEM_ID: ID,
        c.LABEL: "string",
        c.DECISION: "boolean",
        c.RUN_ID: "string",
        c.RECORDED_AT: "timestamp",
    },
    key=(c.ITEM_ID, c.LABEL),
    writer="labels",
)

INTERACTIONS = Table(
    "silver",
    "interactions",
    {
        c.USER_ID: ID,
        c.ITEM_ID: ID,
        c.TIMESTAMP: "timestamp",
        c.EVENT_TYPE: "string",
        c.WEIGHT: "double",
        c.WATCH_SECONDS: "double",
        # Watched share of the medium, above 1 when it was played more than once; null where its length is not known.
        c.WATCH_RATIO: "double",
        c.RATING: "double",
        c.PLATFORM: "string",
        c.DEVICE: "string",
        c.SESSION_ID: "string",
        # What off-policy estimates need of an impression.
        c.LIST_ID: "string",
        c.POSITION: "int",
        c.EXPERIMENT_ARM: "string",
        c.PROPENSITY: "double",
        c.EVENT_ID: "string",
        c.ROW: "bigint",
    },
    key=(c.USER_ID, c.ITEM_ID, c.TIMESTAMP, c.EVENT_TYPE),
    writer="events",
)

_PROVENANCE = {
    c.MODALITY: "string",
    c.ENCODER: "string",
    c.ENCODER_VERSION: "string",
    c.PARAMETERS_HASH: "string",
    # Hash of what was encoded: the file's content, or the text.
    c.INPUT_HASH: "string",
}

ITEM_FEATURES = Table(
    "gold",
    "item_features",
    {
        c.ITEM_ID: ID,
        **_PROVENANCE,
        c.DIMENSION: "int",
        c.VECTOR: FLOATS,
        c.FRAMES_DECODED: "int",
        c.SECONDS_DECODED: "double",
        # ok, absent (the item has no such modality), failed (reason says why), or the status of the file.
        c.STATUS: "string",
        c.REASON: "string",
    },
    key=c.FEATURE_KEY,
    writer="features",
)

SEGMENT_FEATURES = Table(
    "gold",
    "segment_features",
    {
        c.ITEM_ID: ID,
        **_PROVENANCE,
        c.SEGMENT: "int",
        c.START: "double",
        c.VECTOR: FLOATS,
    },
    key=(c.ITEM_ID, c.MODALITY, c.SEGMENT, c.ENCODER, c.ENCODER_VERSION),
    writer="features",
)

ITEM_NEIGHBOURS = Table(
    "gold",
    "item_neighbours",
    {
        c.ITEM_ID: ID,
        # A modality, or "fused" for the item vectors of the fusion model.
        c.KIND: "string",
        c.RANK: "int",
        c.NEIGHBOUR_ID: ID,
        c.SIMILARITY: "double",
    },
    key=(c.ITEM_ID, c.KIND, c.RANK),
    writer="neighbours",
)

ITEM_EMBEDDINGS = Table(
    "gold",
    "item_embeddings",
    {
        c.ITEM_ID: ID,
        c.MODEL_VERSION: "string",
        c.VECTOR: FLOATS,
        c.GATES: "map<string,float>",
    },
    key=(c.ITEM_ID, c.MODEL_VERSION),
    writer="train",
)

RECOMMENDATIONS = Table(
    "gold",
    "recommendations",
    {
        c.USER_ID: ID,
        c.RANK: "int",
        c.ITEM_ID: ID,
        c.SCORE: "double",
        c.MODEL_VERSION: "string",
        # The item of the user's history that speaks most for it; null where none does.
        c.BECAUSE: ID,
        c.REASONS: STRINGS,
        c.GENERATED_AT: "timestamp",
    },
    key=(c.USER_ID, c.RANK),
    writer="recommend",
)

QUARANTINE = Table(
    "ops",
    "quarantine",
    {
        c.RUN_ID: "string",
        c.SOURCE: "string",
        c.KEY: "string",
        c.REASON: "string",
        c.DETAIL: "string",
        c.ORIGINAL: "string",
        c.RETRYABLE: "boolean",
        c.RECORDED_AT: "timestamp",
    },
    key=(c.RUN_ID, c.SOURCE, c.KEY),
    writer="catalog",
)

SNAPSHOTS = Table(
    "ops",
    "snapshots",
    {
        c.SNAPSHOT_ID: "string",
        c.RUN_ID: "string",
        "path": "string",
        "table_versions": "map<string,bigint>",
        "settings": "string",
        "rows": "map<string,bigint>",
        c.RECORDED_AT: "timestamp",
    },
    key=(c.SNAPSHOT_ID,),
    writer="snapshot",
)

MODELS = Table(
    "ops",
    "models",
    {
        c.RUN_ID: "string",
        c.MODEL: "string",
        c.MODEL_URI: "string",
        c.SNAPSHOT_ID: "string",
        "parameters": "string",
        "fit_seconds": "double",
        c.RECORDED_AT: "timestamp",
    },
    key=(c.RUN_ID, c.MODEL),
    writer="train",
)

METRICS = Table(
    "ops",
    "metrics",
    {
        c.RUN_ID: "string",
        c.MODEL: "string",
        c.SPLIT: "string",
        c.METRIC: "string",
        c.MEAN: "double",
        c.LOW: "double",
        c.HIGH: "double",
    },
    key=(c.RUN_ID, c.MODEL, c.SPLIT, c.METRIC),
    writer="evaluate",
)

# Each model against the best of its run, paired by user: the fields of evaluation.significance.Comparison.
COMPARISONS = Table(
    "ops",
    "comparisons",
    {
        c.RUN_ID: "string",
        c.SPLIT: "string",
        c.METRIC: "string",
        c.MODEL: "string",
        "best": "string",
        "users": "bigint",
        "reference": "double",
        "difference": "double",
        c.LOW: "double",
        c.HIGH: "double",
        "p_t": "double",
        "p_wilcoxon": "double",
        "detectable": "double",
        "relevant": "double",
        "adjusted": "double",
        "significant": "boolean",
        "warning": "string",
    },
    key=(c.RUN_ID, c.SPLIT, c.METRIC, c.MODEL),
    writer="evaluate",
)

# How sure the chosen classifier of labels was on test, and how often it was right: a row a bin of confidence.
RELIABILITY = Table(
    "ops",
    "reliability",
    {
        c.RUN_ID: "string",
        c.MODEL: "string",
        # "as scored" or "calibrated".
        c.KIND: "string",
        c.LOW: "double",
        c.HIGH: "double",
        "pairs": "bigint",
        c.CONFIDENCE: "double",
        "share": "double",
    },
    key=(c.RUN_ID, c.KIND, c.LOW),
    writer="labels",
)

JOB_RUNS = Table(
    "ops",
    "job_runs",
    {
        c.RUN_ID: "string",
        c.JOB: "string",
        c.STATUS: "string",
        # Fingerprints of what the job depended on: settings, sources, and the version of each input table.
        "inputs": "map<string,string>",
        "counts": "map<string,bigint>",
        "parameters": "string",
        "seconds": "double",
        c.RECORDED_AT: "timestamp",
    },
    key=(c.RUN_ID, c.JOB),
    writer="catalog",
)

ALL = (
    CATALOG,
    EVENTS,
    MEDIA,
    SHOTS,
    TRANSCRIPTS,
    ITEMS,
    DECISIONS,
    INTERACTIONS,
    ITEM_FEATURES,
    SEGMENT_FEATURES,
    ITEM_NEIGHBOURS,
    ITEM_EMBEDDINGS,
    RECOMMENDATIONS,
    QUARANTINE,
    SNAPSHOTS,
    MODELS,
    METRICS,
    COMPARISONS,
    RELIABILITY,
    JOB_RUNS,
)


def by_name(full_name: str) -> Table:
    """The table of that name.

    >>> by_name("bronze.catalog").key
    ('item_id',)
    """
    return {table.full_name: table for table in ALL}[full_name]
