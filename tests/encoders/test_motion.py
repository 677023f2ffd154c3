"""Pictures that move in a known way: what the camera did, what things did, and where."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from avrec_spark.encoders.motion import LAYOUT, OpticalFlowEncoder, described
from avrec_spark.media.records import Motion

SECONDS = 0.1
TEXTURE = cv2.normalize(
    cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (300, 400)).astype(np.uint8), (0, 0), 2),
    None, 0, 255, cv2.NORM_MINMAX,
)  # fmt: skip
CENTRE = (179.5, 144.5)


def _view(right: int = 0, down: int = 0, degrees: float = 0.0, scale: float = 1.0) -> NDArray[np.uint8]:
    """The middle of the texture, moved so many pixels right and down, turned clockwise, enlarged."""
    matrix = cv2.getRotationMatrix2D(CENTRE, -degrees, scale)
    return cv2.warpAffine(TEXTURE, matrix, (400, 300))[100 - down : 190 - down, 100 - right : 260 - right]


def _square(x: int, background: NDArray[np.uint8], y: int = 35) -> NDArray[np.uint8]:
    picture = background.copy()
    picture[y : y + 20, x : x + 20] = 255 - TEXTURE[:20, :20]
    return picture


def _motion(*pairs: tuple[NDArray[np.uint8], NDArray[np.uint8]], seconds: float = SECONDS) -> Motion:
    count = len(pairs)
    return Motion(np.array(pairs), np.arange(count, dtype=float), np.full(count, seconds))


def _measure(motion: Motion) -> dict[str, NDArray[np.float64]]:
    total = OpticalFlowEncoder().summarise([motion])[0].total
    return {name: values[0] for name, values in described(total[None]).items()}


def _scaled(speed: float) -> float:
    return float(np.log2(1 + speed / 0.02))


def test_the_layout_covers_the_vector_without_gaps():
    stops = [0]
    for block in LAYOUT.values():
        assert block.start == stops[-1]
        stops.append(block.stop)
    assert stops[-1] == OpticalFlowEncoder.dimension


@pytest.mark.parametrize(
    ("right", "down", "direction"),
    [(4, 0, 0), (4, 4, 1), (0, 4, 2), (-4, 4, 3), (-4, 0, 4), (-4, -4, 5), (0, -4, 6), (12, -12, 7), (24, 0, 0)],
)
def test_a_picture_that_shifts_is_camera_motion_in_its_direction(right, down, direction):
    measures = _measure(_motion((_view(), _view(right, down))))

    # Pixels of 160 in a tenth of a second.
    speed = _scaled(np.hypot(right, down) / 160 / SECONDS)
    assert measures["camera"] == pytest.approx([speed, 0.0], abs=0.05)
    assert np.argmax(measures["direction"]) == direction
    assert measures["direction"][direction] == pytest.approx(speed, rel=0.05)
    assert measures["objects"][0] == pytest.approx(0.0, abs=0.05)
    assert measures["area"] < 0.02 and measures["still"] == [0.0]


def test_a_direction_between_two_is_shared_by_them():
    shares = _measure(_motion((_view(), _view(12, 5))))["direction"]  # 22.6°, half of 45°

    assert shares[0] == pytest.approx(shares[1], rel=0.05) and not shares[2:].any()


def test_twice_the_time_is_half_the_speed():
    pair = (_view(), _view(8, 0))

    assert _measure(_motion(pair, seconds=0.2))["camera"][0] == pytest.approx(_scaled(8 / 160 / 0.2), abs=0.05)


@pytest.mark.parametrize("scale", [1.05, 1 / 1.05])
def test_zoom_has_its_rate_and_its_sign(scale):
    measures = _measure(_motion((_view(), _view(scale=scale))))

    rate = _scaled(np.log(1.05) / SECONDS)
    assert measures["zoom"] == pytest.approx([np.sign(scale - 1) * rate, rate], rel=0.05)
    assert measures["camera"][0] < 0.5 and not measures["turn"].any() and measures["area"] < 0.02


@pytest.mark.parametrize("degrees", [3.0, -3.0])
def test_a_turn_has_its_rate_and_its_sign(degrees):
    measures = _measure(_motion((_view(), _view(degrees=degrees))))

    rate = _scaled(np.radians(3) / SECONDS)
    assert measures["turn"] == pytest.approx([np.sign(degrees) * rate, rate], rel=0.05)
    assert measures["camera"][0] < 0.5 and not measures["zoom"].any() and measures["area"] < 0.02


@pytest.mark.parametrize("background", [_view(), np.full((90, 160), 100, np.uint8)], ids=["texture", "plain"])
def test_a_square_that_moves_before_a_still_background_is_object_motion_where_it_is(background):
    measures = _measure(_motion((_square(68, background), _square(74, background))))

    assert not measures["camera"].any() and not measures["zoom"].any() and not measures["turn"].any()
    # 20 × 20 of 160 × 90 pixels are .028 of the picture, and the strips that it uncovers a little more.
    assert 0.01 < measures["area"] < 0.08
    assert measures["objects"][0] > 0.3 and measures["still"] == [0.0]
    assert np.argmax(measures["where"]) == 4 and np.count_nonzero(measures["where"] > 0.3) == 1


def test_a_square_is_told_from_the_camera_that_moves_too():
    pair = (_square(20, _view()), _square(26, _view(-4, 0)))

    measures = _measure(_motion(pair))

    assert measures["camera"][0] == pytest.approx(_scaled(4 / 160 / SECONDS), abs=0.1)
    assert np.argmax(measures["direction"]) == 4
    assert np.argmax(measures["where"]) == 3 and 0.01 < measures["area"] < 0.1


def test_a_still_clip_has_a_vector_that_says_so():
    motion = _motion((_view(), _view()), (_view(), _view()))

    measures = _measure(motion)

    assert measures.pop("still") == [1.0]
    assert not any(values.any() for values in measures.values())
    assert np.linalg.norm(OpticalFlowEncoder().encode([motion])[0]) == pytest.approx(1.0, abs=1e-5)


def test_noise_of_a_camera_is_stillness():
    random = np.random.default_rng(1)
    noisy = [np.clip(_view() + random.normal(0, 2, (90, 160)), 0, 255).astype(np.uint8) for _ in range(2)]

    assert _measure(_motion(tuple(noisy)))["still"] == [1.0]


def test_a_clip_that_moves_now_and_then_varies_from_pair_to_pair():
    measures = _measure(_motion((_view(), _view()), (_view(), _view(8, 0))))

    half = _scaled(8 / 160 / SECONDS) / 2
    assert measures["camera"] == pytest.approx([half, half], abs=0.05)
    assert measures["still"] == [0.5]


def test_black_pictures_and_pairs_without_time_between_give_finite_vectors():
    black = np.zeros((90, 160), np.uint8)
    motions = [_motion((black, black)), _motion((_view(), _view(4, 0)), seconds=0.0), _motion((black, _view()))]

    assert np.isfinite(OpticalFlowEncoder().encode(motions)).all()


def test_pans_to_one_side_are_nearer_than_pans_to_both_and_these_than_stillness():
    left, more, right, still = OpticalFlowEncoder().encode(
        [_motion((_view(), _view(shift, 0))) for shift in (-6, -8, 6, 0)]
    )

    assert left @ more > left @ right > left @ still
