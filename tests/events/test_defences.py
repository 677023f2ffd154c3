"""Bots and floods, on events that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avrec_spark.config import DefenceSettings, EventSettings, WorldSettings
from avrec_spark.evaluation.yardsticks import read_movielens
from avrec_spark.events.defences import defend
from avrec_spark.events.weighting import opinions
from avrec_spark.world.factors import draw_clips
from avrec_spark.world.users import FIRST_DAY, populate, simulate

DAY = 86_400


def events(*rows):
    """(user, item, seconds, address or None) as accepted views."""
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "seconds", "address"])
    frame["timestamp"] = pd.to_datetime(frame.pop("seconds").astype(float), unit="s", utc=True)
    return frame.assign(event_type="view", event_id=[f"e{n}" for n in range(len(frame))])


def likes(*rows, opinion=1):
    """(user, item, seconds) as events of one opinion."""
    return events(*[(*row, None) for row in rows]).assign(opinion=opinion)


def joined(*frames):
    """Frames in a row, with event ids of their own."""
    frame = pd.concat(frames, ignore_index=True)
    return frame.assign(event_id=[f"e{n}" for n in range(len(frame))])


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


def test_what_was_shown_to_a_bot_goes_with_it():
    shown = events(("u", "i", 5, None), ("v", "i", 5, None)).assign(event_type="impression")
    fast = events(*[("u", f"i{n}", n, None) for n in range(4)])
    assert told(joined(shown, fast), max_events_per_minute=3) == ["bot_rate", None] + ["bot_rate"] * 4


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


# -- accounts that act together ------------------------------------------------------------------------------------


def usual(opinion=0):
    """Each day one newcomer for "known" and one for something else, for 60 days; an "old" item from the first day."""
    rows = [(f"{item}{day}", item, day * DAY + 7) for day in range(60) for item in ("known", "rest")]
    return likes(*rows, ("first", "old", 0), opinion=opinion)


def crowd(item, users, opinion, days=1):
    """New users who come to the item, evenly within days from day 28 on, and then view something else."""
    begins = [28 * DAY + n * days * DAY // users + 60 for n in range(users)]
    on_item = likes(*[(f"c{n}", item, begin) for n, begin in enumerate(begins)], opinion=opinion)
    elsewhere = likes(*[(f"c{n}", f"filler{n}", begin + 50) for n, begin in enumerate(begins)], opinion=0)
    return joined(on_item, elsewhere)


def verdicts_on(together, **thresholds):
    """The verdicts on the crowd; nobody else may have one."""
    before = usual()
    verdicts = told(joined(before, together), **thresholds)
    assert verdicts[: len(before)] == [None] * len(before)
    return verdicts[len(before) :]


@pytest.mark.parametrize(("item", "opinion"), [("old", 1), ("old", -1), ("known", -1)])
def test_newcomers_of_one_opinion_are_refused_with_all_that_they_did(item, opinion):
    # Expected of 8 + 2 newcomers on "known", which has others every day, but none of that opinion: 10 × 1 / 120.
    assert verdicts_on(crowd(item, 8, opinion)) == ["flood_account"] * 16


def test_a_crowd_around_a_hit_is_left_alone_and_one_around_an_old_item_loses_only_that_item_unless_it_agrees():
    # Every day the hit brings one user in two: of 10 newcomers 5 are expected.
    assert verdicts_on(crowd("known", 8, 0)) == [None] * 16
    # Six of eight like it, as do 6 of all 137 acts: (.75 − 6 / 137) / (1 − 6 / 137) = .74 beyond chance.
    mixed = crowd("old", 8, [1, 1, 1, 1, 1, 1, 0, 0])
    assert verdicts_on(mixed, flood_users=6, opinion_agreement=0.75) == ["newcomer_flood"] * 8 + [None] * 8
    liked = (["flood_account"] * 6 + ["newcomer_flood"] * 2, ["flood_account"] * 6 + [None] * 2)
    assert verdicts_on(mixed, flood_users=6, opinion_agreement=0.73) == [*liked[0], *liked[1]]


def test_an_honest_newcomer_who_likes_what_carries_an_attack_is_left_alone():
    # Eight push "old", which nobody knows, and like what two a month know; of these the ninth is one.
    known = likes(*[(f"k{n}", "carrier", 3 * n * DAY) for n in range(3)])
    carried = likes(*[(f"c{n}", "carrier", 28 * DAY + 600 + n) for n in range(8)])
    verdicts = verdicts_on(joined(known, crowd("old", 8, 1), carried, likes(("honest", "carrier", 28 * DAY + 999))))
    assert verdicts == [None] * 3 + ["flood_account"] * 24 + ["newcomer_flood"]


def test_a_crowd_that_always_agrees_tells_nothing_by_it():
    # Where only likes are recorded, everybody is of one opinion.
    verdicts = told(joined(usual(1), likes(*[(f"c{n}", "old", 28 * DAY + n) for n in range(8)])))
    assert verdicts == [None] * 121 + ["newcomer_flood"] * 8


def test_slow_crowds_are_found_in_longer_windows():
    # Windows count from 1970-01-01: days 28 to 34 and 28 to 55 are such.
    assert verdicts_on(crowd("old", 10, 1, days=7), opinion_days=[1]) == [None] * 20
    assert verdicts_on(crowd("old", 10, 1, days=7), opinion_days=[1, 7]) == ["flood_account"] * 20
    assert verdicts_on(crowd("old", 12, 1, days=28), opinion_days=[1, 7]) == [None] * 24
    assert verdicts_on(crowd("old", 12, 1, days=28), opinion_days=[28]) == ["flood_account"] * 24


def test_users_of_one_address_and_one_opinion_are_refused_with_all_that_they_did():
    house = likes(*[(f"c{n}", "known", 28 * DAY + n) for n in range(3)]).assign(address="house")
    later = likes(*[(f"c{n}", f"filler{n}", 40 * DAY) for n in range(3)], opinion=0)
    strict = {"address_users": 3, "address_share": 0.5}
    assert verdicts_on(joined(house, later), **strict) == ["flood_account"] * 6
    assert verdicts_on(joined(house.assign(opinion=0), later), **strict) == ["address_flood"] * 3 + [None] * 3


def taste(user, items, n=0):
    return likes(*[(user, item, DAY * n + 997 * place) for place, item in enumerate(items)])


def test_a_planted_ring_is_found_however_slowly_it_came():
    random = np.random.default_rng(5)
    catalogue = [f"i{n}" for n in range(200)]
    honest = [taste(f"u{n}", random.choice(catalogue, 24, replace=False), n) for n in range(30)]
    shared = list(random.choice(catalogue, 24, replace=False))
    # Four copies, and one with an item of its own: of 24 + 24 − 23 opinions it shares 23 with the core.
    ring = [taste(f"r{n}", shared, 20 * n) for n in range(4)]
    fifth = taste("r4", [*shared[:7], "own", *shared[8:]], 80)
    verdicts = told(joined(*honest, *ring, fifth))
    assert verdicts == [None] * 30 * 24 + ["profile_ring"] * 5 * 24
    assert told(joined(*honest, *ring)) == [None] * 34 * 24
    # The same items with the other opinion are another profile.
    assert told(joined(*honest, *ring, fifth.assign(opinion=-1))) == [None] * 35 * 24


def test_users_who_like_all_there_is_are_no_ring():
    catalogue = [f"i{n}" for n in range(24)]
    assert told(joined(*[taste(f"u{n}", catalogue, n) for n in range(9)])) == [None] * 9 * 24


def test_honest_users_of_movielens_are_left_alone(data_folder):
    rows = read_movielens(data_folder).rename(columns={"weight": "rating"})
    rows["timestamp"] = pd.to_datetime(rows["timestamp"], unit="s", utc=True)
    rows = rows.assign(event_type="rating", event_id=np.arange(len(rows)).astype(str))
    rows["opinion"] = opinions(rows["event_type"], rows["rating"], EventSettings())
    assert (rows["opinion"] == 1).sum() == 21_201
    assert defend(rows, DefenceSettings()).isna().all()


def test_users_of_the_rendered_world_are_left_alone():
    world = WorldSettings()
    clips = draw_clips(world.clips, world.seed)
    rows = pd.DataFrame(simulate(clips, [FIRST_DAY] * len(clips), populate(clips, world), world))
    rows["timestamp"] = pd.to_datetime(rows["timestamp"], utc=True, format="ISO8601")
    rows["opinion"] = opinions(rows["event_type"], pd.Series(np.nan, rows.index), EventSettings())
    assert defend(rows, DefenceSettings()).isna().all()


rows = st.tuples(
    st.sampled_from("uvwx"),
    st.sampled_from("ij"),
    st.integers(0, 3 * DAY),
    st.sampled_from([None, "a"]),
    st.sampled_from([-1, 0, 1]),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(rows, max_size=25), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_no_verdict_and_every_row_has_one(drawn, random):
    tight = {"max_events_per_minute": 2, "max_repeats_per_day": 2, "address_users": 2, "flood_users": 2}
    tight |= {"flood_factor": 1.5, "opinion_factor": 1.5, "ring_users": 2, "ring_opinions": 1}
    frame = events(*[row[:4] for row in drawn]).assign(opinion=[row[4] for row in drawn])
    verdicts = defend(frame, DefenceSettings(**tight, flood_grace_days=0))
    assert len(verdicts) == len(frame)
    order = list(frame.index)
    random.shuffle(order)
    again = defend(frame.loc[order], DefenceSettings(**tight, flood_grace_days=0)).sort_index()
    assert verdicts.isna().tolist() == again.isna().tolist()
    assert verdicts.dropna().to_dict() == again.dropna().to_dict()
