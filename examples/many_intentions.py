"""Tasks of your own: a car gets a reward at the flag alone, and two more tasks teach it to be fast and to be high.

A task is a function of one step, in `jax.numpy`. Each task has its own policy, called its intention. SAC-Q chooses
which intention acts, by the return of the main task after each choice. All intentions learn from every step.
"""

import argparse

import jax.numpy as jnp

import duologue as dl


def fast(obs, action, reward, next_obs, terminated, info):
    return jnp.abs(next_obs[1]) / 0.07


def high(obs, action, reward, next_obs, terminated, info):
    return (1 + jnp.sin(3 * next_obs[0])) / 2


def flag(obs, action, reward, next_obs, terminated, info):
    return jnp.where(terminated, 100.0, 0.0)


TASKS = dl.tasks.Tasks(fast, high, flag)  # the main task is the last


def main(steps: int) -> None:
    # Returns of the main task are between 0 and 100. If two choices differ by 20, the odds are exp(20/10), 7 to 1.
    agent = dl.SACX(scheduler=dl.task_schedulers.QTable(temperature=10.0))
    run = dl.train(agent, "MountainCarContinuous-v0", tasks=TASKS, steps=steps, max_episode_steps=400)
    for name in TASKS.names:
        score = run.evaluate(episodes=5, task=name)
        others = ", ".join(f"{task} {returns.mean():.1f}" for task, returns in score.tasks.items() if task != name)
        print(f"{name}: {score.mean:.1f} under its own reward over {score.sample_size}; under the others', {others}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60_000, help="environment steps to learn from")
    main(parser.parse_args().steps)
