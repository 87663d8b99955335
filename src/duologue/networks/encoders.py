"""Encoders, from observations to features: one for each kind of observation space.

All leaves of a module are arrays, because shapes and functions are static. So modules pass through `jit`, `scan` and
`vmap` without a filter. They accept any leading axes `*batch`.
"""

import math
from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from duologue.errors import ConfigError
from duologue.images import Channels, Image, Scale, read_box
from duologue.networks.layers import HIDDEN_SCALE, Conv, Dense, Init
from duologue.types import ACTION_MASK, Box, Dict, Discrete, MultiDiscrete, Obs, Space


class AbstractEncoder(eqx.Module):
    """Maps observations `[*batch, ...]` to float32 features `[*batch, size]`."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of features."""

    @abstractmethod
    def __call__(self, obs: Obs) -> Float[Array, "*batch size"]:
        """The features."""


class Flatten(AbstractEncoder):
    """Real arrays of any shape, flattened; integers are divided by `scale`, one number or one for each element."""

    shape: tuple[int, ...] = eqx.field(static=True)
    scale: Scale = eqx.field(static=True, default=None)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __call__(self, obs: Shaped[Array, "*obs"]) -> Float[Array, "*batch size"]:
        return divide(jnp.reshape(obs, (*batch_shape(obs, len(self.shape)), self.size)), self.scale)


class OneHot(AbstractEncoder):
    """An integer as a unit vector."""

    n: int = eqx.field(static=True)

    @property
    def size(self) -> int:
        return self.n

    def __call__(self, obs: Int[Array, "*batch"]) -> Float[Array, "*batch size"]:
        return jax.nn.one_hot(obs, self.n, dtype=jnp.float32)


class MultiOneHot(AbstractEncoder):
    """Several integers as unit vectors side by side."""

    nvec: tuple[int, ...] = eqx.field(static=True)

    @property
    def size(self) -> int:
        return sum(self.nvec)

    def __call__(self, obs: Int[Array, "*batch k"]) -> Float[Array, "*batch size"]:
        one_hots = [jax.nn.one_hot(obs[..., i], n, dtype=jnp.float32) for i, n in enumerate(self.nvec)]
        return jnp.concatenate(one_hots, axis=-1)


class CNN(AbstractEncoder):
    """Convolutions `(filters, kernel, stride)`, then a dense layer, each followed by ReLU.

    `image` has the axes of an observation; integers are divided by `scale`.
    """

    convolutions: tuple[Conv, ...]
    dense: Dense
    image: Image = eqx.field(static=True)
    scale: Scale = eqx.field(static=True)

    def __init__(
        self, image: Image, convolutions: tuple[tuple[int, int, int], ...], features: int,
        *, scale: Scale = None, init: Init, key: Array,
    ):  # fmt: skip
        *keys, dense_key = jax.random.split(key, len(convolutions) + 1)
        height, width, channels = image[:3]
        layers = []
        for (filters, kernel, stride), layer_key in zip(convolutions, keys, strict=True):
            layers.append(Conv(channels, filters, kernel=kernel, stride=stride, init=init, key=layer_key))
            height, width, channels = (height - kernel) // stride + 1, (width - kernel) // stride + 1, filters
        self.convolutions = tuple(layers)
        self.dense = Dense(height * width * channels, features, scale=HIDDEN_SCALE[init], init=init, key=dense_key)
        self.image, self.scale = image, scale

    @property
    def size(self) -> int:
        return self.dense.bias.shape[-1]

    def __call__(self, obs: Shaped[Array, "*obs"]) -> Float[Array, "*batch size"]:
        batch = batch_shape(obs, len(self.image.axes))
        x = divide(jnp.reshape(obs, (math.prod(batch), *obs.shape[len(batch) :])), self.scale)
        x = jnp.transpose(x, (0, *(axis + 1 for axis in self.image.axes)))
        x = jnp.reshape(x, (len(x), *self.image[:3]))
        for convolution in self.convolutions:
            x = jax.nn.relu(convolution(x))
        x = jax.nn.relu(self.dense(jnp.reshape(x, (x.shape[0], -1))))
        return jnp.reshape(x, (*batch, self.size))


def nature_cnn(image: Image, *, scale: Scale = None, init: Init, key: Array) -> CNN:
    """The network of Mnih et al. 2015 (Nature 518): images of at least 36 × 36, 512 features."""
    return CNN(image, ((32, 8, 4), (64, 4, 2), (64, 3, 1)), 512, scale=scale, init=init, key=key)


def small_cnn(image: Image, *, scale: Scale = None, init: Init, key: Array) -> CNN:
    """The network of MinAtar (Young and Tian 2019, arXiv:1903.03176): images of 10 × 10, 128 features."""
    return CNN(image, ((16, 3, 1),), 128, scale=scale, init=init, key=key)


class DictEncoder(AbstractEncoder):
    """The parts of a dict, each with its own encoder, side by side in the order of their sorted keys."""

    encoders: dict[str, AbstractEncoder]

    @property
    def size(self) -> int:
        return sum(encoder.size for encoder in self.encoders.values())

    def __call__(self, obs: dict[str, Obs]) -> Float[Array, "*batch size"]:
        return jnp.concatenate([self.encoders[name](obs[name]) for name in sorted(self.encoders)], axis=-1)


def make_encoder(space: Space, *, channels: Channels = None, init: Init, key: Array) -> AbstractEncoder:
    """The encoder of an observation space. It leaves out the action mask of a `Dict`.

    Images (`images.find_image`) are convolved: `nature_cnn` from 36 × 36 up, else `small_cnn`. Other real arrays are
    flattened. Raises `ConfigError` for a `Dict` that holds nothing to observe.
    """
    match space:
        case Discrete(n):
            return OneHot(n)
        case MultiDiscrete(nvec):
            return MultiOneHot(nvec)
        case Box(shape):
            image, scale = read_box(space, channels)
            if image is None:
                return Flatten(shape, scale)
            cnn = nature_cnn if min(image.height, image.width) >= 36 else small_cnn
            return cnn(image, scale=scale, init=init, key=key)
        case Dict(spaces):
            names = sorted(spaces.keys() - {ACTION_MASK})
            if not names:
                raise ConfigError(
                    f"Observation space {space} has nothing to observe. Add a part other than {ACTION_MASK!r}."
                )
            parts = zip(names, jax.random.split(key, len(names)), strict=True)
            return DictEncoder(
                {name: make_encoder(spaces[name], channels=channels, init=init, key=k) for name, k in parts}
            )


def batch_shape(obs: Array | np.ndarray, rank: int) -> tuple[int, ...]:
    """The leading axes of `obs`, before its last `rank` axes."""
    return obs.shape[: obs.ndim - rank]


def divide(x: Shaped[Array, "..."], scale: Scale) -> Float[Array, "..."]:
    """x / `scale` in float32, with one number or one for each element of the last axis; x itself for `None`."""
    x = x.astype(jnp.float32)
    if isinstance(scale, tuple):
        return x / jnp.broadcast_to(jnp.asarray(scale, jnp.float32), x.shape)
    return x if scale is None else x / scale
