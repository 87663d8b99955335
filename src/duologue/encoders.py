"""From observations to features: the layers, and the encoder that each observation space asks for.

Modules hold arrays only as leaves (shapes and functions are static), so they pass through `jit`, `scan` and `vmap`
unfiltered. They act on any leading axes `*batch`.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from itertools import pairwise, zip_longest
from typing import Literal, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from duologue.errors import ConfigError
from duologue.types import ACTION_MASK, Box, Dict, Discrete, MultiDiscrete, Obs, Space

Init: TypeAlias = Literal["orthogonal", "lecun"]
INITIALIZERS = {"orthogonal": jax.nn.initializers.orthogonal(), "lecun": jax.nn.initializers.lecun_normal()}
HIDDEN_SCALE = {"orthogonal": math.sqrt(2), "lecun": 1.0}
"""What a layer followed by a nonlinearity is scaled by; sqrt(2) as in OpenAI baselines."""


def initial_weight(init: Init, shape: tuple[int, ...], *, scale: float, key: Array) -> Float[Array, "..."]:
    """`scale` times an orthogonal matrix or LeCun *normal* values (truncated, variance 1 / inputs); outputs last."""
    return scale * INITIALIZERS[init](key, shape, jnp.float32)


class Dense(eqx.Module):
    """y = x W + b, with W `[in, out]`. The bias starts at zero."""

    weight: Float[Array, "in out"]
    bias: Float[Array, " out"]

    def __init__(self, inputs: int, outputs: int, *, scale: float, init: Init, key: Array):
        self.weight = initial_weight(init, (inputs, outputs), scale=scale, key=key)
        self.bias = jnp.zeros(outputs, jnp.float32)

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        y = x @ self.weight
        return y + jnp.broadcast_to(self.bias, y.shape)


class LayerNorm(eqx.Module):
    """(x − mean)/√(variance + ε) over the last axis, then a scale and an offset of each unit (Ba et al., 2016)."""

    scale: Float[Array, " units"]
    offset: Float[Array, " units"]

    def __init__(self, units: int):
        self.scale, self.offset = jnp.ones(units, jnp.float32), jnp.zeros(units, jnp.float32)

    def __call__(self, x: Float[Array, "*batch units"]) -> Float[Array, "*batch units"]:
        y = jax.nn.standardize(x, axis=-1, epsilon=1e-5)
        return y * jnp.broadcast_to(self.scale, y.shape) + jnp.broadcast_to(self.offset, y.shape)


class Trunk(eqx.Module):
    """Dense layers, each followed by `activation`, and by a layer normalisation before it where that is asked for.
    `sizes` are the input's and the layers'; one alone: the identity."""

    layers: tuple[Dense, ...]
    norms: tuple[LayerNorm, ...]
    activation: Callable = eqx.field(static=True)

    def __init__(
        self, sizes: tuple[int, ...], *, activation: Callable, layer_norm: bool = False, init: Init, key: Array
    ):
        keys = jax.random.split(key, len(sizes) - 1)
        self.layers = tuple(
            Dense(*size, scale=HIDDEN_SCALE[init], init=init, key=k)
            for size, k in zip(pairwise(sizes), keys, strict=True)
        )
        self.norms = tuple(map(LayerNorm, sizes[1:])) if layer_norm else ()
        self.activation = activation

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        for layer, norm in zip_longest(self.layers, self.norms):
            x = layer(x)
            x = self.activation(x if norm is None else norm(x))
        return x


class MLP(eqx.Module):
    """A trunk and a linear layer, whose first weights are scaled by `output_scale`.

    `sizes` are the input's, the hidden layers' and the output's: at least two.
    """

    trunk: Trunk
    output: Dense

    def __init__(
        self, sizes: tuple[int, ...], *, activation: Callable, layer_norm: bool = False, output_scale: float = 1.0,
        init: Init, key: Array,
    ):  # fmt: skip
        trunk_key, output_key = jax.random.split(key)
        self.trunk = Trunk(sizes[:-1], activation=activation, layer_norm=layer_norm, init=init, key=trunk_key)
        self.output = Dense(sizes[-2], sizes[-1], scale=output_scale, init=init, key=output_key)

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        rows = x.reshape(-1, x.shape[-1])  # over two axes XLA copies what each gradient of a matrix sums
        y = self.output(self.trunk(rows))
        return y.reshape(*x.shape[:-1], y.shape[-1])


def beside(features: Float[Array, "*batch f"], x: Float[Array, "*more d"]) -> Float[Array, "*more f_and_d"]:
    """Both in one vector; the features of a state, `[*batch, f]`, with each of several x, `[n, *batch, d]`."""
    return jnp.concatenate([jnp.broadcast_to(features, (*x.shape[:-1], features.shape[-1])), x], axis=-1)


class Conv(eqx.Module):
    """A square convolution without padding, as one product over patches. The bias starts at zero.

    XLA's convolution on a CPU needs 10 to 20 times as long for its gradient where it stands inside a loop, as all
    learning here does (docs/design.md).
    """

    weight: Float[Array, "kernel kernel in out"]
    bias: Float[Array, " out"]
    stride: int = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int, init: Init, key: Array):
        self.weight = initial_weight(init, (kernel, kernel, inputs, outputs), scale=HIDDEN_SCALE[init], key=key)
        self.bias = jnp.zeros(outputs, jnp.float32)
        self.stride = stride

    def __call__(self, x: Float[Array, "N H W in"]) -> Float[Array, "N H2 W2 out"]:
        kernel, _, inputs, outputs = self.weight.shape
        blocks = -(-kernel // self.stride)  # that a patch is wide, each of stride × stride; zeros fill the last
        fill = blocks * self.stride - kernel
        weight = jnp.pad(self.weight, ((0, fill), (0, fill), (0, 0), (0, 0)))
        weight = weight.reshape(blocks, self.stride, blocks, self.stride, inputs, outputs)
        y = patches(x, kernel, self.stride, blocks) @ weight.transpose(0, 2, 1, 3, 4, 5).reshape(-1, outputs)
        return y + jnp.broadcast_to(self.bias, y.shape)


def patches(x: Float[Array, "N H W in"], kernel: int, stride: int, blocks: int) -> Float[Array, "N H2 W2 patch"]:
    """What each output of a convolution sees: `blocks` × `blocks` blocks of `stride` × `stride` pixels."""
    count, height, width, channels = x.shape
    rows, columns = (height - kernel) // stride + 1, (width - kernel) // stride + 1
    tall, wide = rows + blocks - 1, columns + blocks - 1
    x = jnp.pad(x, ((0, 0), (0, max(0, tall * stride - height)), (0, max(0, wide * stride - width)), (0, 0)))
    x = x[:, : tall * stride, : wide * stride].reshape(count, tall, stride, wide, stride, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(count, tall, wide, stride * stride * channels)
    shifted = [x[:, i : i + rows, j : j + columns] for i in range(blocks) for j in range(blocks)]
    return jnp.concatenate(shifted, axis=-1)


class AbstractEncoder(eqx.Module):
    """Observations `[*batch, ...]` to float32 features `[*batch, size]`."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many features."""

    @abstractmethod
    def __call__(self, obs: Obs) -> Float[Array, "*batch size"]:
        """The features."""


