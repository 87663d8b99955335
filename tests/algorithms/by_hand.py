"""Losses of replayed algorithms in float64 NumPy, from the papers, and what an optimiser was given beside them."""

import jax
import jax.numpy as jnp
import numpy as np

from duologue.networks.builder import Networks
from duologue.ops.optim import Trained
from duologue.types import Box, EnvSpec, Transition

N, L, D = 7, 2, 2
"""Sequences of a batch, rows of a sequence, dimensions of an action."""
LOW, HIGH = np.array([-1.0, 0.0]), np.array([1.0, 5.0])
CENTRE, HALF = (HIGH + LOW) / 2, (HIGH - LOW) / 2
SPEC = EnvSpec("box", Box((3,)), Box((D,), low=tuple(LOW), high=tuple(HIGH)))
SMALL = Networks(hidden_sizes=(6,), activation="tanh")


def a_batch(*leading, seed=0):
    """Sequences `[*leading, L, N]`; the first of them begin: goes on, terminated, truncated, both."""
    generator = np.random.default_rng(seed)
    shape = (*leading, L, N)
    ends = generator.random((2, *shape)) < 0.3
    ends[0][..., 0, :4], ends[1][..., 0, :4] = [False, True, False, True], [False, False, True, True]
    batch = Transition(
        obs=generator.normal(size=(*shape, 3)).astype(np.float32),
        action=(CENTRE + HALF * generator.uniform(-1, 1, size=(*shape, D))).astype(np.float32),
        reward=generator.normal(size=shape).astype(np.float32),
        terminated=ends[0],
        truncated=ends[1],
        next_obs=generator.normal(size=(*shape, 3)).astype(np.float32),
        extras={},
    )
    return jax.tree.map(jnp.asarray, batch)


def begun(algorithm, spec, key):
    """The initial state, in one compiled program."""
    return jax.jit(lambda key: algorithm.init(spec, key=key))(key)


def perturbed(module, seed, by=0.4):
    """Away from small initial values, so that every term counts; of what is trained, the network alone."""
    if isinstance(module, Trained):
        return Trained(perturbed(module.net, seed, by), module.opt_state)
    leaves, form = jax.tree.flatten(module)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return form.unflatten([x + by * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)])


def as_numpy(batch):
    """Numbers in float64, flags as they are."""
    return jax.tree.map(lambda x: np.asarray(x, None if x.dtype == bool else np.float64), batch)


def float64(tree):
    """The arrays of a tree, of a network alone where there is its optimiser's state too."""
    nets = jax.tree.map(net, tree, is_leaf=lambda x: isinstance(x, Trained))
    return [np.asarray(x, np.float64) for x in jax.tree.leaves(nets)]


def net(part):
    """The network alone of a part of a state."""
    return getattr(part, "net", part)


def mlp(leaves, x):
    """tanh layers and a linear one."""
    *hidden, weight, bias = leaves
    for w, b in zip(hidden[::2], hidden[1::2], strict=True):
        x = np.tanh(x @ w + b)
    return x @ weight + bias


def q(leaves, obs, action):
    """Qᵢ(s, a) `[E, ...]`, of actions in half-ranges about the centre."""
    x = np.concatenate([obs, (action - CENTRE) / HALF], -1)
    return np.stack([mlp([leaf[i] for leaf in leaves], x)[..., 0] for i in range(len(leaves[0]))])


def squashed(leaves, obs, noise):
    """`(action, log π)` of the normal behind tanh, by change of variables; the density is over [−1, 1]."""
    loc, log_std = np.split(mlp(leaves, obs), 2, -1)
    std = np.exp(np.clip(log_std, -20, 2))
    u = loc + std * noise
    log_normal = -0.5 * ((u - loc) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)
    return CENTRE + HALF * np.tanh(u), (log_normal - np.log(1 - np.tanh(u) ** 2)).sum(-1)


def n_step_target(batch, next_value, discount):
    """Σ γᵏ rₖ up to the first cut or the last row, and γᵏ⁺¹ V(s'ₖ) there unless it terminated."""
    targets = []
    for n in range(batch.reward.shape[1]):
        target, weight = 0.0, 1.0
        for k in range(len(batch.reward)):
            target += weight * batch.reward[k, n]
            weight *= discount
            if batch.terminated[k, n]:
                break
            if batch.truncated[k, n] or k == len(batch.reward) - 1:
                target += weight * next_value[k, n]
                break
        targets.append(target)
    return np.array(targets)


def noise(key, shape):
    return np.asarray(jax.random.normal(key, shape), np.float64)


def gradients(trained):
    """The gradients that Adam got at its first step: m = (1 − b₁) g."""
    opt_state = getattr(trained, "opt_state", trained)
    assert int(opt_state[0].count) == 1
    return [m / 0.1 for m in float64(opt_state[0].mu)]


def assert_gradient(trained, loss, module, directions=6):
    """The gradient that the optimiser got is that of `loss(leaves)` in float64, along random directions."""
    given, at = gradients(trained), float64(module)
    size = np.sqrt(sum((g**2).sum() for g in given))
    assert size > 1e-3
    generator = np.random.default_rng(1)
    for _ in range(directions):
        along = [generator.normal(size=x.shape) for x in at]
        up, down = (loss([x + h * v for x, v in zip(at, along, strict=True)]) for h in (1e-6, -1e-6))
        ours = sum((g * v).sum() for g, v in zip(given, along, strict=True))
        np.testing.assert_allclose(ours, (up - down) / 2e-6, rtol=1e-3, atol=2e-4 * size)


def assert_same(a, b, **tolerance):
    for x, y in zip(float64(a), float64(b), strict=True):
        np.testing.assert_allclose(x, y, **(tolerance or {"rtol": 0, "atol": 0}))


def assert_polyak(after, before, source, tau):
    """θ̄ ← (1 − τ) θ̄ + τ θ."""
    for new, old, x in zip(float64(after), float64(before), float64(source), strict=True):
        np.testing.assert_allclose(new, (1 - tau) * old + tau * x, rtol=1e-5, atol=1e-6)
        assert np.abs(x - old).max() > 0.01
