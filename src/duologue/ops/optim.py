"""Gradient steps, optimisers and schedules."""

from collections.abc import Callable
from typing import Annotated, Any, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from duologue.errors import ConfigError
from duologue.fields import Configurable, Decay, Fraction, NonNegative, Positive, Range
from duologue.types import Metrics, PyTree

Net = TypeVar("Net")


def opt_init(optimizer: optax.GradientTransformation, params: PyTree) -> PyTree:
    """The optimiser's state before its first step, for modules too, which Optax's types do not know."""
    return optimizer.init(params)


def gradient_step(
    loss: Callable[..., tuple[Array, Metrics]],
    params: PyTree,
    opt_state: PyTree,
    optimizer: optax.GradientTransformation,
    *args: Any,
    name: str = "",
) -> tuple[PyTree, PyTree, Metrics]:
    """`(params, opt_state, metrics)` after one step down ∇ loss(params, *args), with the norm of the gradient before
    clipping as `{name}gradient_norm`.

    `loss` returns `(scalar, metrics)` and is differentiated by its first argument only: everything else is a constant.
    """
    gradient, metrics = jax.grad(loss, has_aux=True)(params, *args)
    with jax.numpy_dtype_promotion("standard"):  # Optax raises a float to an integer count, which strict rules forbid
        updates, opt_state = optimizer.update(gradient, opt_state, params)
    return (
        optax.apply_updates(params, updates),
        opt_state,
        {**metrics, f"{name}gradient_norm": optax.tree.norm(gradient)},
    )


class Trained(eqx.Module, Generic[Net]):
    """A network and the state of the optimiser that trains it. It is called like the network."""

    net: Net
    opt_state: PyTree

    @staticmethod
    def of(net: Net, optimizer: optax.GradientTransformation) -> "Trained[Net]":
        """`net` before the first step of `optimizer`."""
        return Trained(net, opt_init(optimizer, net))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.net(*args, **kwargs)  # pyright: ignore[reportCallIssue]


def descend(
    loss: Callable[..., tuple[Array, Metrics]],
    trained: Trained[Net],
    optimizer: optax.GradientTransformation,
    *args: Any,
    name: str = "",
) -> tuple[Trained[Net], Metrics]:
    """`(trained, metrics)` after one `gradient_step` down ∇ loss(net, *args)."""
    net, opt_state, metrics = gradient_step(loss, trained.net, trained.opt_state, optimizer, *args, name=name)
    return Trained(net, opt_state), metrics


def minibatches(count: int, size: int) -> int:
    """How many minibatches of `size` there are in `count` samples. Raises `ConfigError` where it does not divide."""
    if count % size:
        near = min((n for n in range(1, count + 1) if count % n == 0), key=lambda n: (abs(n - size), -n))
        raise ConfigError(
            f"minibatch_size = {size:,}: must divide the samples of a rollout, rollout_length × num_envs = {count:,}. "
            f"The nearest that does is {near:,}."
        )
    return count // size


def shuffled(count: int, size: int, epochs: int, *, key: Array) -> Int[Array, "M size"]:
    """The samples of each minibatch: in every epoch a permutation of them all, cut into pieces of `size`."""
    order = jax.vmap(lambda key: jax.random.permutation(key, count))(jax.random.split(key, epochs))
    return order.reshape(epochs * minibatches(count, size), size)


def every_step(
    step: Callable[[PyTree, Array], tuple[PyTree, Metrics]], start: PyTree, rows: Int[Array, "M size"],
    *, stop: Callable[[Metrics], Array] | None = None,
) -> tuple[PyTree, Metrics]:  # fmt: skip
    """Fold `step(state, rows[i]) -> (state, metrics)` over all i, with the means of the metrics and the count `steps`.

    It ends before a step whose metrics `stop` it; they count in the means all the same.
    """
    if stop is None:
        state, metrics = jax.lax.scan(step, start, rows)
        return state, {**jax.tree.map(lambda x: jnp.mean(x, axis=0), metrics), "steps": jnp.float32(len(rows))}

    def once(now: tuple[Array, Array, PyTree, Metrics]) -> tuple[Array, Array, PyTree, Metrics]:
        i, _, state, sums = now
        after, metrics = step(state, rows[i])
        over = stop(metrics)
        state = jax.tree.map(lambda old, new: jnp.where(over, old, new), state, after)
        return i + 1, over, state, jax.tree.map(jnp.add, sums, metrics)

    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(lambda: step(start, rows[0])[1]))
    seen, over, state, sums = jax.lax.while_loop(
        lambda now: (now[0] < len(rows)) & ~now[1], once, (jnp.int32(0), jnp.asarray(False), start, zero)
    )
    count = seen.astype(jnp.float32)
    return state, {**jax.tree.map(lambda x: x / count, sums), "steps": count - over.astype(jnp.float32)}


