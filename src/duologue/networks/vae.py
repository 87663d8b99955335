"""A conditional variational auto-encoder: a generative model of the actions that the data have in a state.

Kingma and Welling (2014), *Auto-Encoding Variational Bayes*; conditional on the state as in Fujimoto et al. (2019),
*Off-Policy Deep Reinforcement Learning without Exploration*, arXiv:1812.02900, appendix D.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from duologue.networks.encoders import AbstractEncoder
from duologue.networks.heads import from_unit, to_unit
from duologue.networks.layers import MLP, join_features
from duologue.ops.distributions import Normal
from duologue.types import Box, Metrics, Obs

LATENT_LOG_STD_RANGE = (-4.0, 15.0)
"""Log σ of the latent is clipped to this range, as in the code of BCQ and BEAR."""
LATENT_CLIP = 0.5
"""Bound of latents that generate actions: they are clipped to ± this value. Training does not clip latents."""


class VAE(eqx.Module):
    """q(z|s, a) and p(a|s, z), with z `[*batch, l]`. Networks read and return actions in half-ranges of their box."""

    inference_encoder: AbstractEncoder
    inference: MLP
    generator_encoder: AbstractEncoder
    generator: MLP
    space: Box = eqx.field(static=True)
    latent: int = eqx.field(static=True)
    """Dimensions of z (l)."""

    def posterior(self, obs: Obs, action: Float[Array, "*batch d"]) -> Normal:
        """q(z|s, a)."""
        inputs = join_features(self.inference_encoder(obs), to_unit(self.space, action))
        loc, log_std = jnp.split(self.inference(inputs), 2, axis=-1)
        return Normal(loc, jnp.exp(jnp.clip(log_std, *LATENT_LOG_STD_RANGE)))

    def raw(self, obs: Obs, z: Float[Array, "*batch l"]) -> Float[Array, "*batch d"]:
        """u(s, z), the generated action before tanh. A state may have several z, `[n, *batch, l]`."""
        return self.generator(join_features(self.generator_encoder(obs), z))

    def squash(self, raw: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        """a = c + h tanh(u)."""
        return from_unit(self.space, jnp.tanh(raw))

    def sample_raw(self, obs: Obs, count: int, *, key: Array) -> Float[Array, "n *batch d"]:
        """`count` draws of u for each state, z ~ N(0, I) clipped to ± 0.5."""
        batch = jax.eval_shape(self.generator_encoder, obs).shape[:-1]
        z = jax.random.normal(key, (count, *batch, self.latent))
        return self.raw(obs, jnp.clip(z, -LATENT_CLIP, LATENT_CLIP))

    def sample(self, obs: Obs, count: int, *, key: Array) -> Float[Array, "n *batch d"]:
        """`count` actions for each state, like those of the data."""
        return self.squash(self.sample_raw(obs, count, key=key))


def vae_loss(vae: VAE, obs: Obs, action: Float[Array, "N d"], key: Array) -> tuple[Float[Array, ""], Metrics]:
    """E[mean (a − â)²] + ½ E[mean KL(q(z|s, a) ‖ N(0, 1))], â = p(s, z) for z ~ q, actions in half-ranges.

    Both means include the dimensions, as in the code of BCQ and BEAR. With a sum over the dimensions of z, the second
    term would have 2|A| times the weight.
    """
    posterior = vae.posterior(obs, action)
    generated = jnp.tanh(vae.raw(obs, posterior.sample(key)))
    reconstruction = jnp.mean((to_unit(vae.space, action) - generated) ** 2)
    standard = Normal(jnp.zeros_like(posterior.loc), jnp.ones_like(posterior.scale))
    kl = jnp.mean(posterior.kl(standard)) / vae.latent
    loss = reconstruction + 0.5 * kl
    return loss, {"vae_loss": loss, "vae_reconstruction": reconstruction, "vae_kl": kl}
