"""Pictures whose colour, light and sharpness are known, measured."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from avrec_spark.encoders.palette import LAYOUT, PaletteEncoder, described
from avrec_spark.media.records import Frames

RED, BLUE, GREY = (200, 0, 0), (0, 0, 200), (128, 128, 128)


def _frames(*pictures: NDArray[np.uint8]) -> Frames:
    return Frames(np.stack(pictures), np.arange(len(pictures), dtype=float))


def _plain(colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    return np.full((224, 224, 3), colour, np.uint8)


def _checkers(side: int) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[:224, :224] // side
    return np.repeat(((rows + columns) % 2 * 255)[..., None], 3, axis=2).astype(np.uint8)


def _measure(*pictures: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    total = PaletteEncoder(8).summarise([_frames(*pictures)])[0].total
    return {name: values[0] for name, values in described(total[None]).items()}


def test_the_layout_covers_the_vector_without_gaps():
    stops = [0]
    for block in LAYOUT.values():
        assert block.start == stops[-1]
        stops.append(block.stop)
    assert stops[-1] == PaletteEncoder.dimension


def test_a_plain_grey_picture_has_no_colour_no_contrast_and_no_edge():
    grey = _measure(_plain(GREY))

    # sRGB 128 is lightness 53.6 of 100.
    assert grey["brightness"] == pytest.approx([0.536, 0.0], abs=0.005)
    for name in ("contrast", "saturation", "colourfulness", "sharpness", "edges", "faces"):
        assert grey[name] == pytest.approx([0.0], abs=1e-6), name
    # CIELAB's a and b are neutral: the middle of five by five, at the lightnesses 96 and 160 of 255 about 137.
    assert np.flatnonzero(grey["colours"]).tolist() == [25 + 12, 50 + 12]
    assert np.square(grey["colours"]).sum() == pytest.approx(1.0)


def test_black_and_white_in_turn_are_bright_by_half_and_change_from_frame_to_frame():
    measures = _measure(_plain((0, 0, 0)), _plain((255, 255, 255)))

    assert measures["brightness"] == pytest.approx([0.5, 0.5])
    assert measures["contrast"] == pytest.approx([0.0])


def test_checkers_of_black_and_white_have_the_greatest_contrast():
    assert _measure(_checkers(28))["contrast"] == pytest.approx([0.5])


def test_colourfulness_is_that_of_hasler_and_suesstrunk():
    half = _plain(RED)
    half[:, 112:] = (0, 200, 0)

    # Red − green is ±200: deviation 200, mean 0. (Red + green) / 2 − blue is 100 everywhere: deviation 0, mean 100.
    assert _measure(half)["colourfulness"] == pytest.approx([200 + 0.3 * 100])


def test_saturation_is_the_mean_share():
    half = _plain(RED)
    half[:112] = GREY

    assert _measure(half)["saturation"] == pytest.approx([0.5])


def test_a_blurred_picture_is_less_sharp_and_has_fewer_edges():
    sharp = _checkers(8)
    blurred = cv2.GaussianBlur(sharp, (0, 0), 6)

    assert _measure(sharp)["sharpness"] > _measure(blurred)["sharpness"] + 1
    assert _measure(sharp)["edges"] > _measure(blurred)["edges"]


def test_the_share_of_a_colour_can_be_read_from_the_histogram():
    quarter = _plain(BLUE)
    quarter[:112, :112] = RED

    mixed, red, blue = (np.square(_measure(picture)["colours"]) for picture in (quarter, _plain(RED), _plain(BLUE)))

    assert red @ blue == 0
    np.testing.assert_allclose(mixed, 0.25 * red + 0.75 * blue, atol=0.02)


def test_colours_near_each_other_are_nearer_than_others():
    red, brick, blue = PaletteEncoder(8).encode([_frames(_plain(c)) for c in (RED, (190, 10, 5), BLUE)])

    assert red @ brick > red @ blue + 0.1


def test_a_plain_disc_is_no_face_and_noise_neither():
    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3)).astype(np.uint8)
    circle = cv2.circle(_plain(GREY), (112, 112), 60, (230, 190, 160), -1)

    assert _measure(noise, circle)["faces"] == [0.0]


def test_a_face_is_found_in_the_frames_that_show_it():
    """It is drawn: the cascade looks at shades, such as eyes darker than cheeks."""
    face = _plain((90, 90, 90))
    cv2.ellipse(face, (112, 116), (50, 66), 0, 0, 360, (205, 170, 150), -1)
    for x in (92, 132):
        cv2.ellipse(face, (x, 98), (13, 6), 0, 0, 360, (70, 50, 45), -1)
        cv2.ellipse(face, (x, 84), (15, 4), 0, 0, 360, (80, 60, 50), -1)
    cv2.ellipse(face, (112, 124), (8, 14), 0, 0, 360, (225, 190, 170), -1)
    cv2.ellipse(face, (112, 150), (20, 5), 0, 0, 360, (120, 60, 60), -1)
    face = cv2.GaussianBlur(face, (0, 0), 3)

    assert _measure(face, _plain(GREY))["faces"] == [0.5]


def test_no_block_drowns_the_others():
    random = np.random.default_rng(0)
    pictures = []
    for seed in range(24):
        grid = random.integers(0, random.integers(40, 256), (random.integers(2, 40), random.integers(2, 40), 3))
        pictures.append(cv2.resize(grid.astype(np.uint8), (224, 224), interpolation=seed % 2))

    vectors = PaletteEncoder(8).encode([_frames(picture) for picture in pictures])

    shares = {name: float(np.square(vectors[:, block]).sum(axis=1).mean()) for name, block in LAYOUT.items()}
    assert max(shares.values()) < 0.5, shares
