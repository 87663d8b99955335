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
    """State of an optimiser before its first step. It accepts modules too, which Optax's types do not know."""
    return optimizer.init(params)


def gradient_step(
    loss: Callable[..., tuple[Array, Metrics]],
    params: PyTree,
    opt_state: PyTree,
    optimizer: optax.GradientTransformation,
    *args: Any,
    name: str = "",
) -> tuple[PyTree, PyTree, Metrics]:
    """`(params, opt_state, metrics)` after one step that reduces loss(params, *args). The metrics include the norm of
    the gradient before clipping, `{name}gradient_norm`.

    `loss` returns `(scalar, metrics)`. The gradient is that of its first argument; all other arguments are constants.
    """
    gradient, metrics = jax.grad(loss, has_aux=True)(params, *args)
    with jax.numpy_dtype_promotion("standard"):  # Optax computes float ** integer, which strict promotion forbids
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
    """`(trained, metrics)` after one `gradient_step` on loss(net, *args)."""
    net, opt_state, metrics = gradient_step(loss, trained.net, trained.opt_state, optimizer, *args, name=name)
    return Trained(net, opt_state), metrics


def skip_steps(trained: Trained[Net], count: Int[Array, ""]) -> Trained[Net]:
    """`trained` after `count` gradient steps that are not made: its schedules count these steps, and nothing else
    changes."""
    skipped = jax.tree.map(
        lambda node: node._replace(count=node.count + count) if is_clock(node) else node,
        trained.opt_state,
        is_leaf=is_clock,
    )
    return Trained(trained.net, skipped)


def is_clock(node: Any) -> bool:
    """Whether this part of an optimiser's state counts the steps of a schedule. Adam's own count is another one."""
    return isinstance(node, optax.ScaleByScheduleState)


def minibatch_count(count: int, size: int) -> int:
    """Number of minibatches of `size` in `count` samples. Raises `ConfigError` if `size` does not divide `count`."""
    if count % size:
        near = min((n for n in range(1, count + 1) if count % n == 0), key=lambda n: (abs(n - size), -n))
        raise ConfigError(
            f"minibatch_size = {size:,}: must divide the samples of a rollout, rollout_length × num_envs = {count:,}. "
            f"The nearest that does is {near:,}."
        )
    return count // size


def minibatch_rows(count: int, size: int, epochs: int, *, key: Array) -> Int[Array, "M size"]:
    """Rows of each minibatch. Every epoch permutes all `count` rows and cuts them into pieces of `size`."""
    order = jax.vmap(lambda key: jax.random.permutation(key, count))(jax.random.split(key, epochs))
    return order.reshape(epochs * minibatch_count(count, size), size)


def fold_steps(
    step: Callable[[PyTree, Array], tuple[PyTree, Metrics]], start: PyTree, rows: Int[Array, "M size"],
    *, stop: Callable[[Metrics], Array] | None = None,
) -> tuple[PyTree, Metrics]:  # fmt: skip
    """Apply `step(state, rows[i]) -> (state, metrics)` for i = 0 … M − 1, each time to the newest state.

    Returns the last state and the means of the metrics, with the number of steps as `steps`. If `stop(metrics)` is
    true, the loop ends and drops this last step; its metrics still count in the means.
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
    """The first target network: a copy, because a donated buffer may occur only once in a state."""
    return jax.tree.map(jnp.copy, params)


def polyak(target: PyTree, source: PyTree, tau: float) -> PyTree:
    """θ̄ ← (1 − τ) θ̄ + τ θ. Other libraries call 1 − τ polyak, or ρ."""
    return jax.tree.map(lambda old, new: (1 - tau) * old + tau * new, target, source)


def periodic_copy(target: PyTree, source: PyTree, step: Int[Array, ""], period: int) -> PyTree:
    """θ̄ ← θ if `step` is a multiple of `period`; else θ̄ stays."""
    return jax.tree.map(lambda old, new: jnp.where(step % period == 0, new, old), target, source)


class Linear(Configurable):
    """A straight line from `start` to `end`, constant afterwards."""

    start: NonNegative
    """Value at the first gradient step."""
    end: NonNegative = 0.0
    """Value after `updates` gradient steps."""
    updates: Annotated[int, Range(1)] | None = None
    """Number of gradient steps from `start` to `end`. None: `train` sets it to the length of the run. Steps that PPO's
    `target_kl` skips count too."""

    def __call__(self, step: Int[Array, ""]) -> Float[Array, ""]:
        if self.updates is None:
            raise ConfigError(
                "Linear.updates is not set: `train` sets it to the length of the run. In a loop of your own, pass it."
            )
        share = jnp.clip(step.astype(jnp.float32) / self.updates, 0.0, 1.0)
        return self.start + (self.end - self.start) * share


LearningRate = Positive | Linear


def delayed_rate(rate: float | Linear, by: int) -> float | Callable[[Int[Array, ""]], Float[Array, ""]]:
    """Learning rate of an optimiser that steps once in every `by` steps of its schedule, as TD3's actor does."""
    return (lambda step: rate(step * by)) if isinstance(rate, Linear) else rate


class RMSProp(Configurable):
    """RMSProp as TensorFlow and OpenAI Baselines have it: ε under the root, the running mean of squares starts at 1.

    Δθ = −η g/√(v + ε),   v ← ρv + (1 − ρ)g². PyTorch (and so Stable-Baselines3) starts v at 0 and adds ε outside the
    root.
    """

    decay: Fraction = 0.99
    """Decay of the mean of squared gradients (ρ)."""
    eps: NonNegative = 1e-5
    """Constant under the root (ε)."""

    def build(self, learning_rate: float | Callable) -> optax.GradientTransformation:
        return optax.rmsprop(learning_rate, decay=self.decay, eps=self.eps, initial_scale=1.0, eps_in_sqrt=True)


class Adam(Configurable):
    """Adam (Kingma and Ba, 2015)."""

    b1: Decay = 0.9
    """Decay of the mean of gradients (β₁)."""
    b2: Decay = 0.999
    """Decay of the mean of squared gradients (β₂)."""
    eps: NonNegative = 1e-8
    """Constant outside the root (ε)."""

    def build(self, learning_rate: float | Callable) -> optax.GradientTransformation:
        return optax.adam(learning_rate, b1=self.b1, b2=self.b2, eps=self.eps)


def adam(learning_rate: float | Callable) -> optax.GradientTransformation:
    """Adam with the constants of its paper."""
    return optax.adam(learning_rate, b1=0.9, b2=0.999, eps=1e-8)


def flat_optimizer(
    optimizer: RMSProp | Adam, learning_rate: float | Callable, *, max_norm: float | None = None
) -> optax.GradientTransformation:
    """`optimizer` after a clip of the gradient's global norm, on one vector of all parameters.

    With one array for each layer, overhead would dominate in networks as small as those of on-policy methods.
    """
    return optax.flatten(clipped_optimizer(optimizer.build(learning_rate), max_norm))


def clipped_optimizer(optimizer: optax.GradientTransformation, max_norm: float | None) -> optax.GradientTransformation:
    """`optimizer` after a clip of the gradient's global norm. With `max_norm = None`, `optimizer` unchanged."""
    return optimizer if max_norm is None else optax.chain(optax.clip_by_global_norm(max_norm), optimizer)