def target_of(params: PyTree) -> PyTree:
    """A target network as it begins: a copy, for a donated buffer may stand in a state only once."""
    return jax.tree.map(jnp.copy, params)


def polyak(target: PyTree, source: PyTree, tau: float) -> PyTree:
    """θ̄ ← (1 − τ) θ̄ + τ θ. What others call polyak, or ρ, is 1 − τ."""
    return jax.tree.map(lambda old, new: (1 - tau) * old + tau * new, target, source)


def periodic(target: PyTree, source: PyTree, step: Int[Array, ""], period: int) -> PyTree:
    """θ̄ ← θ where `step` is a multiple of `period`, else θ̄ stays."""
    return jax.tree.map(lambda old, new: jnp.where(step % period == 0, new, old), target, source)


class Linear(Configurable):
    """A straight line from `start` to `end`, constant afterwards."""

    start: NonNegative
    """Value at the first gradient step."""
    end: NonNegative = 0.0
    """Value after `updates` of them."""
    updates: Annotated[int, Range(1)] | None = None
    """Gradient steps from one to the other; `train` writes the length of the run here where it is left out."""

    def __call__(self, step: Int[Array, ""]) -> Float[Array, ""]:
        if self.updates is None:
            raise ConfigError(
                "Linear.updates is not set: `train` sets it to the length of the run; in a loop of your own, give it."
            )
        share = jnp.clip(step.astype(jnp.float32) / self.updates, 0.0, 1.0)
        return self.start + (self.end - self.start) * share


LearningRate = Positive | Linear


def slowed(rate: float | Linear, by: int) -> float | Callable[[Int[Array, ""]], Float[Array, ""]]:
    """A rate for an optimiser that steps once in `by` of the steps that its schedule counts: that of TD3's actor."""
    return (lambda step: rate(step * by)) if isinstance(rate, Linear) else rate


class RMSProp(Configurable):
    """RMSProp as TensorFlow and OpenAI Baselines have it: ε under the root, the running mean of squares starts at 1.

    Δθ = −η g/√(v + ε),   v ← ρv + (1 − ρ)g². PyTorch (and so Stable-Baselines3) starts v at 0 and adds ε outside the
    root.
    """

    decay: Fraction = 0.99
    """ρ, how slowly the mean of squared gradients moves."""
    eps: NonNegative = 1e-5
    """ε under the root."""

    def build(self, learning_rate: float | Callable) -> optax.GradientTransformation:
        return optax.rmsprop(learning_rate, decay=self.decay, eps=self.eps, initial_scale=1.0, eps_in_sqrt=True)


class Adam(Configurable):
    """Adam (Kingma and Ba, 2015)."""

    b1: Decay = 0.9
    """Decay of the mean of gradients."""
    b2: Decay = 0.999
    """Decay of the mean of squared gradients."""
    eps: NonNegative = 1e-8
    """ε outside the root."""

    def build(self, learning_rate: float | Callable) -> optax.GradientTransformation:
        return optax.adam(learning_rate, b1=self.b1, b2=self.b2, eps=self.eps)


def adam(learning_rate: float | Callable) -> optax.GradientTransformation:
    """Adam with the constants of its paper."""
    return Adam().build(learning_rate)


def flat(
    optimizer: RMSProp | Adam, learning_rate: float | Callable, *, max_norm: float | None = None
) -> optax.GradientTransformation:
    """`optimizer`, clipped, over one vector of all parameters instead of an array for each layer: networks as small as
    those of on-policy methods are bound by overhead."""
    return optax.flatten(clipped(optimizer.build(learning_rate), max_norm))


def clipped(optimizer: optax.GradientTransformation, max_norm: float | None) -> optax.GradientTransformation:
    """`optimizer` behind a clip of the gradient's global norm; `None` leaves it as it is."""
    return optimizer if max_norm is None else optax.chain(optax.clip_by_global_norm(max_norm), optimizer)
