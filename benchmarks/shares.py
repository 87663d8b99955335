"""The update alone of what learns from recorded data: `python benchmarks/shares.py [--rounds 5]`.

Updates a second, as many in a call as about half a second takes, beside the limit that `products.py` times in the same
process; at d3rlpy's sizes and at our own. The cases take turns.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import jax
import products
import recorded
from report import HERE, circumstances

import duologue as dl
from duologue.loops import offline
from duologue.loops.learning import sample_batch

UPDATES = {"bear": 20, "bcq": 8, "cql": 6, "iql": 80, "td3-bc": 80}
"""In a call."""
HEAD = """\
# Shares of the limit, of what learns from recorded data

`python benchmarks/shares.py`

The update alone: sampling, gradients and optimisers in one compiled loop, without logging and checkpoints. Noise in the
sizes of HalfCheetah-v5, 100,000 rows. Medians over rounds, with the smallest and the largest; the cases take turns. The
limit is the sum, over the matrix products of an update, of the best of 20 timings of that one alone, same shapes, same
process. An update of TD3+BC is one of its critics. IQL's two rows are of the same program: as far apart as they are, so
much is the machine's noise.

| | updates/s | limit | share |
| --- | --- | --- | --- |
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    data = dl.from_columns(recorded.columns())
    sizes = [(f"{name}, {of}", name, own) for own, of in ((False, "d3rlpy's sizes"), (True, "own")) for name in UPDATES]
    cases = {said: case(name, data, own=own) for said, name, own in sizes}
    found = [{said: rate() for said, (rate, _) in cases.items()} for _ in range(rounds)]
    lines = [line(said, [each[said] for each in found], limit) for said, (_, limit) in cases.items()]
    made = circumstances([])
    page = HEAD + "\n".join(lines) + f"\n\nMade {made['date']} at {made['commit']} on {made['machine']}.\n"
    (HERE / "SHARES.md").write_text(page)
    print(page)


def line(said: str, rates: list[float], limit: float) -> str:
    middle = statistics.median(rates)
    return f"| {said} | {middle:,.0f} [{min(rates):,.0f}–{max(rates):,.0f}] | {limit:,.0f} | {middle / limit:.0%} |"


def case(name: str, data: dl.DataSet, *, own: bool) -> tuple[Callable[[], float], float]:
    """A function that measures updates a second once, and their limit."""
    algorithm = recorded.algorithm(argparse.Namespace(algorithm=name, own=own))
    source, replay = offline.prepare_data(algorithm, data), algorithm.experience.replay
    ring, count = source.at(0)[0], UPDATES[name]
    state = [jax.jit(lambda key: algorithm.init(source.spec, key=key))(jax.random.key(0))]
    needed, steps = products.of_update(algorithm, data), algorithm.experience.gradient_steps

    @partial(jax.jit, donate_argnums=0)
    def learn(learner, ring, key):
        def once(learner, key):
            return algorithm.update(learner, sample_batch(ring, replay, key), key=key)

        return jax.lax.scan(once, learner, jax.random.split(key, count))

    def rate(calls: int = 4) -> float:
        began = time.perf_counter()
        for i in range(calls):
            state[0], _ = learn(state[0], ring, jax.random.key(i))
        jax.block_until_ready(state)
        return calls * count * steps / (time.perf_counter() - began)

    rate(1)
    return rate, steps / products.seconds(needed)


if __name__ == "__main__":
    main()
