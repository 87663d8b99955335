"""Environments of any space that Gymnasium can name, and observations from the edges of these spaces."""

import warnings

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from hypothesis import strategies as st

INF = np.inf
FLOATS, INTEGERS = ("float32", "float64", "float16"), ("uint8", "int8", "bool", "int32", "int64", "uint16", "uint64")
FLOAT_BOUNDS = (-INF, INF, 0.0, -1.0, 1.0, 0.1, 7.0, -1000.0, 255.0, 1e6, 1e-30, 6e4, 3.4028234e38, 1e300, -1e300)
NO_SQUARE = 1e18
INTEGER_BOUNDS = (0, 1, 2, 255, 7, -1, 3, -128, 1000, 2**31 - 1, -(2**31), 2**40, 2**63 - 1, -(2**63), 2**64 - 1)
SMALL_SHAPES = st.lists(st.sampled_from((1, 2, 3, 0)), max_size=4).map(tuple)
PICTURES = ((8, 8), (3, 4, 2), (2, 5, 5), (5, 5, 1), (4, 3, 2, 3), (2, 2, 3, 3))
NAMES = ("a", "b", "", "a/b", "é", "type", "0")


class AnyEnv(gym.Env):
    """Its observations lie inside its space, often at a bound; it says whether an action lies inside."""

    def __init__(self, observation, action, seed):
        self.observation_space, self.action_space = observation, action
        self.steps, self._random = 0, np.random.default_rng(seed)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.member(), {}

    def step(self, action):
        assert self.action_space.contains(action), f"{action!r} is outside of {self.action_space}"
        self.steps += 1
        return self.member(), 1.0, False, False, {}

    def member(self):
        return member(self.observation_space, self.action_space, self._random)


def member(space, action, random):
    """An element of an observation space. A part `action_mask` allows some actions of every component."""
    match space:
        case spaces.Dict():
            return {
                name: mask(part, action, random) if name == "action_mask" else member(part, action, random)
                for name, part in space.spaces.items()
            }
        case spaces.Tuple():
            return tuple(member(part, action, random) for part in space.spaces)
        case spaces.Discrete():
            return space.start + random.choice([0, int(space.n) - 1]).astype(space.dtype)
        case spaces.MultiDiscrete():
            last = space.nvec - 1
            return (space.start + np.where(random.random(space.shape) < 0.5, 0, last)).astype(space.dtype)
        case spaces.MultiBinary():
            return random.integers(0, 2, space.shape).astype(space.dtype)
    # Integers come from both ends of their range; real numbers are small where the range allows it.
    if space.dtype.kind == "f":
        drawn = np.clip(random.normal(size=space.shape), space.low, space.high)
    else:
        narrow = np.dtype({"int64": "int32", "uint64": "uint32"}.get(space.dtype.name, space.dtype.name))
        ends = (
            (space.low, space.high)
            if narrow == space.dtype
            else (
                np.clip(side.astype(object), np.iinfo(narrow).min, np.iinfo(narrow).max)
                for side in (space.low, space.high)
            )
        )
        drawn = np.where(random.random(space.shape) < 0.5, *ends)
    return np.asarray(drawn, space.dtype)


def mask(space, action, random):
    """A mask in its space that allows at least the first action of every component."""
    counts = mask_counts(action)
    parts = [np.concatenate([[1], random.integers(0, 2, count - 1)]) for count in counts] or [np.ones(space.shape)]
    whole = np.concatenate(parts)
    return (whole if whole.shape == space.shape else np.ones(space.shape)).astype(space.dtype)


def mask_counts(action):
    """Number of actions of each component; empty for actions without a mask."""
    match action:
        case spaces.Discrete():
            return [int(action.n)]
        case spaces.MultiDiscrete():
            return action.nvec.ravel().tolist()
        case spaces.MultiBinary():
            return [2] * int(np.prod(action.shape))
    return []


def places_at_fault(space, at="observation"):
    """The places of parts of an observation that no network can read: other kinds of spaces, parts without an element
    or a name, and numbers outside of int32 and float32."""
    most, least = 2**31 - 1, -(2**31)
    match space:
        case spaces.Dict() | spaces.Tuple():
            parts = space.spaces if isinstance(space, spaces.Dict) else dict(enumerate(space.spaces))
            names = {name: name if isinstance(space, spaces.Dict) else str(name) for name in parts}
            if not parts or not all(isinstance(name, str) for name in names.values()):
                yield at
            for name, part in parts.items():
                yield from places_at_fault(part, f"{at}[{names[name]!r}]")
        case spaces.Discrete() | spaces.MultiDiscrete():
            count = np.ravel(space.n if isinstance(space, spaces.Discrete) else space.nvec).astype(object)
            first = np.ravel(space.start).astype(object)
            if not count.size or max(count) > 10**6 or min(first) < least or max(first + count - 1) > most:
                yield at
        case spaces.Box():
            low, high = np.asarray(space.low, np.float64), np.asarray(space.high, np.float64)
            if not (low.size and (low < NO_SQUARE).all() and (high > -NO_SQUARE).all()):
                yield at
        case spaces.MultiBinary():
            pass
        case _:
            yield at


# Spaces


