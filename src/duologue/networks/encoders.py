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
    """Real arrays of any shape, flattened."""

    shape: tuple[int, ...] = eqx.field(static=True)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __call__(self, obs: Shaped[Array, "*obs"]) -> Float[Array, "*batch size"]:
        return jnp.reshape(obs, (*batch_shape(obs, self.shape), self.size)).astype(jnp.float32)


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

    Frame stacks `[C, H, W]` and images `[H, W, C]` both work: the smaller of the first and last axis holds the
    channels. Bytes are divided by 255.
    """

    convolutions: tuple[Conv, ...]
    dense: Dense
    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, ...],
        convolutions: tuple[tuple[int, int, int], ...],
        features: int,
        *,
        init: Init,
        key: Array,
    ):
        *keys, dense_key = jax.random.split(key, len(convolutions) + 1)
        height, width, channels = image_shape(shape)
        layers = []
        for (filters, kernel, stride), layer_key in zip(convolutions, keys, strict=True):
            layers.append(Conv(channels, filters, kernel=kernel, stride=stride, init=init, key=layer_key))
            height, width, channels = (height - kernel) // stride + 1, (width - kernel) // stride + 1, filters
        self.convolutions = tuple(layers)
        self.dense = Dense(height * width * channels, features, scale=HIDDEN_SCALE[init], init=init, key=dense_key)
        self.shape = shape

    @property
    def size(self) -> int:
        return self.dense.bias.shape[-1]

    def __call__(self, obs: Shaped[Array, "*obs"]) -> Float[Array, "*batch size"]:
        batch = batch_shape(obs, self.shape)
        x = jnp.reshape(obs, (math.prod(batch), *self.shape)).astype(jnp.float32)
        if obs.dtype == jnp.uint8:
            x = x / 255
        if image_shape(self.shape) != self.shape:
            x = jnp.moveaxis(x, 1, -1)
        for convolution in self.convolutions:
            x = jax.nn.relu(convolution(x))
        x = jax.nn.relu(self.dense(jnp.reshape(x, (x.shape[0], -1))))
        return jnp.reshape(x, (*batch, self.size))


def nature_cnn(shape: tuple[int, ...], *, init: Init, key: Array) -> CNN:
    """The network of Mnih et al. 2015 (Nature 518): images of at least 36 × 36, 512 features."""
    return CNN(shape, ((32, 8, 4), (64, 4, 2), (64, 3, 1)), 512, init=init, key=key)


def small_cnn(shape: tuple[int, ...], *, init: Init, key: Array) -> CNN:
    """The network of MinAtar (Young and Tian 2019, arXiv:1903.03176): images of 10 × 10, 128 features."""
    return CNN(shape, ((16, 3, 1),), 128, init=init, key=key)


class DictEncoder(AbstractEncoder):
    """The parts of a dict, each with its own encoder, side by side in the order of their sorted keys."""

    encoders: dict[str, AbstractEncoder]

    @property
    def size(self) -> int:
        return sum(encoder.size for encoder in self.encoders.values())

    def __call__(self, obs: dict[str, Obs]) -> Float[Array, "*batch size"]:
        return jnp.concatenate([self.encoders[name](obs[name]) for name in sorted(self.encoders)], axis=-1)


def make_encoder(space: Space, *, init: Init, key: Array) -> AbstractEncoder:
    """The encoder of an observation space. It leaves out the action mask of a `Dict`.

    Arrays of rank three are images (`nature_cnn` from 36 × 36 up, else `small_cnn`); other real arrays are flattened.
    Raises `ConfigError` for a `Dict` that holds nothing to observe.
    """
    match space:
        case Discrete(n):
            return OneHot(n)
        case MultiDiscrete(nvec):
            return MultiOneHot(nvec)
        case Box(shape) if len(shape) == 3 and min(image_shape(shape)[:2]) >= 36:
            return nature_cnn(shape, init=init, key=key)
        case Box(shape) if len(shape) == 3 and min(image_shape(shape)[:2]) >= 3:
            return small_cnn(shape, init=init, key=key)
        case Box(shape):
            return Flatten(shape)
        case Dict(spaces):
            names = sorted(spaces.keys() - {ACTION_MASK})
            if not names:
                raise ConfigError(
                    f"Observation space {space} has nothing to observe. Add a part other than {ACTION_MASK!r}."
                )
            keys = jax.random.split(key, len(names))
            return DictEncoder(
                {name: make_encoder(spaces[name], init=init, key=k) for name, k in zip(names, keys, strict=True)}
            )


def image_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """`(height, width, channels)` of an image, channels first or last."""
    first, middle, last = shape
    return (middle, last, first) if first < last else shape


def batch_shape(obs: Array | np.ndarray, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The leading axes of `obs`, before its last axes `shape`."""
    return obs.shape[: obs.ndim - len(shape)]
