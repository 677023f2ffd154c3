"""avrec_spark: from raw audio, video and behaviour to evaluated, explained, tracked recommendations."""

__version__ = "0.1.0"
