"""An environment whose connection is lost at a chosen step of all its copies together."""

import gymnasium as gym
import numpy as np


class Arm(gym.Env):
    """A point that its actions push; episodes of `length` steps. Each step of any copy counts in `steps`, and the step
    number `fails` raises."""

    observation_space, action_space = gym.spaces.Box(-10, 10, (2,)), gym.spaces.Box(-1, 1, (1,))
    length, steps, resets, fails = 7, 0, 0, ()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        type(self).resets = self.resets + 1
        self.x, self.t = self.np_random.normal(size=2).astype(np.float32), 0
        return self.x.copy(), {}

    def step(self, action):
        type(self).steps = self.steps + 1
        if self.steps in self.fails:
            raise ConnectionError("the arm is gone")
        self.t += 1
        self.x = (0.9 * self.x + action).clip(-10, 10).astype(np.float32)
        return self.x.copy(), float(-np.abs(self.x).sum()), self.t == self.length, False, {}


def arm(*fails, length=7):
    """A class of arms of its own, which counts from 0."""
    return type("Arm", (Arm,), {"fails": fails, "length": length})
