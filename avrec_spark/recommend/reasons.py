"""What a recommendation says of itself."""

from __future__ import annotations

POPULAR = "popular: nothing is known about this user's taste yet"
