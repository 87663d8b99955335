import gymnasium as gym, numpy as np
from duologue.envs.base import AbstractHostEnvs, seed_of
from duologue.types import *
class GymnasiumEnvs(AbstractHostEnvs):
    def __init__(self, make, num_envs, *, seed, purpose="train", max_episode_steps=None):
        f = (lambda: gym.make(make, disable_env_checker=True, max_episode_steps=max_episode_steps)) if isinstance(make,str) else make
        self.envs=[f() for _ in range(num_envs)]; self.num_envs=num_envs; self.seed=seed; self.purpose=purpose
        o=self.envs[0].observation_space; a=self.envs[0].action_space
        self.spec=EnvSpec(make if isinstance(make,str) else "<x>", Box(o.shape), Discrete(int(a.n)) if hasattr(a,"n") else Box(a.shape,"float32",tuple(a.low.tolist()),tuple(a.high.tolist())), 500)
        self.discrete=hasattr(a,"n")
    def reset(self):
        self.episode=[0]*self.num_envs; self.log=[[] for _ in self.envs]
        return np.stack([self._reset(i) for i in range(self.num_envs)])
    def _reset(self,i):
        self.log[i]=[]
        return np.asarray(self.envs[i].reset(seed=seed_of(self.seed,self.purpose,i,self.episode[i]))[0],np.float32)
    def step(self, action):
        n=self.num_envs; nxt=np.empty((n,*self.spec.observation.shape),np.float32); r=np.empty(n,np.float32); te=np.empty(n,bool); tr=np.empty(n,bool)
        acts=action.tolist() if self.discrete else np.clip(action,self.spec.action.low,self.spec.action.high).astype(np.float32)
        for i,e in enumerate(self.envs):
            o,r[i],te[i],tr[i],_=e.step(acts[i]); nxt[i]=o; self.log[i].append(acts[i])
        obs=nxt; ended=te|tr
        if ended.any():
            obs=nxt.copy()
            for i in np.flatnonzero(ended): self.episode[i]+=1; obs[i]=self._reset(i)
        self.obs=obs
        return Step(obs,nxt,r,te,tr,{})
    def snapshot(self):
        flat=[a for l in self.log for a in l]
        return {"episode":np.asarray(self.episode),"lengths":np.asarray([len(l) for l in self.log]),"actions":np.asarray(flat)}
    def restore(self,s):
        self.reset(); self.episode=s["episode"].tolist(); out=[]; k=0
        for i,l in enumerate(s["lengths"]):
            o=self._reset(i)
            for a in s["actions"][k:k+l]: o=self.envs[i].step(a)[0]; self.log[i].append(a)
            k+=l; out.append(o)
        return np.asarray(out,np.float32), None
    def close(self): pass
