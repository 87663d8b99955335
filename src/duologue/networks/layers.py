"""The layers of networks, and their initial weights.

All leaves of a module are arrays, because shapes and functions are static. So modules pass through `jit`, `scan` and
`vmap` without a filter. They accept any leading axes `*batch`.
"""

import math
from collections.abc import Callable
from itertools import pairwise, zip_longest
from typing import Literal, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Init: TypeAlias = Literal["orthogonal", "lecun", "pytorch"]
INITIALIZERS = {
    "orthogonal": jax.nn.initializers.orthogonal(),
    "lecun": jax.nn.initializers.lecun_normal(),
    "pytorch": jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
}
HIDDEN_SCALE = {"orthogonal": math.sqrt(2), "lecun": 1.0, "pytorch": 1.0}
"""Scale of the initial weights of a layer before a nonlinearity; sqrt(2) as in OpenAI baselines."""


def initial_weight(init: Init, shape: tuple[int, ...], *, scale: float, key: Array) -> Float[Array, "..."]:
    """`scale` times an orthogonal matrix, LeCun *normal* values (truncated, variance 1 / inputs), or PyTorch's uniform
    values in ±1/√inputs. The last axis of `shape` is that of outputs."""
    return scale * INITIALIZERS[init](key, shape, jnp.float32)


def initial_bias(init: Init, shape: tuple[int, ...], *, scale: float, key: Array) -> Float[Array, " out"]:
    """0, or PyTorch's uniform values in ±`scale`/√inputs. `shape` and `key` are those of the weight."""
    if init != "pytorch":
        return jnp.zeros(shape[-1], jnp.float32)
    bound = scale / math.sqrt(math.prod(shape[:-1]))
    return jax.random.uniform(jax.random.fold_in(key, 1), shape[-1:], minval=-bound, maxval=bound)


def product(x: Float[Array, "*batch in"], weight: Float[Array, "in out"]) -> Float[Array, "*batch out"]:
    """x W, and its gradients, in full float32. The default of a GPU is TF32, with ten bits of mantissa. If the user has
    set `jax_default_matmul_precision`, that precision applies."""
    chosen = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
    return jnp.matmul(x, weight, precision="highest" if chosen is None else None)


class Dense(eqx.Module):
    """y = x W + b, with W `[in, out]`."""

    weight: Float[Array, "in out"]
    bias: Float[Array, " out"]

    def __init__(self, inputs: int, outputs: int, *, scale: float, init: Init, key: Array):
        self.weight = initial_weight(init, (inputs, outputs), scale=scale, key=key)
        self.bias = initial_bias(init, self.weight.shape, scale=scale, key=key)

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        y = product(x, self.weight)
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
    """Dense layers, each followed by `activation`; with `layer_norm`, a layer normalisation before each activation.
    `sizes` holds the sizes of the input and of the layers. A single size gives the identity."""

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
    """A trunk and a linear layer. `output_scale` scales the initial weights and biases of the linear layer.

    `sizes` holds the sizes of the input, the hidden layers and the output: at least two.
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
        rows = x.reshape(-1, x.shape[-1])  # with two batch axes XLA copies the inputs of every gradient of a matrix
        y = self.output(self.trunk(rows))
        return y.reshape(*x.shape[:-1], y.shape[-1])


def join_features(features: Float[Array, "*batch f"], x: Float[Array, "*more d"]) -> Float[Array, "*more f_and_d"]:
    """Concatenate features and x. If x is `[n, *batch, d]`, the features `[*batch, f]` repeat for each of the n."""
    return jnp.concatenate([jnp.broadcast_to(features, (*x.shape[:-1], features.shape[-1])), x], axis=-1)


class Conv(eqx.Module):
    """A square convolution without padding, as one product over patches.

    On a CPU, the gradient of XLA's convolution takes 10 to 20 times as long inside a loop, and all learning here runs
    inside a loop (docs/notes.md).
    """

    weight: Float[Array, "kernel kernel in out"]
    bias: Float[Array, " out"]
    stride: int = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int, init: Init, key: Array):
        self.weight = initial_weight(init, (kernel, kernel, inputs, outputs), scale=HIDDEN_SCALE[init], key=key)
        self.bias = initial_bias(init, self.weight.shape, scale=HIDDEN_SCALE[init], key=key)
        self.stride = stride

    def __call__(self, x: Float[Array, "N H W in"]) -> Float[Array, "N H2 W2 out"]:
        kernel, _, inputs, outputs = self.weight.shape
        blocks = -(-kernel // self.stride)  # width of a patch in blocks of stride × stride; zeros fill the last one
        fill = blocks * self.stride - kernel
        weight = jnp.pad(self.weight, ((0, fill), (0, fill), (0, 0), (0, 0)))
        weight = weight.reshape(blocks, self.stride, blocks, self.stride, inputs, outputs)
        weight = weight.transpose(0, 2, 1, 3, 4, 5).reshape(-1, outputs)
        y = product(patches(x, kernel, self.stride, blocks), weight)
        return y + jnp.broadcast_to(self.bias, y.shape)


def patches(x: Float[Array, "N H W in"], kernel: int, stride: int, blocks: int) -> Float[Array, "N H2 W2 patch"]:
    """The input of each output of a convolution: `blocks` × `blocks` blocks of `stride` × `stride` pixels."""
    count, height, width, channels = x.shape
    rows, columns = (height - kernel) // stride + 1, (width - kernel) // stride + 1
    tall, wide = rows + blocks - 1, columns + blocks - 1
    x = jnp.pad(x, ((0, 0), (0, max(0, tall * stride - height)), (0, max(0, wide * stride - width)), (0, 0)))
    x = x[:, : tall * stride, : wide * stride].reshape(count, tall, stride, wide, stride, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(count, tall, wide, stride * stride * channels)
    shifted = [x[:, i : i + rows, j : j + columns] for i in range(blocks) for j in range(blocks)]
    return jnp.concatenate(shifted, axis=-1)
