"""Records that all parts of the library share. They store facts; quantities are derived from them.

Axes have one letter each, everywhere: `T` time, `B` environments, `N` batch, `L` sequence, `E` ensemble, `S` seeds, `K`
tasks.
"""

import itertools
import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Array

PyTree: TypeAlias = Any
Obs: TypeAlias = Any
"""One array, or a dict of arrays where the observation space is a `Dict`."""
Metrics: TypeAlias = dict[str, Array]
"""Scalars by name (`"critic_loss"`), on the device. With several tasks a metric may be `[K]`; the loops split it."""

ACTION_MASK = "action_mask"
"""Reserved key of a `Dict` observation. It holds the mask of discrete actions: 1 means allowed, 0 means forbidden."""

LONG = 120
"""Largest number of characters of a space that a message shows whole."""


def has_mask(obs: Obs) -> bool:
    """Whether an observation holds a mask of allowed actions."""
    return isinstance(obs, dict) and ACTION_MASK in obs


class Transition(NamedTuple):
    """One record for all uses, from environment to loss: step `[B]`, rollout `[T, B]`, batch `[N]`, sequences `[L, N]`.

    `next_obs` is the true successor, before any reset. `action` is the policy's sample in environment units. With
    several tasks, `reward` has a last axis `K`, the main task last. `extras` holds the arrays that `act` returned about
    its policy; `Experience.extras` declares their names. Arrays are JAX's in compiled code and NumPy's on the host.
    """

    obs: Obs
    action: Any
    reward: Any
    terminated: Any
    truncated: Any
    next_obs: Obs
    extras: dict[str, Any]


class Step(NamedTuple):
    """Result of stepping `B` environments.

    `next_obs` is the true successor. `obs` is the observation to act on next: the same as `next_obs`, or the first
    observation of a new episode.
    """

    obs: Obs
    next_obs: Obs
    reward: Any
    terminated: Any
    truncated: Any
    info: dict[str, Any]


@dataclass(frozen=True)
class Poisson:
    """A number of updates that is drawn after each rollout, from a Poisson distribution with this mean."""

    mean: float


@dataclass(frozen=True)
class Replay:
    """How an algorithm learns from earlier transitions."""

    capacity: int
    """Number of transitions that are kept, over all environments of one seed."""
    batch_size: int
    """Number of transitions or sequences in a batch (N)."""
    sequence_length: int | None = None
    """Number of rows in a sequence (L). A batch is then `[L, N]`, time first. `None`: single transitions, `[N]`."""
    updates: int | Poisson = 1
    """Number of calls of `update` after each rollout, or its distribution."""
    batches_per_update: int | None = None
    """Number of batches in one call (D): `[D, N]` or `[D, L, N]`. `None`: one batch, without the axis D."""
    learning_starts: int = 0
    """Environment steps before the first update."""
    start_steps: int = 0
    """Environment steps with uniformly random actions."""


@dataclass(frozen=True)
class Experience:
    """How an algorithm gets its data. A loop knows only this record and the methods of the algorithm."""

    num_envs: int
    """Number of environments that step together, unless `train(num_envs=...)` sets another."""
    rollout_length: int
    """Steps of each environment between two updates."""
    extras: tuple[str, ...] = ()
    """The entries of `Transition.extras` that `act` returns and `update` reads."""
    learn_from_rollout: bool = True
    """Whether `update` gets each rollout, `[T, B]`."""
    replay: Replay | None = None
    """How `update` gets batches of earlier transitions. `None`: without such batches."""
    gradient_steps: int = 1
    """Number of gradient steps in one call of `update`, of the network with the most steps (TD3: `policy_delay`)."""
    tasks: bool = False
    """Whether `update` reads rewards `[*, K]`, one for each task."""

    @property
    def updates(self) -> int | float:
        """Number of calls of `update` for one rollout once learning has started; the mean if this number is drawn."""
        drawn = 0 if self.replay is None else self.replay.updates
        return int(self.learn_from_rollout) + (drawn.mean if isinstance(drawn, Poisson) else drawn)


