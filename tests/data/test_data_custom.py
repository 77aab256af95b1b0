"""The user's own data sets, through the real factory door."""

import pytest
import torch
from torch.utils.data import IterableDataset, Subset, TensorDataset

from accel_cli.config.factory import grant
from accel_cli.data.base import SPLITS
from accel_cli.errors import ConfigError, SecurityError

HERE = "test_data_custom"


class Stream(IterableDataset):
    classes = ("a", "b")

    def __iter__(self):
        yield from ((torch.ones(3), 1) for _ in range(5))


def all_splits(split, size=8):
    assert split in SPLITS
    return TensorDataset(torch.rand(size, 3, 4, 4), torch.arange(size) % 2)


def only_train(split):
    if split != "train":
        raise ValueError(split)
    return TensorDataset(torch.rand(20, 6), torch.rand(20, 2))


def no_split():
    return TensorDataset(torch.randint(50, (20, 9)), torch.randint(50, (20, 9)))


def dicts(split):
    return [{"words": torch.ones(3), "length": 3}] * 10


def stream(split):
    return Stream()


def stream_of_train(split):
    return Stream() if split == "train" else None


def empty(split):
    return []


def number(split):
    return 3


def breaks(split):
    raise RuntimeError("the user's own bug")


def stack(samples):
    return torch.stack([first for first, _ in samples])


@pytest.fixture
def custom(make):
    grant([HERE])

    def custom(name, **values):
        return make("custom", factory=f"{HERE}:{name}", **values)

    return custom


def problem(data):
    with pytest.raises(ConfigError) as refusal:
        data.describe()
    return "\n".join(f"{p.where} | {p.why} | {p.fix}" for p in refusal.value.problems)


def test_every_split_from_the_factory(custom):
    data = custom("all_splits", args={"size": 12}, classes=2)
    facts = data.describe()
    assert (facts.input, facts.target, facts.input_shape, facts.classes) == ("image", "class", (3, 4, 4), 2)
    assert (facts.train_samples, facts.validation_samples, facts.test_samples) == (12, 12, 12)
    assert isinstance(data.split("train"), TensorDataset)
    assert data.collate is None


def test_splits_that_the_factory_does_not_know_are_cut_from_train(custom):
    first, again = custom("only_train"), custom("only_train")
    facts = first.describe()
    assert (facts.input, facts.target, facts.outputs) == ("vector", "number", 2)
    assert (facts.train_samples, facts.validation_samples, facts.test_samples) == (16, 2, 2)
    kept = [first.split(name).indices for name in SPLITS]
    assert sorted(sum(kept, [])) == list(range(20))
    assert kept == [again.split(name).indices for name in SPLITS]


def test_factory_without_splits_and_text(custom):
    data = custom("no_split", classes=50)
    facts = data.describe()
    assert (facts.input, facts.target, facts.vocabulary, facts.input_shape) == ("tokens", "next_token", 50, (9,))
    assert isinstance(data.split("test"), Subset)


def test_dicts_are_left_alone(custom):
    facts = custom("dicts").describe()
    assert (facts.input, facts.target, facts.train_samples) == ("other", "other", 10)


def test_streams(custom):
    facts = custom("stream").describe()
    assert (facts.input, facts.classes, facts.train_samples) == ("vector", 2, None)
    found = problem(custom("stream_of_train"))
    assert "returned nothing for split=validation, and a stream can't be cut" in found
    assert "split=test" in found


def test_own_collate(custom):
    assert custom("all_splits", classes=2, collate=f"{HERE}:stack").collate is stack


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        ("all_splits", {}, "how many classes there are | try data.classes=10"),
        ("all_splits", {"args": {"sise": 3}}, "data.args={'sise': 3} | "),
        ("empty", {}, "empty data set for split=train"),
        ("number", {}, "returned a int for split=train"),
        ("HERE", {}, "is a str, not a function"),
        ("all_split", {}, "did you mean"),
    ],
)
def test_unfit_factories(custom, name, values, why):
    assert why in problem(custom(name, **values))


def test_the_users_own_error_passes_through(custom):
    with pytest.raises(RuntimeError, match="the user's own bug"):
        custom("breaks").describe()


def test_code_that_nobody_granted_is_refused(make):
    with pytest.raises(SecurityError):
        make("custom", factory="antigravity_of_others:make").describe()
