from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avrec_spark.media.cost import CostModel, Facts, pack


@given(st.integers(0, 10**12), st.integers(0, 10**9))
def test_a_larger_file_never_costs_less(size, more):
    model = CostModel()
    assert 0 < model.predict(Facts(size)) <= model.predict(Facts(size + more))


def test_what_is_known_of_a_file_goes_into_its_price():
    model = CostModel()

    def cost(**known):
        facts = {"codec": "h264", "pixels": 1280 * 720, "gop": 50, "frame_rate": 25.0, "seconds": 100.0} | known
        return model.predict(Facts(10_000_000, "a.mp4", **facts))

    assert cost(pixels=3840 * 2160) > cost()  # larger pictures
    assert cost(gop=250) < cost()  # fewer key frames
    assert cost(seconds=200.0) > cost()
    assert cost(sound=False) < cost()


def test_prices_move_to_what_was_measured():
    random = np.random.default_rng(0)
    films = [
        Facts(10**6, "a.mkv", "av1", 10**6, 25, 25.0, float(seconds), sound=False)
        for seconds in random.uniform(10, 100, 50)
    ]
    # Each key frame, one a second, of a megapixel costs a tenth of a second here.
    measured = [0.1 * film.seconds for film in films]

    before, after = CostModel(), CostModel.learned(films, measured)

    film = Facts(10**6, "b.mkv", "av1", 10**6, 25, 25.0, 60.0, sound=False)
    assert after.predict(film) == pytest.approx(6.0, rel=0.15)
    assert abs(before.predict(film) - 6.0) > 3
    # And a file of which only the size is known is priced like those of its kind.
    assert after.predict(Facts(10**6, "c.mkv")) > 2 * before.predict(Facts(10**6, "c.mkv"))
    assert after.predict(Facts(10**6, "c.mp4")) == pytest.approx(before.predict(Facts(10**6, "c.mp4")), rel=0.8)


def test_without_lessons_the_prices_are_the_built_in_ones():
    facts = Facts(5_000_000, "a.mp4")
    assert CostModel.learned([], []).predict(facts) == CostModel().predict(facts)


@given(st.lists(st.floats(0.01, 100), max_size=60), st.integers(1, 8), st.floats(0.5, 20))
def test_packing_loses_no_file_and_keeps_tasks_even(seconds, slots, shortest):
    tasks = pack(seconds, slots, shortest)

    assert sorted(position for task in tasks for position in task) == list(range(len(seconds)))
    assert all(tasks)
    loads = [sum(seconds[position] for position in task) for task in tasks]
    # No task is longer than the shortest by more than one file.
    assert not loads or max(loads) - min(loads) <= max(seconds) + 1e-9


def test_little_work_is_one_task_and_much_work_keeps_all_slots_busy():
    assert len(pack([0.1] * 10, slots=4, shortest=3.0)) == 1
    assert len(pack([0.5] * 10, slots=4, shortest=3.0)) == 4
    assert len(pack([1.0] * 100, slots=4, shortest=3.0)) == 32
