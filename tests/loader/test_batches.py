"""All loaders give the same bits, from any step, in any number of ranks."""

import itertools
import random

import numpy
import pytest
import torch

from accel_cli.data.arrays import ArrayDataset, WindowDataset
from accel_cli.description import DataDescription
from accel_cli.errors import ConfigError
from accel_cli.loader import auto
from accel_cli.loader.device import Device
from accel_cli.loader.memory import Memory
from accel_cli.loader.sharing import Sharing
from accel_cli.loader.threads import Threads
from accel_cli.loader.workers import Workers


def same(one, other) -> bool:
    flat = [list(itertools.chain.from_iterable(itertools.chain.from_iterable(steps))) for steps in (one, other)]
    return len(flat[0]) == len(flat[1]) and all(map(torch.equal, *flat))


def test_all_give_the_same_bits_also_from_the_middle_of_an_epoch(make, arrays, kinds):
    wanted = list(make(Memory, "memory", arrays, augmented=True).batches(0, 12))
    assert wanted[0][0][0].shape == (4, 3, 8, 8)
    assert len(wanted[0]) == 2
    ways = [(Workers, "0"), (Workers, "1"), (Workers, "2"), (Threads, "1 threads"), (Threads, "3 threads")]
    ways += [(Memory, "memory"), (Device, "device")]
    for (kind, config), dataset in itertools.product(ways, (arrays, kinds.Items(arrays))):
        loader = make(kind, config, dataset, augmented=True)
        assert same(list(loader.batches(0, 12)), wanted), loader.why
        assert same(list(loader.batches(7, 12)), wanted[7:]), loader.why


@pytest.mark.parametrize("first", range(10))
def test_memory_starts_at_any_step(make, arrays, first):
    loader = make(Memory, "memory", arrays, augmented=True)
    assert same(list(loader.batches(first, 10)), list(loader.batches(0, 10))[first:])


def test_two_ranks_see_what_one_sees(make, arrays):
    whole = make(Memory, "memory", arrays, augmented=True).batches(0, 6)
    ranks = [make(Memory, "memory", arrays, augmented=True, rank=r, world=2, micro=1).batches(0, 6) for r in (0, 1)]
    assert same(list(whole), [[*one, *two] for one, two in zip(*ranks, strict=True)])


def test_draws_of_a_data_set_belong_to_the_sample_not_to_the_worker(make, arrays, kinds):
    runs = [list(make(Workers, count, kinds.Drawn(arrays)).batches(0, 10)) for count in "012"]
    assert same(runs[0], runs[1])
    assert same(runs[0], runs[2])
    brightness = torch.cat([inputs.mean((1, 2, 3)) for step in runs[0] for inputs, _ in step])
    assert len(brightness.unique()) == 80, "each sample is drawn anew in each epoch"


def test_abandoned_read_ahead_is_dropped_and_the_workers_stay(make, arrays):
    loader = make(Workers, "2", arrays)
    wanted = list(make(Memory, "memory", arrays).batches(3, 6))
    steps = loader.batches(0, 40)
    next(steps)
    before = [worker.pid for worker in loader._iterator._workers]
    assert same(list(loader.batches(3, 6)), wanted)
    assert [worker.pid for worker in loader._iterator._workers] == before


