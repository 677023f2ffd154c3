"""Every column name of the platform, once.

Any other module imports a name from here; a quoted column name elsewhere is a mistake waiting for a rename.
"""

# Who, what, when: the three columns that every recommender needs.
USER_ID = "user_id"
ITEM_ID = "item_id"
TIMESTAMP = "timestamp"

# Behaviour.
EVENT_ID = "event_id"
EVENT_TYPE = "event_type"
WATCH_SECONDS = "watch_seconds"
WATCH_RATIO = "watch_ratio"
RATING = "rating"
WEIGHT = "weight"
OPINION = "opinion"
PLATFORM = "platform"
DEVICE = "device"
SESSION_ID = "session_id"
ADDRESS = "address"
# Of an impression: the list that was shown, the place in it, whose policy made it and how likely that was.
LIST_ID = "list_id"
POSITION = "position"
EXPERIMENT_ARM = "experiment_arm"
PROPENSITY = "propensity"
SOURCE = "source"
ROW = "row"
ARRIVED_AT = "arrived_at"
RECORD = "record"

# Catalogue.
URI = "uri"
SIZE = "size"
MODIFIED_AT = "modified_at"
VERSION = "version"
CONTENT_HASH = "content_hash"
TITLE = "title"
DESCRIPTION = "description"
TAGS = "tags"
PREDICTED_TAGS = "predicted_tags"
CATEGORIES = "categories"
CHANNEL = "channel"
LICENCE = "licence"
PUBLISHED_AT = "published_at"

# Media.
STATUS = "status"
REASON = "reason"
DETAIL = "detail"
RETRYABLE = "retryable"
DURATION = "duration"
SECONDS_SPENT = "seconds_spent"
ATTEMPTS = "attempts"
PART = "part"
PARTS = "parts"
SHOT = "shot"
START = "start"
END = "end"
KEY_FRAME_TIME = "key_frame_time"
THUMBNAIL = "thumbnail"
TRANSITION = "transition"
TRANSITION_SECONDS = "transition_seconds"
KEY_SCENE = "key_scene"
TEXT = "text"
LANGUAGE = "language"
CONFIDENCE = "confidence"

# Features.
MODALITY = "modality"
ENCODER = "encoder"
ENCODER_VERSION = "encoder_version"
PARAMETERS_HASH = "parameters_hash"
INPUT_HASH = "input_hash"
DIMENSION = "dimension"
VECTOR = "vector"
SEGMENT = "segment"
FRAMES_DECODED = "frames_decoded"
SECONDS_DECODED = "seconds_decoded"

# Training set. Indices are dense, shuffled integers that stand for ids.
USER_INDEX = "user_index"
ITEM_INDEX = "item_index"
SPLIT = "split"
SNAPSHOT_ID = "snapshot_id"

# Results.
RANK = "rank"
SCORE = "score"
MODEL = "model"
MODEL_URI = "model_uri"
MODEL_VERSION = "model_version"
REASONS = "reasons"
GENERATED_AT = "generated_at"
KIND = "kind"
NEIGHBOUR_ID = "neighbour_id"
SIMILARITY = "similarity"
BECAUSE = "because"
GATES = "gates"
METRIC = "metric"
MEAN = "mean"
LOW = "low"
HIGH = "high"
FOLD = "fold"
GROUP = "group"
LABEL = "label"
# Of a person: whether an item has a label.
DECISION = "decision"
# Of a logged impression: what followed it, and what another policy would have done.
CLICKED = "clicked"
CONVERTED = "converted"
SATISFACTION = "satisfaction"
REWARD = "reward"
TARGET_PROPENSITY = "target_propensity"
EXPECTED_REWARD = "expected_reward"
EXPECTED_VALUE = "expected_value"

# Operations.
RUN_ID = "run_id"
JOB = "job"
KEY = "key"
ORIGINAL = "original"
RECORDED_AT = "recorded_at"

# Composites.
# What an event may say, under our names.
EVENT_FIELDS = (
    *(USER_ID, ITEM_ID, EVENT_TYPE, TIMESTAMP, EVENT_ID, WATCH_SECONDS, DURATION, RATING),
    *(PLATFORM, DEVICE, SESSION_ID, ADDRESS, LIST_ID, POSITION, EXPERIMENT_ARM, PROPENSITY),
)
INTERACTIONS = (USER_ID, ITEM_ID, TIMESTAMP, WEIGHT)
RECOMMENDATIONS = (USER_ID, ITEM_ID, RANK, SCORE)
FEATURE_KEY = (ITEM_ID, MODALITY, ENCODER, ENCODER_VERSION)