def brief(space: Any) -> str:
    """A space of ours or of Gymnasium for a message: whole where it is short, else its kind and its size."""
    whole, kind = repr(space), type(space).__name__
    if len(whole) <= LONG and "\n" not in whole:
        return whole
    if (parts := getattr(space, "nvec", getattr(space, "spaces", None))) is not None:
        return f"{kind} of {np.size(parts) if kind == 'MultiDiscrete' else len(parts)} parts"
    return f"{kind} of the shape {space.shape} and {space.dtype}" if kind == "Box" else f"{whole[:LONG]}…"


@dataclass(frozen=True)
class Box:
    """Real numbers. A side has one bound for each element, `None` where the element has none. The whole side is `None`
    if no element has a bound. A side of observations may have one number for all elements."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    low: tuple[float | None, ...] | None = None
    high: tuple[float | None, ...] | None = None
    stacked: bool = field(default=False, kw_only=True)
    """Whether axis 0 stacks the newest frames, oldest first. At the start of an episode its first frame repeats."""

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bounded(self) -> bool:
        """Whether every element has both bounds."""
        return self.low is not None and self.high is not None and None not in (*self.low, *self.high)

    def __str__(self) -> str:
        return brief(self)


@dataclass(frozen=True)
class Discrete:
    """The integers `0 … n - 1`. If an environment counts from `start`, its adapter shifts the values, because all
    discrete values inside the library begin at 0."""

    n: int
    start: int = 0


@dataclass(frozen=True)
class MultiDiscrete:
    """Several integers. Inside the library they are a vector, and component i is one of `0 … nvec[i] - 1`."""

    nvec: tuple[int, ...]
    start: tuple[int, ...] | None = None
    """First value of each component in the environment's own counting. `None`: 0."""
    shape: tuple[int, ...] | None = None
    """Shape of the environment's own array. `None`: a vector."""
    dtype: str = "int64"
    """Dtype of the environment's own array."""

    @property
    def starts(self) -> np.ndarray:
        """First value of each component, int32 `[k]`."""
        return np.zeros(len(self.nvec), np.int32) if self.start is None else np.asarray(self.start, np.int32)

    def __str__(self) -> str:
        return brief(self)


@dataclass(frozen=True)
class Dict:
    """Named parts, each a space of its own."""

    spaces: dict[str, "Space"]

    def __str__(self) -> str:
        return brief(self)


Space: TypeAlias = Box | Discrete | MultiDiscrete | Dict


# Actions. Inside the library, an action of a Box is a float32 vector, and discrete values are int32 and begin at 0. The
# environment's own actions have the shape, the dtype and the start of its space.


