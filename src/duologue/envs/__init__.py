from duologue.envs.base import AbstractHostEnvs, AbstractJaxEnvs
def is_compiled(source):
    return source.startswith(("gymnax/","probe/")) if isinstance(source,str) else isinstance(source, AbstractJaxEnvs)
def make(env, num_envs, *, seed=0, purpose="train", max_episode_steps=None, asynchronous=False):
    if isinstance(env,(AbstractHostEnvs,AbstractJaxEnvs)): return env
    if isinstance(env,str) and env.startswith("gymnax/"):
        from duologue.envs.gymnax import GymnaxEnvs
        return GymnaxEnvs(env[7:], num_envs)
    from duologue.envs.gymnasium import GymnasiumEnvs
    return GymnasiumEnvs(env, num_envs, seed=seed, purpose=purpose, max_episode_steps=max_episode_steps)
