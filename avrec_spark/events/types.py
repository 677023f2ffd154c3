"""The types of behaviour, and the platforms it happens on."""

from __future__ import annotations

VIEW = "view"
LIKE = "like"
DISLIKE = "dislike"
SHARE = "share"
COMMENT = "comment"
FAVOURITE = "favourite"
FOLLOW = "follow"
RATING = "rating"
PURCHASE = "purchase"
TIP = "tip"
SKIP = "skip"
# Something was shown: what the platform did and not the user, so it is no act to count in a rate.
IMPRESSION = "impression"

# What speaks for an item, and against it, by itself; a rating does by its height.
ENDORSEMENTS = (LIKE, SHARE, FAVOURITE, FOLLOW, PURCHASE, TIP)
REJECTIONS = (DISLIKE, SKIP)

PLATFORMS = ("short_video", "film", "music", "live", "smart_speaker", "social")
