import equinox as eqx
import jax
from duologue.envs.base import AbstractJaxEnvs
from duologue.types import *
class GymnaxEnvs(AbstractJaxEnvs):
    spec: EnvSpec
    num_envs: int
    env: object = eqx.field(static=True)
    params: object = eqx.field(static=True)
    def __init__(self, name, n, max_episode_steps=None):
        import gymnax
        self.env, self.params = gymnax.make(name); self.num_envs=n
        self.spec=EnvSpec("gymnax/"+name, Box((4,)), Discrete(2), 500)
    def reset(s, key):
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            obs, st = jax.vmap(s.env.reset,(0,None))(jax.random.split(key,s.num_envs), s.params); return st, obs
    def step(s, st, a, *, key):
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            obs, st, r, te, tr, info = jax.vmap(s.env.step,(0,0,0,None))(jax.random.split(key,s.num_envs), st, a, s.params)
        return st, Step(obs, info["final_observation"], r, te, tr, {})
