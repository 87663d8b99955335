"""Which observations are images, and which axis is that of the channels: every rule with values by hand."""

import pytest

from duologue.images import Image, channel_axis, find_image, image_notes, read_box
from duologue.types import Box, Dict, Discrete, MultiDiscrete

FIRST, MIDDLE, LAST = (1, 2, 0), (0, 2, 1), (0, 1, 2)
BYTES = {"dtype": "uint8", "low": (0.0,), "high": (255.0,)}


@pytest.mark.parametrize(
    ("shape", "sides", "axes"),
    [
        # Two equal axes: the third.
        ((8, 8, 111), (8, 8, 111), LAST),
        ((7, 7, 20), (7, 7, 20), LAST),
        ((36, 36, 64), (36, 36, 64), LAST),
        ((111, 8, 8), (8, 8, 111), FIRST),
        ((4, 84, 84), (84, 84, 4), FIRST),
        ((84, 84, 4), (84, 84, 4), LAST),
        ((64, 3, 64), (64, 64, 3), MIDDLE),
        ((9, 17, 9), (9, 9, 17), MIDDLE),
        # Three equal axes: the last.
        ((10, 10, 10), (10, 10, 10), LAST),
        # Otherwise the smaller of first and last.
        ((4, 84, 90), (84, 90, 4), FIRST),
        ((84, 90, 4), (84, 90, 4), LAST),
        ((9, 5, 7), (9, 5, 7), LAST),
        ((7, 5, 9), (5, 9, 7), FIRST),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["uint8", "float32", "bool"])
def test_the_shape_decides_which_axis_is_that_of_the_channels(shape, sides, axes, dtype):
    assert find_image(Box(shape, dtype)) == Image(*sides, axes)


@pytest.mark.parametrize("shape", [(8, 8, 111), (111, 8, 8), (9, 5, 7), (10, 10, 10)], ids=str)
def test_a_setting_decides_before_the_shape(shape):
    first, middle, last = shape
    assert find_image(Box(shape), "first") == Image(middle, last, first, FIRST)
    assert find_image(Box(shape), "last") == Image(first, middle, last, LAST)
    assert find_image(Box(shape), "none") is None
    assert [channel_axis(shape, each) for each in ("first", "last")] == [0, 2]


@pytest.mark.parametrize("shape", [(64, 9, 5), (8, 8, 111), (36, 36, 20), (4, 84, 84)], ids=str)
def test_the_axis_of_a_known_stack_is_certain(shape):
    frames, height, width = shape
    for channels in (None, "first", "last"):  # a frame has no axis of channels
        assert find_image(Box(shape, stacked=True), channels) == Image(height, width, frames, FIRST)
    assert find_image(Box(shape, stacked=True), "none") is None


def test_a_stack_of_colour_frames_has_the_channels_of_all_frames():
    for stacked in (True, False):
        last, first = Box((4, 96, 90, 3), stacked=stacked), Box((4, 3, 96, 90), stacked=stacked)
        assert find_image(last) == Image(96, 90, 12, (1, 2, 0, 3))
        assert find_image(first) == Image(96, 90, 12, (2, 3, 0, 1))
    assert find_image(Box((2, 9, 5, 7)), "first") == Image(5, 7, 18, (2, 3, 0, 1))


def test_two_axes_are_a_grey_image_if_they_hold_all_bytes():
    grey = Image(84, 80, 1, (0, 1))
    assert find_image(Box((84, 80), **BYTES)) == find_image(Box((84, 80), "uint8")) == grey
    assert find_image(Box((84, 80), "uint8", (0.0,) * 6720, (255.0,) * 6720)) == grey
    for vector in (
        Box((8, 8), "uint8", (0.0,), (1.0,)), Box((8, 8), "uint8", (0.0,) * 64, (255.0,) * 63 + (1.0,)),
        Box((84, 80)), Box((84, 80), "int8"), Box((4, 128), stacked=True, **BYTES),
    ):  # fmt: skip
        assert find_image(vector) is None


def test_all_others_are_vectors():
    for space in (Box(()), Box((3,)), Box((128,), **BYTES), Box((2, 3, 4, 5, 6)), Discrete(3), MultiDiscrete((2, 3))):
        assert find_image(space) is None
    assert find_image(Dict({"a": Box((8, 8, 3))})) is None  # its parts are asked one by one


def test_an_image_has_room_for_the_smallest_filter():
    assert find_image(Box((3, 8, 2))) == Image(3, 8, 2, LAST)
    for small in ((2, 2, 3), (1, 1, 512), (5, 2, 4), (2, 5, 2), (4, 5, 2, 4)):
        assert find_image(Box(small)) is None and find_image(Box(small), smallest=1) is not None
    assert find_image(Box((2, 2, 3)), smallest=1) == Image(2, 2, 3, LAST)


@pytest.mark.parametrize(
    ("space", "scale"),
    [
        (Box((128,), **BYTES), 255),
        (Box((3,), "uint8", (0.0,) * 3, (7.0,) * 3), 7),
        (Box((8, 8, 12), "uint8", (0.0,), (1.0,)), 1),
        (Box((3,), "uint8", (0.0,) * 3, (7.0, 7.0, 8.0)), (7, 7, 8)),
        (Box((3,), "uint8", (0.0,) * 3, (0.0, 255.0, 1.0)), (1, 255, 1)),
        (Box((3,), "uint8", (0.0,) * 3, (0.0, 1.0, 1.0)), None),
        (Box((5, 5, 1), "uint8", (0.0,) * 25, (7.0,) * 24 + (8.0,)), 255),
        (Box((3,), "uint8"), None),
        (Box((8, 8, 12), "uint8"), 255),
        (Box((8, 8, 12), "uint8", (0.0,), (0.0,)), 255),  # all are 0
        (Box((3,), "uint8", (0.0,) * 3, (0.0,) * 3), None),
        (Box((8, 8, 12), "float32", (0.0,), (255.0,)), None),
        # All integers, by the larger side of their range; a range of more than two bytes says nothing of the values.
        (Box((8, 8, 12), "int32", (0.0,), (255.0,)), 255),
        (Box((2,), "int8", (-128.0, -128.0), (127.0, 127.0)), 128),
        (Box((2,), "int16", (-300.0, 0.0), (20.0, 7.0)), (300, 7)),
        (Box((70,), "uint16", (0.0,), (65_535.0,)), 65_535),
        (Box((2,), "int32", (-(2.0**31), 0.0), (2.0**31, 9.0)), (1, 9)),
        (Box((2,), "int32", (0.0, 0.0), (65_536.0, 65_536.0)), None),
        (Box((2,), "int32", (0.0, None), (5.0, 5.0)), (5, 1)),
        (Box((2,), "int32", None, (5.0, 5.0)), None),
        (Box((2,), "int8"), None),
        (Box((8, 8, 12), "int32", (0.0,), (2.0**31,)), None),
        (Box((2,), "bool", (0.0, 0.0), (1.0, 1.0)), None),
    ],
    ids=str,
)
def test_integers_are_divided_by_the_larger_side_of_their_range(space, scale):
    assert read_box(space).scale == scale


def test_notes_name_the_parts_and_their_axes():
    assert image_notes(Box((8, 8, 111))) == ["observations are images of 8 × 8 with 111 channels"]
    assert image_notes(Box((84, 84), **BYTES)) == ["observations are images of 84 × 84 with 1 channel"]
    parts = Dict({"b": Box((4, 9, 7, 3)), "a": Dict({"x": Box((3, 9, 9)), "y": Box((3,))}), "c": Discrete(2)})
    assert image_notes(parts) == [
        "observations/a/x are images of 9 × 9 with 3 channels", "observations/b are images of 9 × 7 with 12 channels",
    ]  # fmt: skip
    wide = "observations/n hold integers up to 2,147,483,648, which enter the networks as they are"
    (note,) = image_notes(Dict({"n": Box((2,), "int32", (-(2.0**31), 0.0), (9.0, 9.0)), "m": Box((2,), "int8")}))
    assert note.startswith(wide)
    assert image_notes(parts, "none") == image_notes(Box((5,))) == []
