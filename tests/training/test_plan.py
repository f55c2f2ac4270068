"""The data order is a function of the step: nothing is lost or repeated, whatever ranks and stops there are."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pipelines.training.plan import DataPlan

plans = st.builds(
    DataPlan,
    samples=st.integers(1, 60),
    batch_size=st.integers(1, 16),
    seed=st.integers(0, 5),
)


@given(plan=plans, epochs=st.integers(1, 3), by_length=st.booleans())
def test_each_sample_comes_exactly_once_per_epoch(plan: DataPlan, epochs: int, by_length: bool) -> None:
    if by_length:
        plan = DataPlan(plan.samples, plan.batch_size, plan.seed, tuple(i % 7 for i in range(plan.samples)))
    steps = -(-plan.samples * epochs // plan.batch_size)
    drawn = [pair for step in range(steps) for pair in plan.batch(step)]

    counts = Counter(drawn)
    expected = {(epoch, sample) for epoch in range(epochs) for sample in range(plan.samples)}
    assert expected <= set(counts)
    assert max(counts.values()) == 1


@given(plan=plans, step=st.integers(0, 50), ranks=st.integers(1, 8))
def test_the_global_batch_is_the_same_for_any_number_of_ranks(plan: DataPlan, step: int, ranks: int) -> None:
    shares = [pair for rank in range(ranks) for pair in plan.share(step, rank, ranks)]

    assert sorted(shares) == sorted(plan.batch(step))


def test_epochs_are_shuffled_differently_and_seeds_too() -> None:
    plan = DataPlan(samples=50, batch_size=50, seed=0)

    first, second = ([sample for _, sample in plan.batch(step)] for step in (0, 1))
    other = [sample for _, sample in DataPlan(50, 50, seed=1).batch(0)]

    assert first != second
    assert first != other


def test_batches_by_length_hold_samples_of_like_length() -> None:
    lengths = tuple(index % 40 for index in range(640))
    plan = DataPlan(samples=640, batch_size=16, seed=0, lengths=lengths)

    spreads = []
    for step in range(40):
        batch = [lengths[sample] for _, sample in plan.batch(step)]
        spreads.append(max(batch) - min(batch))

    assert sum(spreads) / len(spreads) < 6
