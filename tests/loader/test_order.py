"""The order of samples: its properties, over many sizes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from accel_cli.errors import ConfigError
from accel_cli.loader.order import Order

sizes = st.integers(1, 40)
quick = settings(max_examples=60, deadline=None)


def positions(order: Order, steps: range) -> list[tuple[int, int]]:
    return [pair for step in steps for pair in zip(*(t.tolist() for t in order.share(step)), strict=True)]


@quick
@given(seed=st.integers(0, 2**40), samples=sizes, batch=sizes, epochs=st.integers(1, 3))
def test_each_epoch_holds_each_index_once_and_epochs_follow_each_other(seed, samples, batch, epochs):
    steps = -(-samples * epochs // batch)
    seen = positions(Order(seed, samples, batch), range(steps))[: samples * epochs]
    for epoch in range(epochs):
        part = seen[epoch * samples : (epoch + 1) * samples]
        assert {e for e, _ in part} == {epoch}
        assert sorted(i for _, i in part) == list(range(samples))


@quick
@given(seed=st.integers(0, 9), samples=sizes, share=st.integers(1, 9), world=st.integers(1, 5), step=sizes)
def test_the_shares_of_all_ranks_make_the_global_batch(seed, samples, share, world, step):
    whole = positions(Order(seed, samples, share * world), range(step, step + 1))
    parts = [positions(Order(seed, samples, share * world, r, world), range(step, step + 1)) for r in range(world)]
    assert all(len(part) == share for part in parts)
    assert sum(parts, []) == whole


@quick
@given(samples=sizes, batch=sizes, steps=st.lists(st.integers(0, 60), max_size=8))
def test_any_step_is_the_same_whatever_was_asked_before(samples, batch, steps):
    walked = Order(3, samples, batch)
    for step in steps:
        assert positions(walked, range(step, step + 1)) == positions(Order(3, samples, batch), range(step, step + 1))


def test_epochs_and_seeds_give_different_permutations():
    drawn = {tuple(Order(seed, 50, 50).share(epoch)[1].tolist()) for seed in range(5) for epoch in range(5)}
    assert len(drawn) == 25


def test_the_order_itself_is_pinned():
    assert Order(0, 10, 10).share(0)[1].tolist() == [2, 3, 7, 4, 5, 6, 9, 8, 1, 0]


def test_the_order_leaves_the_random_state_of_the_run_alone():
    before = torch.get_rng_state()
    Order(0, 100, 10).share(0)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_that_ranks_do_not_divide_is_refused_with_the_nearest_that_they_do():
    with pytest.raises(ConfigError, match="try train.global_batch=12 or 9"):
        Order(0, 100, 10, 0, 3)
