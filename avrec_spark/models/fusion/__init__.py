"""Multimodal fusion: what an item looks, sounds and reads like, next to who liked it."""

from avrec_spark.models.fusion.recommender import Fusion

__all__ = ["Fusion"]
