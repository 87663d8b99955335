"""Which observations are images, and how their axes and integers are read. All parts of the library ask here."""

import math
from typing import Literal, NamedTuple, TypeAlias

from duologue.types import Box, Dict, Space

Channels: TypeAlias = Literal["first", "last", "none"] | None
"""The axis of the channels in an image of three axes. "none": no observation is an image. None: its shape decides."""
Scale: TypeAlias = float | tuple[float, ...] | None
"""The number by which integers are divided, or one for each element of a vector. None: integers stay as they are."""
SMALLEST_SIDE = 3
"""Smallest height and width of an image. The smallest filters are 3 × 3, so a smaller array is read as a vector."""
BYTE = 255.0
"""The largest byte."""
WIDEST = 65_535.0
"""Largest bound by which integers are divided, that of two bytes. Of wider ranges, most values would become 0."""


class Image(NamedTuple):
    """The axes of an observation as those of an image `[height, width, channels]`."""

    height: int
    width: int
    channels: int
    """Number of channels; in a stack of images, of all its frames together."""
    axes: tuple[int, ...]
    """The axes of the observation in the order height, width, then those of the channels."""

    def __str__(self) -> str:
        return f"images of {self.height} × {self.width} with {self.channels} channel{'s' * (self.channels != 1)}"


class Reading(NamedTuple):
    """How networks read a Box."""

    image: Image | None
    """Its axes as those of an image; `None` for a vector."""
    scale: Scale


def find_image(space: Space, channels: Channels = None, *, smallest: int = SMALLEST_SIDE) -> Image | None:
    """The axes of an observation as those of an image; `None` if it is a vector.

    | axes | an image |
    | --- | --- |
    | 2 | of one channel, if it holds bytes 0 … 255 |
    | 3 | with one axis of channels; or a stack of frames with one channel, if `space.stacked` |
    | 4 | a stack of frames with channels; axis 0 is that of the frames |

    A side below `smallest` makes it a vector, and so does `channels="none"`.
    """
    if not isinstance(space, Box) or channels == "none":
        return None
    stack = (0,) if space.stacked or len(space.shape) == 4 else ()
    frame = tuple(range(len(stack), len(space.shape)))
    match len(frame):
        case 3:
            own = (frame[channel_axis(space.shape[-3:], channels)],)
        case 2 if stack or is_full_byte(space):
            own = ()
        case _:
            return None
    height, width = (axis for axis in frame if axis not in own)
    axes = (height, width, *stack, *own)
    sides = space.shape[height], space.shape[width]
    return Image(*sides, math.prod(space.shape[axis] for axis in axes[2:]), axes) if min(sides) >= smallest else None


def channel_axis(shape: tuple[int, ...], channels: Channels = None) -> int:
    """The axis of the channels in an image of three axes: the one that `channels` names; else the third where two axes
    are equal, the last where all are equal; else the smaller of the first and the last."""
    first, middle, last = shape
    match channels:
        case "first":
            return 0
        case "last":
            return 2
    if first == middle:
        return 2
    if first == last:
        return 1
    return 0 if middle == last or first < last else 2


def is_full_byte(space: Box) -> bool:
    """Whether every element is a byte from 0 to 255, as far as the bounds are known."""
    return space.dtype == "uint8" and set(space.high or ()) <= {BYTE, None}


def read_box(space: Box, channels: Channels = None) -> Reading:
    """How networks read a Box. Integers are divided by their largest size, max(|low|, |high|): one number if all
    elements have the same, else one for each element of a vector. Images of bytes without one number are divided by
    255. Integers stay as they are where a bound is not known, is 0, or is above `WIDEST`."""
    image, sizes = find_image(space, channels), integer_sizes(space)
    common = set(sizes)
    if len(common) == 1 and 0 < (size := common.pop()) <= WIDEST:
        return Reading(image, size)
    if image is not None:
        return Reading(image, BYTE if space.dtype == "uint8" else None)
    scales = tuple(size if 0 < size <= WIDEST else 1.0 for size in sizes)
    return Reading(None, scales if set(scales) - {1.0} else None)


def integer_sizes(space: Box) -> tuple[float, ...]:
    """max(|low|, |high|) of the elements of a Box of integers, or one number for all; ∞ where a bound is not known.
    Empty for other numbers, and where a side has no bound."""
    lows = (0.0,) if space.dtype.startswith("uint") else space.low
    if not space.dtype.startswith(("int", "uint")) or lows is None or space.high is None:
        return ()
    return tuple(
        math.inf if low is None or high is None else max(abs(low), abs(high))
        for low, high in zip(lows * (len(space.high) // len(lows)), space.high, strict=True)
    )


def image_notes(space: Space, channels: Channels = None, *, name: str = "observations") -> list[str]:
    """One sentence for each image in an observation, with the meaning of its axes; and one for integers that are too
    wide to be divided by their bound."""
    if isinstance(space, Dict):
        parts = sorted(space.spaces.items())
        return [note for key, part in parts for note in image_notes(part, channels, name=f"{name}/{key}")]
    image, sizes = find_image(space, channels), integer_sizes(space) if isinstance(space, Box) else ()
    notes = [] if image is None else [f"{name} are {image}"]
    if sizes and (largest := max(sizes)) > WIDEST:
        notes.append(
            f"{name} hold integers up to {largest:,.0f}, which enter the networks as they are: their range is too wide "
            "to divide by. If they are large, convert them to floats with gymnasium.wrappers.TransformObservation"
        )
    return notes