class Flatten(AbstractEncoder):
    """Real arrays of any shape, as they are."""

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

    Frame stacks `[C, H, W]` and images `[H, W, C]` both work: the smaller of the first and last axis is the channels'.
    Bytes are divided by 255.
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


class Parts(AbstractEncoder):
    """The parts of a dict, each with its own encoder, side by side in the order of their sorted keys."""

    encoders: dict[str, AbstractEncoder]

    @property
    def size(self) -> int:
        return sum(encoder.size for encoder in self.encoders.values())

    def __call__(self, obs: dict[str, Obs]) -> Float[Array, "*batch size"]:
        return jnp.concatenate([self.encoders[name](obs[name]) for name in sorted(self.encoders)], axis=-1)


def encoder(space: Space, *, init: Init, key: Array) -> AbstractEncoder:
    """The encoder of an observation space; the action mask of a `Dict` is not observed.

    Arrays of rank three are images (`nature_cnn` from 36 × 36 up, else `small_cnn`), other real arrays are flattened.
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
                    f"Observation space {space} holds nothing to observe. Add a part beside {ACTION_MASK!r}."
                )
            keys = jax.random.split(key, len(names))
            return Parts({name: encoder(spaces[name], init=init, key=k) for name, k in zip(names, keys, strict=True)})


def image_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """`(height, width, channels)` of an image, channels first or last."""
    first, middle, last = shape
    return (middle, last, first) if first < last else shape


def batch_shape(obs: Array | np.ndarray, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The leading axes of `obs`, whose last ones are `shape`."""
    return obs.shape[: obs.ndim - len(shape)]
