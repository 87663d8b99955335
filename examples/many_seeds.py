"""Eight agents in one compiled program. Their scores describe the algorithm, not one lucky seed.

This example needs the extra `gymnax`. The score of one seed says little. The interval over seeds shows how precise the
mean is.
"""

import argparse

import duologue as dl


def main(steps: int, seeds: int = 8) -> None:
    agent = dl.A2C(learning_rate=2e-3, rollout_length=16)
    runs = dl.train(agent, "gymnax/CartPole-v1", steps=steps, seeds=seeds)

    # runs[i] is agent i. It is the agent of a single run with seed + i, up to rounding.
    score = runs.evaluate(episodes=20)
    for run, returns in zip(runs, score.returns, strict=True):
        print(f"seed {run.seed}: {returns.mean():6.1f}")

    low, high = score.interval
    print(f"mean {score.mean:.1f}, 95 % interval [{low:.1f}, {high:.1f}] over {score.sample_size}; iqm {score.iqm:.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200_000, help="environment steps of each seed")
    main(parser.parse_args().steps)