@st.composite
def boxes(draw, shapes, dtypes):
    """Boxes with bounds of their own for each element, or the same for all."""
    shape, dtype = draw(shapes), np.dtype(draw(st.sampled_from(dtypes)))
    if dtype.kind == "f":
        bounds, least, most = FLOAT_BOUNDS, -INF, INF
    elif dtype.kind == "b":
        bounds, least, most = (0, 1), 0, 1
    else:
        bounds, least, most = INTEGER_BOUNDS, np.iinfo(dtype).min, np.iinfo(dtype).max
    inside = st.sampled_from([x for x in bounds if least <= x <= most])
    pair = st.tuples(inside, inside).map(sorted).filter(lambda sides: sides[0] < most and sides[1] > least)
    count = int(np.prod(shape))
    pairs = [draw(pair)] * count if count > 6 or draw(st.booleans()) else [draw(pair) for _ in range(count)]
    with warnings.catch_warnings(), np.errstate(over="ignore"):
        warnings.simplefilter("ignore")
        low, high = (np.array([each[side] for each in pairs], dtype).reshape(shape) for side in (0, 1))
        return spaces.Box(low, high, shape, dtype)


def nan_bound():
    """Gymnasium refuses it where a Box is made, but not later."""
    box = spaces.Box(-1.0, 1.0, (2,))
    box.low[1] = np.nan
    return box


DISCRETE = st.builds(
    lambda n, start: spaces.Discrete(n, start=start),
    st.sampled_from((1, 2, 3, 5, 300)),
    st.sampled_from((0, 0, 1, -2, 10, 2**31 - 400, -(2**31), 2**40)),
)
HUGE = st.sampled_from((10**6 + 1, 2**31 - 1, 2**31, 2**40, 2**63 - 1)).map(spaces.Discrete)


@st.composite
def multi_discrete(draw):
    shape = draw(st.sampled_from(((1,), (2,), (3,), (2, 2), (1, 1, 2), ())))
    count = int(np.prod(shape))
    nvec = [draw(st.sampled_from((1, 2, 3, 7))) for _ in range(count)]
    start = [draw(st.sampled_from((0, 0, 1, -3, 100))) for _ in range(count)]
    dtype = draw(st.sampled_from((np.int64, np.int32, np.uint8, np.int8)))
    start = np.maximum(start, 0) if np.dtype(dtype).kind == "u" else np.array(start)
    shaped = lambda x: np.reshape(np.asarray(x, dtype), shape)  # noqa: E731
    return spaces.MultiDiscrete(shaped(nvec), dtype=dtype, start=shaped(start))


MULTI_BINARY = st.sampled_from((1, 3, (2, 2), [2, 1])).map(spaces.MultiBinary)
FOREIGN = st.sampled_from((
    spaces.Text(3), spaces.Graph(spaces.Discrete(2), None), spaces.Sequence(spaces.Discrete(2)),
    spaces.OneOf((spaces.Discrete(2), spaces.Discrete(3))),
))  # fmt: skip
OBSERVED_BOXES = st.one_of(
    boxes(SMALL_SHAPES, FLOATS), boxes(SMALL_SHAPES, INTEGERS), boxes(st.sampled_from(PICTURES), ("uint8", "float32")),
)  # fmt: skip
ODD = st.sampled_from((
    spaces.Dict({}), spaces.Tuple(()), spaces.Dict({0: spaces.Discrete(2)}), spaces.MultiBinary(()),
    spaces.Box(-INF, -INF, (2,)), spaces.Box(np.float64([0, 1e300]), np.float64([1, INF]), dtype=np.float64),
    spaces.MultiDiscrete(np.zeros(0, np.int64)), spaces.Discrete(2, start=2**40), nan_bound(),
))  # fmt: skip
LEAVES = st.one_of(OBSERVED_BOXES, OBSERVED_BOXES, OBSERVED_BOXES, DISCRETE, multi_discrete(), MULTI_BINARY)
NESTED = st.recursive(
    LEAVES,
    lambda parts: st.one_of(
        st.lists(parts, min_size=1, max_size=3).map(spaces.Tuple),
        st.dictionaries(st.sampled_from(NAMES), parts, min_size=1, max_size=3).map(spaces.Dict),
    ),
    max_leaves=4,
)
ACTIONS = {
    "box": boxes(st.sampled_from(((1,), (2,), (3,), (), (2, 2), (1, 2, 1), (0,))), FLOATS),
    "bounded": st.sampled_from(((1,), (2,), (), (1, 2))).map(lambda shape: spaces.Box(-2.0, 3.0, shape)),
    "discrete": st.one_of(*[DISCRETE] * 5, HUGE),
    "multi-discrete": st.one_of(
        multi_discrete(), MULTI_BINARY, boxes(st.sampled_from(((1,), (2,), (2, 1), ())), INTEGERS)
    ),
    "foreign": st.one_of(FOREIGN, NESTED, ODD),
}


def with_mask(observation, action):
    """The observation with the mask of the action, of the right length or not."""
    count = sum(mask_counts(action))
    space = st.one_of(
        st.sampled_from(("int8", "uint8", "bool", "float32", "int64")).map(
            lambda dtype: spaces.Box(0, 1, (count,), np.dtype(dtype))
        ),
        st.just(spaces.MultiBinary(count)) if count else st.nothing(),
        st.just(spaces.Box(0, 1, (count + 1,), np.int8)),
    )
    return space.map(lambda mask: spaces.Dict({"x": observation, "action_mask": mask}))


@st.composite
def observations(draw, action):
    observation = draw(NESTED)
    kind = draw(st.sampled_from(("plain",) * 10 + ("mask", "mask", "foreign")))
    if kind == "mask" and sum(mask_counts(action)) < 1000:
        return draw(with_mask(observation, action))
    if kind == "foreign":
        return draw(st.sampled_from((spaces.Tuple, lambda parts: spaces.Dict(x=parts[0], y=parts[1]))))(
            (observation, draw(st.one_of(FOREIGN, ODD)))
        )
    return observation
