"""The VAE: its loss in float64 NumPy, the evidence of a linear model, and what is clipped where."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from algorithms.by_hand import CENTRE, HALF, SMALL, SPEC, D, float64, mlp, net, noise

from duologue.networks.encoders import encoder
from duologue.networks.layers import MLP
from duologue.networks.vae import VAE, vae_loss
from duologue.types import Box, EnvSpec

LATENT = 2 * D
ROWS = 8


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


def rows(n, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(n, 3)), CENTRE + HALF * generator.uniform(-1, 1, size=(n, D))


def asked(*arrays):
    return [jnp.asarray(x, jnp.float32) for x in arrays]


@pytest.fixture(scope="module")
def vae():
    return filled(jax.eval_shape(lambda key: SMALL.vae(SPEC, key=key), jax.random.key(0)), 0, 0.6)


def test_the_loss_is_the_authors_with_latents_unclipped(vae, key):
    obs, action = rows(ROWS)
    draws = noise(key, (ROWS, LATENT))
    loss, metrics = vae_loss(vae, *asked(obs, action), key)
    expected = loss_by_hand(float64(vae), obs, action, draws)
    names = "vae_loss", "vae_reconstruction", "vae_kl"
    np.testing.assert_allclose([metrics[name] for name in names], expected, rtol=1e-5)
    assert loss == metrics["vae_loss"]
    assert expected[2] > 0.05
    posterior = vae.posterior(*asked(obs, action))
    assert bool((jnp.abs(posterior.sample(key)) > 0.5).any())


def test_generated_actions_come_from_clipped_latents_and_from_their_own_state(vae, key):
    obs, _ = rows(ROWS)
    draws = noise(key, (5, ROWS, LATENT))
    assert (np.abs(draws) > 0.5).any()
    raw = vae.sample_raw(*asked(obs), 5, key=key)
    np.testing.assert_allclose(raw, generated(float64(vae), obs, np.clip(draws, -0.5, 0.5)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        vae.sample(*asked(obs), 5, key=key), proposed(float64(vae), obs, draws), rtol=1e-4, atol=1e-5
    )


def test_log_sigma_is_clipped_from_minus_4_to_15(vae):
    obs, action = asked(*rows(ROWS))
    for bias, expected in ((-60.0, -4.0), (60.0, 15.0)):
        far = eqx.tree_at(lambda v: v.inference.output.bias, vae, jnp.full(2 * LATENT, bias))
        np.testing.assert_allclose(jnp.log(far.posterior(obs, action).scale), expected, rtol=1e-6)
        assert bool((jnp.abs(far.posterior(obs, action).loc) > 15).all())


def test_actions_in_other_units_give_the_same_loss_and_stay_in_their_box(key):
    obs, _ = rows(ROWS)
    unit = np.random.default_rng(3).uniform(-1, 1, size=(ROWS, D))
    found = []
    for low, high in ((-1.0, 1.0), (0.0, 10.0)):
        spec = EnvSpec("box", Box((3,)), Box((D,), low=(low,) * D, high=(high,) * D))
        vae = filled(jax.eval_shape(lambda key, spec=spec: SMALL.vae(spec, key=key), key), 0, 1.0)
        action = (high + low) / 2 + (high - low) / 2 * unit
        (_, metrics), gradient = jax.jit(jax.value_and_grad(vae_loss, has_aux=True))(vae, *asked(obs, action), key)
        drawn = vae.sample(*asked(obs), 50, key=key)
        assert low <= float(drawn.min()) < low + 0.2 * (high - low)
        assert high >= float(drawn.max()) > high - 0.2 * (high - low)
        found.append((list(metrics.values()), float64(gradient)))
    for a, b in zip(*(jax.tree.leaves(each) for each in found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


class Untangled(MLP):
    """A linear layer whose outputs tanh gives back."""

    def __call__(self, x):
        return jnp.arctanh(super().__call__(x))


def linear(kind, inputs, weight, bias):
    made = kind((inputs, len(bias)), activation=jnp.tanh, init="lecun", key=jax.random.key(0))
    return eqx.tree_at(lambda m: (m.output.weight, m.output.bias), made, tuple(asked(weight, bias)))


def test_the_loss_bounds_the_evidence_of_a_linear_model_and_meets_it_at_the_exact_posterior(key):
    """With l = 2|A| latents, 2l times the loss is KL(q ‖ N(0, I)) − E log p(a|z) up to a constant, for p(a|z) of
    variance ⅛ in half-ranges. For a = w z₁ + noise that is ½ log((w² + v)/v) + a²/2(w² + v) at the exact posterior,
    and KL(q ‖ exact) more at any other."""
    w, v, a, count = 0.15, 1 / 8, 0.3, 60_000
    one = EnvSpec("box", Box((1,)), Box((1,), low=(-1.0,), high=(1.0,)))
    reads = [encoder(one.observation, init="lecun", key=key) for _ in range(2)]
    variance = 1 / (1 + w**2 / v)
    exact = w / v * variance  # of a, the posterior's mean
    evidence = 0.5 * np.log((w**2 + v) / v) + a**2 / (2 * (w**2 + v))
    generator = linear(Untangled, 3, [[0.0], [w], [0.0]], [0.0])
    obs, action = jnp.zeros((count, 1)), jnp.full((count, 1), a)
    for mean, std in ((exact, np.sqrt(variance)), (exact + 1.0, np.sqrt(variance)), (exact, 0.5)):
        weight, bias = np.zeros((2, 4)), [0.0, 0.0, np.log(std), 0.0]
        weight[1, 0] = mean
        vae = VAE(reads[0], linear(MLP, 2, weight, bias), reads[1], generator, one.action, 2)
        more = np.log(np.sqrt(variance) / std) + (std**2 + (mean - exact) ** 2 * a**2) / (2 * variance) - 0.5
        loss, _ = vae_loss(vae, obs, action, key)
        np.testing.assert_allclose(4 * loss, evidence + more, atol=2e-3)
        assert evidence > 0.2
