"""The VAE and its loss in float64 NumPy, and states whose networks are far from their initial values."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from algorithms.by_hand import CENTRE, HALF, SPEC, D, mlp, net

LATENT = 2 * D


def filled(shapes, seed, by):
    """The same module with normal values, without a program to compile."""
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(generator.normal(0, by, x.shape), x.dtype), shapes)


def far(algorithm, names, key, spec=SPEC, **parts):
    """An initial state whose networks of these names all differ and are far from their initial values."""
    shapes = jax.eval_shape(lambda key: algorithm.init(spec, key=key), key)
    state = jax.tree.map(lambda x: jnp.asarray(np.zeros(x.shape, x.dtype)), shapes)  # as Adam's are at first
    parts |= {name: filled(net(getattr(shapes, name)), i, 0.6) for i, name in enumerate(names)}
    return eqx.tree_at(lambda s: [net(getattr(s, name)) for name in parts], state, list(parts.values()))


def split(leaves):
    """Leaves of q(z|s, a), leaves of p(a|s, z)."""
    return leaves[: len(leaves) // 2], leaves[len(leaves) // 2 :]


def generated(leaves, obs, z):
    """u(s, z), raw, for z `[K, N, l]`."""
    return mlp(split(leaves)[1], np.concatenate([np.broadcast_to(obs, (*z.shape[:-1], obs.shape[-1])), z], -1))


def proposed(leaves, obs, draws):
    """Actions as the data have them, from clipped latents."""
    return CENTRE + HALF * np.tanh(generated(leaves, obs, np.clip(draws, -0.5, 0.5)))


def loss_by_hand(leaves, obs, action, draws):
    """`(loss, reconstruction, KL)` with −½ (1 + log σ² − μ² − σ²) of every dimension, as the authors have it."""
    unit = (action - CENTRE) / HALF
    loc, log_std = np.split(mlp(split(leaves)[0], np.concatenate([obs, unit], -1)), 2, -1)
    std = np.exp(np.clip(log_std, -4, 15))
    reconstruction = ((unit - np.tanh(generated(leaves, obs, loc + std * draws))) ** 2).mean()
    kl = (-0.5 * (1 + np.log(std**2) - loc**2 - std**2)).mean()
    return reconstruction + 0.5 * kl, reconstruction, kl
