"""Bots and floods, on events that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avrec_spark.config import DefenceSettings, WorldSettings
from avrec_spark.evaluation.yardsticks import read_movielens
from avrec_spark.events.defences import defend
from avrec_spark.world.factors import draw_clips
from avrec_spark.world.users import FIRST_DAY, populate, simulate

DAY = 86_400


def events(*rows):
    """(user, item, seconds, address or None) as accepted views."""
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "seconds", "address"])
    frame["timestamp"] = pd.to_datetime(frame.pop("seconds").astype(float), unit="s", utc=True)
    return frame.assign(event_type="view", event_id=[f"e{n}" for n in range(len(frame))])


def told(frame, **thresholds):
    return defend(frame, DefenceSettings(**thresholds)).tolist()


def test_a_user_is_too_fast_from_one_act_beyond_the_limit_in_any_sixty_seconds():
    at_the_limit = events(*[("u", f"i{n}", 30 + 20 * n, None) for n in range(4)])
    assert told(at_the_limit, max_events_per_minute=3) == [None] * 4
    beyond = events(*[("u", f"i{n}", 30 + 19 * n, None) for n in range(4)], ("v", "i0", 40, None))
    assert told(beyond, max_events_per_minute=3) == ["bot_rate"] * 4 + [None]


def test_impressions_are_no_acts():
    shown = events(*[("u", f"i{n}", n, None) for n in range(9)]).assign(event_type="impression")
    assert told(shown, max_events_per_minute=3) == [None] * 9


@pytest.mark.parametrize(
    ("seconds", "items", "regular"),
    [
        ([0, 30, 60, 90, 120], "abcde", True),
        ([0, 30, 61, 90, 120], "abcde", True),
        ([0, 30, 75, 90, 120], "abcde", False),
        # One song on repeat; and too few intervals to tell.
        ([0, 30, 60, 90, 120], "aaaaa", False),
        ([0, 30, 60, 90], "abcd", False),
        # What happens in one moment is one turn.
        ([0, 0, 0, 0, 0], "abcde", False),
    ],
)
def test_intervals_between_different_items_that_are_all_alike_are_a_machines(seconds, items, regular):
    frame = events(*[("u", item, second, None) for item, second in zip(items, seconds, strict=True)])
    verdicts = told(frame, regular_intervals=4, regular_share=1.0, regular_tolerance=0.05)
    assert verdicts == ["bot_regularity" if regular else None] * len(seconds)


def test_of_a_users_acts_on_one_item_those_beyond_the_limit_of_a_day_are_refused():
    frame = events(*[("u", "i", 7 * n * n + 3600 * n, None) for n in range(4)], ("u", "i", 2 * DAY, None))
    assert told(frame, max_repeats_per_day=2) == [None, None, "repeat_flood", "repeat_flood", None]


def test_users_of_one_address_may_share_it_but_not_come_together_on_one_item():
    house = [(f"u{n}", "i", 100 + n * n, "house") for n in range(3)]
    campus = [(f"v{n}", f"j{n % 4}", 100 + n * n, "campus") for n in range(12)]
    verdicts = told(events(*house, *campus), address_users=3, address_share=0.5)
    assert verdicts == ["address_flood"] * 3 + [None] * 12


def test_newcomers_flood_an_old_item_when_they_are_far_more_than_its_share_of_all_newcomers():
    # Each day one newcomer for "known" and one for something else; on day 20 six more for each of two old items.
    usual = [(f"{item}{day}", item, day * DAY + 7, None) for day in range(20) for item in ("known", "rest")]
    usual.append(("first", "old", 0, None))
    crowd = [(f"c{n}{item}", item, 20 * DAY + n * n, None) for item in ("old", "known") for n in range(6)]
    verdicts = told(events(*usual, *crowd), flood_users=6, flood_factor=5)
    # Expected of 12 newcomers: 12 × (1 + 1) / (41 + 1) = 0.57 on "old", 12 × (20 + 1) / 42 = 6 on "known".
    assert verdicts == [None] * 41 + ["newcomer_flood"] * 6 + [None] * 6
    assert told(events(*usual, *crowd), flood_users=7, flood_factor=5) == [None] * 53
    assert told(events(*usual, *crowd), flood_users=6, flood_factor=5, flood_grace_days=21) == [None] * 53


def test_honest_users_of_movielens_are_left_alone(data_folder):
    rows = read_movielens(data_folder)
    rows["timestamp"] = pd.to_datetime(rows["timestamp"], unit="s", utc=True)
    rows = rows.assign(event_type="rating", event_id=np.arange(len(rows)).astype(str))
    assert defend(rows, DefenceSettings()).isna().all()


def test_users_of_the_rendered_world_are_left_alone():
    world = WorldSettings()
    clips = draw_clips(world.clips, world.seed)
    rows = pd.DataFrame(simulate(clips, [FIRST_DAY] * len(clips), populate(clips, world), world))
    rows["timestamp"] = pd.to_datetime(rows["timestamp"], utc=True, format="ISO8601")
    assert defend(rows, DefenceSettings()).isna().all()


rows = st.tuples(st.sampled_from("uvwx"), st.sampled_from("ij"), st.integers(0, 3 * DAY), st.sampled_from([None, "a"]))


@settings(max_examples=40, deadline=None)
@given(st.lists(rows, max_size=25), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_no_verdict_and_every_row_has_one(drawn, random):
    tight = {"max_events_per_minute": 2, "max_repeats_per_day": 2, "address_users": 2, "flood_users": 2}
    frame = events(*drawn)
    verdicts = defend(frame, DefenceSettings(**tight, flood_grace_days=0))
    assert len(verdicts) == len(frame)
    order = list(frame.index)
    random.shuffle(order)
    again = defend(frame.loc[order], DefenceSettings(**tight, flood_grace_days=0)).sort_index()
    assert verdicts.isna().tolist() == again.isna().tolist()
    assert verdicts.dropna().to_dict() == again.dropna().to_dict()
