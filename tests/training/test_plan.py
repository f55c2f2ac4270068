"""The data order is a function of the step: nothing is lost or repeated, whatever ranks and stops there are."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import BadInput
from pipelines.training.order import Order, PoolOfLikes, make_order, mixture_cycle
from pipelines.training.packs import Draw, Pack, balanced_packs, deal
from pipelines.training.plan import Measures, PackPlan, make_plan, read_plan, write_plan

TABLE_10 = {"coco_vg": 12.5, "cc": 25.0, "laion_coco": 62.5}
"""MpM paper, Table 10: VisCPM-Chat."""


def measures(samples: int, seed: int = 0) -> Measures:
    draw = np.random.default_rng(seed)
    tokens = draw.integers(3, 30, samples)
    return Measures(tokens, tokens // 2, draw.integers(0, 3, samples), ("all",))


@st.composite
def plans(draw: st.DrawFn) -> tuple[PackPlan, int, int]:
    """A plan over at least two epochs, its samples and its batch size."""
    samples, batch = draw(st.integers(1, 40)), draw(st.integers(1, 12))
    order = make_order({"all": np.arange(samples)}, None, draw(st.integers(0, 5)))
    plan = make_plan(
        order, measures(samples), steps=-(-2 * samples // batch), batch_size=batch,
        pack_tokens=draw(st.sampled_from([None, 30, 64, 200])), multiple=draw(st.integers(1, 4)),
    )  # fmt: skip
    return plan, samples, batch


def draws(packs: list[Pack]) -> list[Draw]:
    return [draw for pack in packs for draw in pack.draws]


@settings(deadline=None)
@given(made=plans(), data=st.data())
def test_any_sequence_of_ranks_and_stops_trains_on_each_sample_once_per_epoch(
    made: tuple[PackPlan, int, int], data: st.DataObject
) -> None:
    plan, samples, batch = made
    seen: Counter[Draw] = Counter()
    step = 0
    while step < plan.steps:
        ranks = data.draw(st.integers(1, 8), label="ranks of this start")
        stop = data.draw(st.integers(step + 1, plan.steps), label="killed after this step")
        for done in range(step, stop):
            together = [draw for rank in range(ranks) for draw in draws(plan.share(done, rank, ranks))]
            # The same global batch, whatever the ranks.
            assert sorted(together) == sorted(draws(plan.packs(done)))
            seen.update(together)
        step = stop
    places = plan.steps * batch
    whole = {(epoch, sample) for epoch in range(places // samples) for sample in range(samples)}
    assert whole <= set(seen)
    assert seen.total() == places and max(seen.values()) == 1


@given(
    tokens=st.lists(st.integers(1, 50), min_size=1, max_size=60),
    limit=st.integers(50, 200),
    multiple=st.integers(1, 8),
)
def test_packs_hold_every_sample_once_none_too_much_and_are_even(
    tokens: list[int], limit: int, multiple: int
) -> None:
    packs = balanced_packs(tokens, limit, multiple)
    assert sorted(place for pack in packs for place in pack) == list(range(len(tokens)))
    loads = [sum(tokens[place] for place in pack) for pack in packs]
    assert max(loads) <= limit
    assert len(packs) % multiple == 0 or len(packs) == len(tokens)
    # The fullest was not yet the fullest when it got its last sample.
    assert max(loads) - min(loads) <= max(tokens)


def test_a_sample_that_is_longer_than_a_pack_is_refused() -> None:
    with pytest.raises(ValueError, match="51 tokens does not fit"):
        balanced_packs([3, 51], 50)


@given(images=st.lists(st.integers(0, 9), min_size=1, max_size=40), ranks=st.integers(1, 8))
def test_ranks_get_equally_many_packs_and_images_as_even_as_the_packs_allow(
    images: list[int], ranks: int
) -> None:
    packs = [Pack(((0, number),), 10 + number % 3, 5, count) for number, count in enumerate(images)]
    dealt = deal(packs, ranks)
    assert sorted(draws([pack for share in dealt for pack in share])) == sorted(draws(packs))
    assert max(map(len, dealt)) == -(-len(packs) // ranks)
    if len(packs) % ranks == 0:
        loads = [sum(pack.images for pack in share) for share in dealt]
        assert max(loads) - min(loads) <= 2 * max(images)


def test_images_are_dealt_more_evenly_than_in_turn() -> None:
    order = make_order({"all": np.arange(400)}, None, 0)
    plan = make_plan(order, measures(400), steps=6, batch_size=64, pack_tokens=64, multiple=8)

    def spread(shares: list[list[Pack]]) -> int:
        loads = [sum(pack.images for pack in share) for share in shares]
        return max(loads) - min(loads)

    for step in range(plan.steps):
        packs = plan.packs(step)
        in_turn = [packs[rank::4] for rank in range(4)]
        assert spread(deal(packs, 4)) <= min(2, spread(in_turn))


def test_a_mixture_keeps_the_weights_of_table_10_exactly_and_each_sources_epochs() -> None:
    sizes = {"coco_vg": 7, "cc": 30, "laion_coco": 500}
    starts = np.cumsum([0, *sizes.values()])
    sources = {name: np.arange(starts[n], starts[n + 1]) for n, name in enumerate(sizes)}
    order = make_order(sources, TABLE_10, seed=0)

    drawn = [order.draw(place) for place in range(800)]

    for name, weight in TABLE_10.items():
        mine = [draw for draw in drawn if draw[1] in sources[name]]
        assert len(mine) == 800 * weight / 100
        counts = Counter(epoch for epoch, _ in mine)
        assert all(counts[epoch] == sizes[name] for epoch in range(max(counts)))
        assert len(set(mine)) == len(mine)
    # Evenly spread, too: no batch of eight is without its one of COCO and VG.
    assert sorted(mixture_cycle([12.5, 25.0, 62.5]).tolist()) == [0, 1, 1, 2, 2, 2, 2, 2]


def test_a_written_plan_is_read_as_the_one_in_memory(tmp_path: Path) -> None:
    order = make_order({"all": np.arange(50)}, None, 3)
    shape = {"steps": 300, "batch_size": 4, "pack_tokens": 40}
    write_plan(tmp_path / "plan.arrow", order, measures(50), **shape)

    read, made = read_plan(tmp_path / "plan.arrow"), make_plan(order, measures(50), **shape)

    assert (read.digest, read.groups, read.packed, read.steps) == (made.digest, ("all",), True, 300)
    assert all(read.packs(step) == made.packs(step) for step in (0, 255, 256, 299))
    assert read.digest != make_plan(order, measures(50), **{**shape, "pack_tokens": None}).digest
    assert read.digest != make_plan(order, measures(50), **{**shape, "batch_size": 5}).digest


def test_a_damaged_plan_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "plan.arrow"
    path.write_bytes(b"ARROW1\0\0 but cut off")
    with pytest.raises(BadInput, match=r"plan\.arrow"):
        read_plan(path)


def test_epochs_are_shuffled_differently_and_seeds_too() -> None:
    everything = {"all": np.arange(50)}
    order, other = make_order(everything, None, 0), make_order(everything, None, 1)
    first, second = ([sample for _, sample in order.batch(step, 50)] for step in (0, 1))
    assert first != second and sorted(first) == sorted(second)
    assert first != [sample for _, sample in other.batch(0, 50)]


@given(samples=st.integers(1, 80), batch=st.integers(1, 16), epochs=st.integers(1, 3))
def test_samples_of_like_length_meet_and_each_still_comes_once_per_epoch(
    samples: int, batch: int, epochs: int
) -> None:
    lengths = np.arange(samples) % 7
    order = Order([PoolOfLikes(np.arange(samples), (0,), lengths, batch)], [1.0])
    drawn = Counter(order.draw(place) for place in range(epochs * samples))
    assert drawn == Counter((epoch, sample) for epoch in range(epochs) for sample in range(samples))
    assert [order.draw(place) for place in range(samples)] == [order.draw(place) for place in range(samples)]


def test_batches_of_likes_hold_samples_of_like_length() -> None:
    lengths = np.arange(640) % 40
    order = Order([PoolOfLikes(np.arange(640), (0,), lengths, 16)], [1.0])
    batches = [[lengths[sample] for _, sample in order.batch(step, 16)] for step in range(40)]
    assert sum(max(one) - min(one) for one in batches) / 40 < 6
