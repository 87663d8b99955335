"""Eight agents in one compiled program, and what one can say of the algorithm rather than of one lucky seed.

Needs the extra `gymnax`. One seed's score says little; the interval over seeds says how sure the mean is.
"""

import argparse

import duologue as dl


def main(steps: int, seeds: int = 8) -> None:
    agent = dl.A2C(learning_rate=2e-3, rollout_length=16)
    runs = dl.train(agent, "gymnax/CartPole-v1", steps=steps, seeds=seeds)

    # Agent i is the agent that a run of its own with seed + i gives; runs[i] is that agent.
    score = runs.evaluate(episodes=20)
    for run, returns in zip(runs, score.returns, strict=True):
        print(f"seed {run.seed}: {returns.mean():6.1f}")

    low, high = score.interval
    print(f"mean {score.mean:.1f}, 95 % interval [{low:.1f}, {high:.1f}] over {score.over}; iqm {score.iqm:.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200_000, help="environment steps of each seed")
    main(parser.parse_args().steps)
