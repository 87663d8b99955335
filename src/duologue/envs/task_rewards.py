"""Rewards of the ready sets of tasks, for LunarLander and MountainCarContinuous. Each function reads one step."""

import jax.numpy as jnp


def touch(obs, action, reward, next_obs, terminated, info):
    """Number of legs on the ground, 0 to 2."""
    return next_obs[6] + next_obs[7]


def hover_planar(obs, action, reward, next_obs, terminated, info):
    """Slow: 2 − |vₓ| − |v_y|."""
    return 2 - jnp.abs(next_obs[2]) - jnp.abs(next_obs[3])


def hover_angular(obs, action, reward, next_obs, terminated, info):
    """Not turning: 2 − |ω|."""
    return 2 - jnp.abs(next_obs[5])


def upright(obs, action, reward, next_obs, terminated, info):
    """2 − |θ|."""
    return 2 - jnp.abs(next_obs[4])


def goal_distance(obs, action, reward, next_obs, terminated, info):
    """Near the pad: 2 − |x| − |y| of the position. The code of the source uses the velocity, its text the distance."""
    return 2 - jnp.abs(next_obs[0]) - jnp.abs(next_obs[1])


def landed(obs, action, reward, next_obs, terminated, info):
    """100 when the lander comes to rest (the environment's own bonus), else 0; a crash does not give −100."""
    return jnp.where(terminated & (reward >= 100), 100.0, 0.0)


def fast(obs, action, reward, next_obs, terminated, info):
    """Speed in units of its limit, |v|/0.07."""
    return jnp.abs(next_obs[1]) / 0.07


def left(obs, action, reward, next_obs, terminated, info):
    """1 on the slope on the left, x ≤ −0.9."""
    return jnp.where(next_obs[0] <= -0.9, 1.0, 0.0)


def right(obs, action, reward, next_obs, terminated, info):
    """1 on the slope on the right, x ≥ 0."""
    return jnp.where(next_obs[0] >= 0.0, 1.0, 0.0)


def goal(obs, action, reward, next_obs, terminated, info):
    """100 at the flag, x ≥ 0.45, else 0. Actions cost nothing."""
    return jnp.where(next_obs[0] >= 0.45, 100.0, 0.0)
