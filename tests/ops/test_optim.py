"""Steps against hand values, optimisers against their formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from duologue.errors import ConfigError
from duologue.ops.optim import (
    Adam,
    Linear,
    RMSProp,
    Trained,
    clipped_optimizer,
    descend,
    flat_optimizer,
    gradient_step,
    skip_steps,
)

GRADIENTS = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32) * np.array([1e-3, 1.0, 30.0], np.float32)


def quadratic(params, target, extra):
    """½‖w − target‖² + extra · b, whose gradient is (w − target, extra)."""
    error = params["w"] - target
    return 0.5 * jnp.sum(error**2) + extra * params["b"], {"error": jnp.sum(error), "extra": extra}


def a_step(optimizer):
    params = {"w": jnp.array([4.0, 0.0]), "b": jnp.array(1.0)}
    return gradient_step(quadratic, params, optimizer.init(params), optimizer, jnp.array([1.0, 4.0]), jnp.array(12.0))


def test_one_step_down_a_quadratic():
    """∇ = (3, −4, 12), whose norm is 13."""
    params, _, metrics = a_step(optax.sgd(0.5))
    np.testing.assert_allclose(params["w"], [4 - 1.5, 0 + 2.0])
    np.testing.assert_allclose(params["b"], 1 - 6.0)
    assert metrics.keys() == {"error", "extra", "gradient_norm"}
    assert (float(metrics["error"]), float(metrics["extra"]), float(metrics["gradient_norm"])) == (-1.0, 12.0, 13.0)


def test_the_norm_is_from_before_the_clip_and_the_clip_is_of_all_leaves_together():
    params, _, metrics = a_step(clipped_optimizer(optax.sgd(1.0), 6.5))  # half the norm of 13
    np.testing.assert_allclose(params["w"], [4 - 1.5, 0 + 2.0], rtol=1e-6)
    np.testing.assert_allclose(params["b"], 1 - 6.0, rtol=1e-6)
    assert float(metrics["gradient_norm"]) == 13.0
    for unclipped in (clipped_optimizer(optax.sgd(1.0), 13.5), clipped_optimizer(optax.sgd(1.0), None)):
        np.testing.assert_allclose(a_step(unclipped)[0]["w"], [1.0, 4.0], rtol=1e-6)


def test_only_the_first_argument_is_differentiated():
    """A target that is computed from the same parameters is data once it is an argument."""
    w = jnp.array([2.0])

    def loss(params, target):
        return jnp.sum((params - target) ** 2), {}

    moved, _, metrics = gradient_step(loss, w, optax.sgd(1.0).init(w), optax.sgd(1.0), 3 * w)
    np.testing.assert_allclose(moved, 2 - 2 * (2 - 6.0))
    assert float(metrics["gradient_norm"]) == 8.0


def walk(optimizer, gradients):
    """Parameters after every step along given gradients, from 0."""

    def step(carry, gradient):
        params, state = carry
        params, state, _ = gradient_step(lambda p, g: (jnp.sum(p * g), {}), params, state, optimizer, gradient)
        return (params, state), params

    begin = jnp.zeros(gradients.shape[1])
    return jax.jit(lambda g: jax.lax.scan(step, (begin, optimizer.init(begin)), g)[1])(jnp.asarray(gradients))


@pytest.mark.parametrize(("decay", "eps"), [(0.99, 1e-5), (0.5, 0.1), (0.9, 3.0)])
def test_rmsprop_has_epsilon_under_the_root_and_starts_at_one(decay, eps):
    w, v, expected = np.zeros(3), np.ones(3), []
    for g in GRADIENTS.astype(np.float64):
        v = decay * v + (1 - decay) * g**2
        w = w - 0.01 * g / np.sqrt(v + eps)
        expected.append(w)
    np.testing.assert_allclose(walk(RMSProp(decay=decay, eps=eps).build(0.01), GRADIENTS), expected, rtol=1e-5)


@pytest.mark.parametrize(("b1", "b2", "eps"), [(0.9, 0.999, 1e-8), (0.5, 0.7, 0.1), (0.0, 0.9, 1e-3)])
def test_adam_is_the_papers_algorithm_1(b1, b2, eps):
    w, m, v, expected = np.zeros(3), np.zeros(3), np.zeros(3), []
    for t, g in enumerate(GRADIENTS.astype(np.float64), 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        w = w - 0.01 * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        expected.append(w)
    np.testing.assert_allclose(walk(Adam(b1=b1, b2=b2, eps=eps).build(0.01), GRADIENTS), expected, rtol=2e-4)


def test_a_schedule_counts_gradient_steps_from_zero():
    """With gradients of 1 and plain steps, what is walked is the sum of the rates: 4, 3, 2, 1, 0, 0."""
    rate = Linear(start=4.0, end=0.0, updates=4)
    np.testing.assert_allclose(walk(optax.sgd(rate), np.ones((6, 1), np.float32))[:, 0], [-4, -7, -9, -10, -10, -10])
    # RMSProp with ρ = 1 and ε = 0 divides by √1.
    for optimizer in (RMSProp(decay=1.0, eps=0.0),):
        walked = walk(optimizer.build(rate), np.ones((6, 1), np.float32))[:, 0]
        np.testing.assert_allclose(walked, [-4, -7, -9, -10, -10, -10])


@pytest.mark.parametrize("optimizer", [Adam(), RMSProp()])
@pytest.mark.parametrize("max_norm", [None, 0.5])
def test_skipped_steps_count_in_the_schedule_alone(optimizer, max_norm):
    """After 1 step and 2 skipped ones, the rate is that of step 3; Adam's own count and moments are those of 1 step."""
    rate = Linear(start=4.0, end=0.0, updates=4)
    built = flat_optimizer(optimizer, rate, max_norm=max_norm)
    one, _ = descend(lambda w: (jnp.sum(w), {}), Trained.of(jnp.ones(3), built), built)
    before, after = (jax.tree.leaves_with_path(x.opt_state) for x in (one, skip_steps(one, jnp.int32(2))))
    changed = [(path, b) for (path, a), (_, b) in zip(before, after, strict=True) if (a != b).any()]
    assert len(changed) == 1 and int(changed[0][1]) == 3
    third, _ = descend(lambda w: (jnp.sum(w), {}), skip_steps(one, jnp.int32(2)), built)
    second, _ = descend(lambda w: (jnp.sum(w), {}), one, built)
    np.testing.assert_allclose((third.net - one.net) * 3, second.net - one.net, rtol=1e-6)  # the rates are 1 and 3
    constant = flat_optimizer(optimizer, 0.1, max_norm=max_norm)
    plain = Trained.of(jnp.ones(3), constant)
    jax.tree.map(np.testing.assert_array_equal, skip_steps(plain, jnp.int32(2)), plain)


@pytest.mark.parametrize(("step", "value"), [(0, 3.0), (1, 2.8), (5, 2.0), (10, 1.0), (11, 1.0), (10**9, 1.0)])
def test_linear_at_its_beginning_middle_end_and_beyond(step, value):
    schedule = Linear(start=3.0, end=1.0, updates=10)
    result = jax.jit(schedule)(jnp.asarray(step, jnp.int32))
    assert float(result) == pytest.approx(value, abs=1e-6) and result.dtype == jnp.float32


def test_linear_ends_at_zero_unless_told_and_needs_its_length():
    assert float(Linear(start=3.0, updates=2)(jnp.asarray(2))) == 0.0
    with pytest.raises(ConfigError, match=r"Linear\.updates is not set"):
        Linear(start=3.0)(jnp.asarray(0))
    with pytest.raises(ConfigError, match=r"Linear\.updates = 0: must be an integer >= 1"):
        Linear(start=3.0, updates=0)
    with pytest.raises(ConfigError, match=r"Linear\.end = -1\.0: must be a number >= 0"):
        Linear(start=3.0, end=-1.0)
    with pytest.raises(ConfigError, match=r"Adam\.b2 = 1\.0: must be a number in \[0, 1\)"):
        Adam(b2=1.0)
