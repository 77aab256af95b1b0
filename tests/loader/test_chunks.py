"""An order that needs few chunks at a time: every sample once an epoch, the same for any number of ranks."""

import pytest
import torch

from accel_cli.loader.chunks import ChunkOrder
from accel_cli.loader.order import Order

SIZES = [7, 5, 9, 1, 12, 8, 6, 10, 3, 11]


def made(batch=6, rank=0, world=1, block=3, seed=1, sizes=SIZES):
    return ChunkOrder(Order(seed, sum(sizes), batch, rank, world), sizes, block)


def chunk_of(sample):
    ends = torch.tensor(SIZES).cumsum(0)
    return int(torch.searchsorted(ends, sample, right=True))


@pytest.mark.parametrize("block", [1, 3, 10, 50])
def test_every_sample_comes_once_an_epoch(block):
    order, samples = made(batch=6, block=block), sum(SIZES)
    shares = [order.share(step) for step in range(3 * samples // 6)]
    indices, epochs = torch.cat([i for _, i in shares]), torch.cat([e for e, _ in shares])
    for epoch in range(3):
        assert sorted(indices[epochs == epoch].tolist()) == list(range(samples))
    assert indices[epochs == 0].tolist() != indices[epochs == 1].tolist()


@pytest.mark.parametrize("block", [1, 3])
def test_only_the_chunks_of_one_block_are_read_at_a_time(block):
    order = made(block=block)
    read = [chunk_of(sample) for sample in order.blocks(4)[0 : sum(SIZES)].tolist()]
    lives = {chunk: (read.index(chunk), len(read) - 1 - read[::-1].index(chunk)) for chunk in set(read)}
    at_once = [sum(first <= place <= last for first, last in lives.values()) for place in range(len(read))]
    assert max(at_once) == block
    if block == 3:
        assert read != sorted(read, key=read.index), "samples of a block's chunks are mixed"


def test_any_slice_is_the_slice_of_the_whole():
    blocks = made().blocks(2)
    whole = blocks[0 : sum(SIZES)]
    for first in range(0, sum(SIZES), 5):
        for last in (first + 1, min(first + 4, sum(SIZES)), sum(SIZES)):
            assert torch.equal(blocks[first:last], whole[first:last])


def test_ranks_slice_one_order_and_any_step_is_known_by_itself():
    one = [made(batch=8).share(step) for step in range(30)]
    for world in (2, 4):
        ranks = [made(batch=8, rank=rank, world=world) for rank in range(world)]
        for step in reversed(range(30)):
            shares = [rank.share(step) for rank in ranks]
            for column in (0, 1):
                assert torch.equal(torch.cat([share[column] for share in shares]), one[step][column])
    assert torch.equal(made(batch=8).share(29)[1], one[29][1])
    assert not torch.equal(made(batch=8, seed=2).share(0)[1], one[0][1])


def test_the_place_of_a_step():
    order = made(batch=6)
    for step in range(40):
        epochs, indices = order.share(step)
        epoch, block = order.place(step)
        assert epoch == int(epochs[-1])
        assert chunk_of(int(indices[-1])) in order.blocks(epoch).chunks[block].tolist()