@pytest.mark.parametrize("count", ["0", "2"])
def test_loading_leaves_the_random_state_of_the_run_alone(make, arrays, kinds, count):
    states = (random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    list(make(Workers, count, kinds.Drawn(arrays)).batches(0, 2))
    assert (random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == states


def test_images_are_normalised_by_channel_and_a_constant_one_becomes_zero_at_its_mean(make, arrays):
    loader = make(Memory, "memory", arrays, micro=1)
    (inputs, targets), indices = next(loader.batches(0, 1))[0], loader.order.share(0)[1]
    raw = arrays.inputs[indices].double()
    mean, std = torch.tensor([120.0, 100.0, 90.0]), torch.tensor([60.0, 50.0, 1.0])
    assert inputs.dtype == torch.float32
    torch.testing.assert_close(inputs, ((raw - mean.view(3, 1, 1)) / std.view(3, 1, 1)).float())
    assert targets.equal(arrays.targets[indices])


def test_tokens_and_numbers_get_the_types_of_the_contract(make):
    class Windows:
        def __len__(self):
            return 20

        def batch(self, indices):
            return torch.zeros(len(indices), 6, dtype=torch.uint8), torch.ones(len(indices), 6, dtype=torch.uint8)

    description = DataDescription(input="tokens", target="next_token", input_shape=(6,), vocabulary=9)
    inputs, targets = next(make(Memory, "memory", Windows(), description=description).batches(0, 1))[0]
    assert inputs.dtype == targets.dtype == torch.int64

    numbers = DataDescription(input="vector", target="number", input_shape=(2,), outputs=1)
    pairs = [(torch.full((2,), float(i), dtype=torch.float64), i / 2) for i in range(20)]
    for kind, config in ((Memory, "memory"), (Workers, "0")):
        inputs, targets = next(make(kind, config, pairs, description=numbers).batches(0, 1))[0]
        assert inputs.dtype == targets.dtype == torch.float32
        assert targets.shape == (4, 1)
        assert targets[:, 0].equal(inputs[:, 0] / 2)


def test_what_a_collate_makes_is_moved_as_it_is_and_cannot_be_augmented(make, arrays, kinds):
    def collate(items):
        return {"pixels": [torch.stack([image for image, _ in items])], "labels": torch.tensor([t for _, t in items])}

    dataset = kinds.Items(arrays)
    batch = next(make(Workers, "1", dataset, collate=collate).batches(0, 1))[0]
    assert batch["pixels"][0].dtype == torch.uint8
    with pytest.raises(ConfigError, match="augment=none"):
        next(make(Workers, "0", dataset, collate=collate, augmented=True).batches(0, 1))
    with pytest.raises(ConfigError, match="try loader=workers"):
        make(Memory, "memory", dataset, collate=collate)


def test_memory_refuses_what_it_would_serve_wrongly(make, arrays, kinds):
    ragged = [(torch.zeros(3 + (i > 30)), 0) for i in range(40)]
    late = [(torch.zeros(3 + (i >= 256)), 0) for i in range(512)]
    for dataset, why in ((ragged, "do not stack"), (late, "do not stack"), (kinds.Drawn(arrays), "freeze the draws")):
        with pytest.raises(ConfigError, match=why) as caught:
            make(Memory, "memory", dataset)
        assert caught.value.problems[0].fix == "try loader=workers"


def test_auto_serves_all_of_them(make, arrays, kinds):
    ragged = [(torch.zeros(3 + (i >= 256)), 0) for i in range(512)]
    assert isinstance(make(auto.build, "1", arrays), Memory)
    assert isinstance(make(auto.build, "1", kinds.Items(arrays)), Memory)
    for dataset, why in ((kinds.Drawn(arrays), "freeze"), (ragged, "stack")):
        loader = make(auto.build, "1", dataset)
        assert isinstance(loader, Workers)
        assert why in loader.why


def test_micro_batches_that_do_not_divide_the_share_are_refused(make, arrays):
    with pytest.raises(ConfigError, match="a multiple of 3"):
        make(Memory, "memory", arrays, micro=3)


def test_a_device_refuses_what_it_cannot_hold(make, arrays, kinds):
    class Own(kinds.Arrays):
        to = None

    small = Sharing()
    small.device_memory = 100
    bare = Own.__new__(Own)
    vars(bare).update(vars(arrays))
    for dataset, sharing, why in (
        (arrays, small, "is free"),
        (bare, None, "no `to"),
        (kinds.Items(arrays), small, "free"),
    ):
        with pytest.raises(ConfigError, match=why) as caught:
            make(Device, "device", dataset, sharing=sharing)
        assert caught.value.problems[0].fix == "try loader=memory"
    with pytest.raises(ConfigError, match="drawn anew") as caught:
        make(Device, "device", kinds.Drawn(arrays))
    assert (caught.value.problems[0].where, caught.value.problems[0].fix) == ("loader=device", "try loader=workers")


def test_shipped_arrays_move_with_their_own_rows_alone():
    inputs, targets, rows = torch.arange(40.0).view(20, 2), torch.arange(20), torch.tensor([3, 5, 8])
    whole = ArrayDataset(inputs, targets, rows)
    moved = whole.to(torch.device("cpu"))
    assert moved.inputs.shape == (3, 2)
    assert whole.nbytes == moved.nbytes == 3 * (8 + 8)
    places = torch.tensor([2, 0])
    assert all(map(torch.equal, moved.batch(places), whole.batch(places)))
    windows = WindowDataset(torch.arange(30, dtype=torch.uint8), 4)
    assert all(map(torch.equal, windows.to(torch.device("cpu")).batch(places), windows.batch(places)))
