"""What single calls cost on this machine: `python benchmarks/calls.py`.

A minibatch of PPO and an update of ACER as their algorithms make them; an update of SAC-X for one task and for
six; and why convolutions are products over patches: the gradient of one alone, and inside `scan`. The best of five
timings each. And, once, how long a file of a million rows takes to read and to start with.
"""

import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import recorded
from rich.console import Console

import duologue as dl
from duologue.networks.layers import Conv
from duologue.types import Box, Discrete, EnvSpec, Transition

SPEC = EnvSpec("CartPole", Box((4,)), Discrete(2))
KEY = jax.random.key(0)


def best(function: Callable, *args: Any) -> float:
    """Seconds of the compiled call."""
    call, times = jax.jit(function), []
    jax.block_until_ready(call(*args))
    for _ in range(5):
        began = time.perf_counter()
        jax.block_until_ready(call(*args))
        times.append(time.perf_counter() - began)
    return min(times)


def update(algorithm: Any) -> float:
    """Seconds of an update on a rollout of noise."""
    shape = (algorithm.rollout_length, algorithm.num_envs)
    obs, after = jax.random.normal(KEY, (2, *shape, 4))
    flags = jnp.zeros(shape, bool)
    extras = {name: jnp.full((*shape, 2), 0.5) for name in algorithm.experience.extras}
    rollout = Transition(obs, jnp.zeros(shape, jnp.int32), jnp.ones(shape), flags, flags, after, extras)
    state = jax.jit(lambda key: algorithm.init(SPEC, key=key))(KEY)
    return best(lambda state, rollout: algorithm.update(state, rollout, key=KEY), state, rollout)


def intentions(tasks: int) -> float:
    """Seconds of an update of SAC-X for so many tasks on LunarLander's shapes, on sequences of noise."""
    spec = EnvSpec("LunarLander", Box((8,)), Discrete(4), tasks=tuple(f"task_{i}" for i in range(tasks)))
    algorithm = dl.SACX(scheduler=dl.task_schedulers.Uniform())
    shape = (algorithm.sequence_length, algorithm.batch_size)
    obs, after = jax.random.normal(KEY, (2, *shape, 8))
    action, flags = jax.random.randint(KEY, shape, 0, 4), jnp.zeros(shape, bool)
    extras = {"log_prob": jnp.full(shape, -1.4), "raw_action": action}
    batch = Transition(obs, action, jnp.ones((*shape, tasks)), flags, flags, after, extras)
    state = jax.jit(lambda key: algorithm.init(spec, key=key))(KEY)
    return best(lambda state, batch: algorithm.update(state, batch, key=KEY), state, batch)


def library(layer: Conv, x: jax.Array) -> jax.Array:
    """XLA's own convolution."""
    strides, layout = (layer.stride, layer.stride), ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, layer.weight, strides, "VALID", dimension_numbers=layout)


def gradient(convolution: Callable, layer: Conv, x: jax.Array, *, repeats: int | None) -> float:
    """Seconds of a gradient in the weights, alone or in a `scan`."""

    def step(layer: Conv, _: None) -> tuple[Conv, None]:
        slope = jax.grad(lambda layer: jnp.sum(convolution(layer, x) ** 2))(layer)
        return jax.tree.map(lambda w, g: w - 1e-9 * g, layer, slope), None

    if repeats is None:
        return best(lambda layer: step(layer, None)[0], layer)
    return best(lambda layer: jax.lax.scan(step, layer, None, length=repeats)[0], layer) / repeats


def million() -> tuple[float, float]:
    """Seconds to read a million rows in HalfCheetah's shapes, and from there until IQL has made ten updates."""
    columns = recorded.columns()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "million.npz"
        np.savez(path, **{name: np.tile(x, (10,) + (1,) * (x.ndim - 1)) for name, x in columns.items()})
        began = time.perf_counter()
        data = dl.read_data(path)
        read = time.perf_counter()
        dl.train(dl.IQL(), dataset=data, steps=10, run_dir=Path(folder) / "run", console=Console(file=io.StringIO()))
        return read - began, time.perf_counter() - read


def main() -> None:
    read, started = million()
    print(f"a file of a million rows: {read:.1f} s to read, {started:.1f} s to ten updates of IQL, compiling included")
    ppo, acer = dl.PPO(num_envs=8), dl.ACER()
    print(f"PPO, minibatch of 64, 64-64 tanh: {1e6 * update(ppo) / ppo.experience.gradient_steps:.0f} µs")
    print(f"ACER, 16 sequences of 20, 64-64 tanh: {1 / update(acer):,.0f} updates/s")
    one, six = intentions(1), intentions(6)
    print(f"SAC-X, 32 sequences of 8, 128-128 and 32 a task: 1 task {1 / one:,.0f} updates/s, 6 tasks {1 / six:,.0f}")
    print(f"  six cost {six / one:.1f} of one; six agents of one task each in turn would cost 6")
    for size, kernel, stride, filters, count in ((10, 3, 1, 16, 320), (84, 8, 4, 32, 32)):
        layer = Conv(4, filters, kernel=kernel, stride=stride, init="lecun", key=KEY)
        x = jax.random.normal(KEY, (count, size, size, 4))
        for name, convolution in (("XLA's own", library), ("over patches", lambda layer, x: layer(x))):
            alone, inside = (1e3 * gradient(convolution, layer, x, repeats=n) for n in (None, 5))
            print(f"{count} images of {size} × {size}, {name}: {alone:.1f} ms alone, {inside:.1f} ms in scan")


if __name__ == "__main__":
    main()
