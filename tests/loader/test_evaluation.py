"""Evaluation: every sample once over all ranks, as many batches on each."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import IterableDataset

from accel_cli.description import DataDescription
from accel_cli.loader.evaluation import evaluation_batches

VECTORS = DataDescription(input="vector", target="class", input_shape=(1,))


class Rows:
    def __init__(self, samples):
        self.rows = torch.arange(samples)

    def __len__(self):
        return len(self.rows)

    def batch(self, indices):
        return self.rows[indices][:, None].float(), self.rows[indices]


class Stream(IterableDataset):
    def __init__(self, samples):
        self.samples = samples

    def __iter__(self):
        return ((torch.tensor([float(i)]), i) for i in range(self.samples))


def by_rank(dataset, batch_size, world_size):
    return [
        list(
            evaluation_batches(
                dataset, description=VECTORS, batch_size=batch_size, rank=rank, world_size=world_size,
                device=torch.device("cpu"), collate=None,
            )
        )
        for rank in range(world_size)
    ]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(samples=st.integers(1, 30), batch_size=st.integers(1, 9), world_size=st.integers(1, 4))
def test_every_sample_once_and_as_many_batches_on_each_rank(samples, batch_size, world_size):
    pairs = [(torch.tensor([float(i)]), i) for i in range(samples)]
    for dataset in (Rows(samples), pairs, Stream(samples)):
        ranks = by_rank(dataset, batch_size, world_size)
        assert len({len(batches) for batches in ranks}) == 1
        everything = [batch for batches in ranks for batch in batches]
        counted = [int(t) for (_, targets), valid in everything for t in targets[:valid]]
        assert sorted(counted) == list(range(samples))
        assert all(len(targets) == valid or not valid for (_, targets), valid in everything)
        assert all(len(targets.unique()) == 1 for (_, targets), valid in everything if not valid)
        assert all(inputs.equal(targets[:, None].float()) for (inputs, targets), _ in everything)


def test_one_rank_reads_in_the_stored_order():
    assert [t.tolist() for (_, t), _ in by_rank(Rows(5), 2, 1)[0]] == [[0, 1], [2, 3], [4]]


def test_draws_of_the_data_set_are_the_same_each_time_and_leave_the_run_alone():
    class Drawn(Rows):
        batch = None

        def __getitem__(self, index):
            return torch.rand(1), 0

    before = torch.get_rng_state()
    one, two = (torch.cat([x for (x, _), _ in by_rank(Drawn(9), 4, 1)[0]]) for _ in range(2))
    assert one.equal(two)
    assert len(one.unique()) == 9
    assert torch.get_rng_state().equal(before)