def action_type(space: Space) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of one action inside the library."""
    match space:
        case Box():
            return (space.size,), np.dtype(np.float32)
        case MultiDiscrete(nvec):
            return (len(nvec),), np.dtype(np.int32)
        case Discrete():
            return (), np.dtype(np.int32)
        case Dict():
            raise TypeError("a Dict is no space of actions")


@lru_cache(maxsize=64)
def box_sides(space: Box) -> tuple[np.ndarray, np.ndarray]:
    """Low and high of a Box, float32 `[size]` each; −∞ and ∞ where an element has no bound."""

    def array(side: tuple[float | None, ...] | None, missing: float) -> np.ndarray:
        bounds = (None,) * space.size if side is None else side
        return np.asarray([missing if bound is None else bound for bound in bounds], np.float32)

    return array(space.low, -math.inf), array(space.high, math.inf)


def clip_to_bounds(space: Space, action: Any) -> Any:
    """Clip actions `[*batch, size]` (NumPy or JAX) to the bounds of a Box, at each side that an element has. Actions of
    other spaces stay unchanged."""
    if not isinstance(space, Box) or (space.low is None and space.high is None):
        return action
    low, high = box_sides(space)
    return action.clip(*(np.broadcast_to(side, action.shape) for side in (low, high)))


def bounded_actions(space: Space, action: Any) -> Any:
    """Actions `[*batch, size]` of a Box (NumPy or JAX), clipped, in the shape of the environment, `[*batch, *shape]`.
    Others stay unchanged."""
    action = clip_to_bounds(space, action)
    if not isinstance(space, Box) or len(space.shape) == 1:
        return action
    return action.reshape(*action.shape[:-1], *space.shape)


def to_env_actions(space: Space, action: np.ndarray) -> np.ndarray:
    """Actions `[n, …]` as the environment takes them: clipped, in its shape and dtype, shifted to its start."""
    match space:
        case Box(dtype=dtype):
            return bounded_actions(space, action).astype(dtype)
        case Discrete(start=start):
            return action.astype(np.int64) + start
        case MultiDiscrete(shape=shape, dtype=dtype):
            whole = action.astype(np.int64) + space.starts
            return (whole if shape is None else whole.reshape(-1, *shape)).astype(dtype)
        case Dict():
            raise TypeError("a Dict is no space of actions")


def from_env_actions(space: Space, action: np.ndarray) -> np.ndarray:
    """The inverse of `to_env_actions`: actions `[n, …]` of the environment as the library has them."""
    shape, dtype = action_type(space)
    match space:
        case Discrete(start=start):
            action = action.astype(np.int64) - start
        case MultiDiscrete():
            action = action.reshape(len(action), -1).astype(np.int64) - space.starts
    return action.reshape(len(action), *shape).astype(dtype)


def mask_sizes(action: Space) -> tuple[int, ...]:
    """Number of actions of each component. A mask has as many entries, side by side. Empty for actions that no mask can
    limit."""
    match action:
        case Discrete(n):
            return (n,)
        case MultiDiscrete(nvec):
            return nvec
    return ()


def are_masks(masks: Any, sizes: tuple[int, ...]) -> Any:
    """Which of the arrays `[*batch, n]` (NumPy or JAX) can mask an action, `[*batch]`: each entry is 0 or 1, and each
    component has an entry 1. Component i has `sizes[i]` entries."""
    allowed = masks.astype(bool)
    valid = (allowed.astype(masks.dtype) == masks).all(-1)
    for size, end in zip(sizes, itertools.accumulate(sizes), strict=True):
        valid = valid & allowed[..., end - size : end].any(-1)
    return valid


def bad_masks(obs: Obs, action: Space) -> Any:
    """Which observations `[*batch]` have an action mask that can mask no action of the space `action`; just `False`
    where observations have no mask. The successor of an end may have such a mask, because nobody acts on it."""
    sizes = mask_sizes(action)
    return ~are_masks(obs[ACTION_MASK], sizes) if sizes and has_mask(obs) else False


def describe_bad_mask(mask: Any, action: Space) -> str:
    """One of `bad_masks` in words: its entries `[n]`, what is wrong with them, and what they must be."""
    mask, sizes = np.asarray(mask), mask_sizes(action)
    numbers: Any = {"float_kind": "{:g}".format}
    named = f"the {ACTION_MASK} {np.array2string(mask, threshold=40, max_line_width=10**9, formatter=numbers)}"
    if not np.isin(mask, (0, 1)).all():
        return f"{named}: each entry must be 1 (allowed) or 0 (forbidden)"
    empty = [i for i, part in enumerate(np.split(mask, np.cumsum(sizes)[:-1])) if not part.any()]
    where = f" for component {empty[0]}" if len(sizes) > 1 else ""
    return f"{named}, which allows no action{where}: at least one must be allowed where the episode goes on"


@dataclass(frozen=True)
class EnvSpec:
    """All that an algorithm may know of an environment."""

    id: str
    observation: Space
    action: Space
    max_episode_steps: int | None = None
    reward_threshold: float | None = None
    tasks: tuple[str, ...] = ()
    """Names of the K tasks of rewards `[*, K]`, the main task last. Empty: rewards have no such axis."""
