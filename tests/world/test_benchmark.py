"""The references of the world's benchmark."""

from __future__ import annotations

import numpy as np

from avrec_spark.config import WorldSettings
from avrec_spark.world.factors import draw_clips
from benchmarks import world


def test_whoever_knows_the_factors_finds_the_tastes_in_what_users_did(monkeypatch):
    settings = WorldSettings(clips=40, users=60, events_per_user=100, missing_share=0.1)
    monkeypatch.setattr(world, "WORLD", settings)
    lived = world.Lived.of(tuple(draw_clips(40, seed=3, missing_share=0.1)), 5)
    part = lived.part("cold", {}, 5)
    found = world.estimated(lived, part)
    cold = np.isin([clip.item_id for clip in lived.clips], part.candidates)
    near = [
        np.corrcoef(one[cold], truth[cold])[0, 1] for one, truth in zip(found, lived.population.affinity, strict=True)
    ]
    assert np.mean(near) > 0.6
    backwards = world._ndcg(part, lived.oracle(part, -found))
    assert (
        backwards
        < world._ndcg(part, lived.oracle(part, found))
        < world._ndcg(part, lived.oracle(part, lived.population.appeal()))
    )
