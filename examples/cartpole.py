"""A first agent: train it, evaluate it, and use it in a Gymnasium loop of your own."""

import argparse

import gymnasium as gym

import duologue as dl


def main(steps: int) -> None:
    run = dl.train(dl.A2C(learning_rate=1e-3), "CartPole-v1", steps=steps, seed=0, evaluate_every=max(steps // 5, 1))
    print(run.evaluate(episodes=20))

    # An actor takes NumPy observations, one or a batch, and returns actions that `env.step` understands.
    env, actor = gym.make("CartPole-v1"), run.actor()
    obs, _ = env.reset(seed=7)
    actor.reset()  # an episode begins
    total, over = 0.0, False
    while not over:
        obs, reward, terminated, truncated, _ = env.step(actor(obs))
        total, over = total + float(reward), terminated or truncated
    env.close()
    print(f"one more episode: return {total:.0f}")
    print(f"everything is in {run.path}; duologue.load({str(run.path)!r}) loads the agent")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200_000, help="environment steps to learn from")
    main(parser.parse_args().steps)
