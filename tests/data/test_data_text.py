"""Streams of bytes: windows, borders, any file."""

import pytest
import torch

from accel_cli.data.arrays import ShiftingWindows, WindowDataset
from accel_cli.errors import ConfigError


def test_windows_predict_every_byte_once(make, tmp_path):
    content = bytes(range(256)) * 5
    (tmp_path / "any.bin").write_bytes(content)
    data = make("text", path=str(tmp_path / "any.bin"), length=16, validation_share=0.1, test_share=0.2)
    train = data.split("train")
    inputs, targets = train.batch(torch.arange(len(train)))
    count = len(train) * 16
    assert bytes(inputs.flatten().tolist()) == content[:count]
    assert bytes(targets.flatten().tolist()) == content[1 : count + 1]
    assert inputs.is_contiguous()
    assert targets.is_contiguous()
    order = torch.tensor([5, 0, 5])
    assert torch.equal(train.batch(order)[0], inputs[order])


def test_splits_are_contiguous_and_in_order(make, tmp_path):
    content = bytes(i * 7919 % 251 for i in range(10_000))
    (tmp_path / "t").write_bytes(content)
    data = make("text", path=str(tmp_path / "t"), length=9, validation_share=0.1, test_share=0.1)
    for name, start in (("train", 0), ("validation", 8000), ("test", 9000)):
        inputs, _ = data.split(name).batch(torch.arange(len(data.split(name))))
        assert bytes(inputs.flatten().tolist()) == content[start : start + inputs.numel()]


def test_tinyshakespeare(make, shared):
    data = make("text", path=str(shared("tinyshakespeare.txt")), length=64)
    facts = data.describe()
    assert (facts.vocabulary, facts.bytes_per_token, facts.input_shape) == (256, 1.0, (64,))
    assert bytes(data.split("train")[0][0].tolist()).startswith(b"First Citizen:")
    tokens = 64 * (facts.train_samples + facts.validation_samples + facts.test_samples)
    assert tokens == pytest.approx(1_115_394, abs=3 * 65)


def test_standard_library_is_source_text(make):
    data = make("stdlib_text", max_bytes=50_000, length=50)
    facts = data.describe()
    assert 50 * facts.train_samples == pytest.approx(45_000, abs=51)
    text = bytes(data.split("train").windows[:, :-1].flatten().tolist())
    assert b"\nimport " in text
    assert b"\ndef " in text


@pytest.mark.parametrize(
    ("content", "length", "why"),
    [
        (b"", 8, "is empty"),
        (b"short text", 8, "a window needs 9 bytes of each split (train"),
        (None, 8, "no such file"),
    ],
)
def test_unfit_text_is_refused(make, tmp_path, content, length, why):
    path = tmp_path / "t.txt"
    if content is not None:
        path.write_bytes(content)
    data = make("text", path=str(path), length=length)
    with pytest.raises(ConfigError) as refusal:
        data.describe()
    assert why in str(refusal.value)
    if content != b"short text":
        with pytest.raises(ConfigError):
            data.prepare(lambda *_: None)


def test_shifting_windows_move_their_borders_each_epoch(make, tmp_path):
    content = bytes(i * 7919 % 251 for i in range(3000))
    (tmp_path / "t").write_bytes(content)
    made = {
        kind: make("text", path=str(tmp_path / "t"), length=10, windows=kind, seed=3) for kind in ("fixed", "shifting")
    }
    train = made["shifting"].split("train")
    count, everyone = len(train), torch.arange(len(train))
    assert made["shifting"].describe().train_samples == count == 2700 // 10 - 1
    starts, read = set(), set()
    for epoch in range(40):
        inputs, targets = train.batch(everyone, torch.full((count,), epoch))
        start = next(s for s in range(10) if content[s:].startswith(bytes(inputs.flatten().tolist())))
        assert bytes(targets.flatten().tolist()) == content[start + 1 : start + 1 + 10 * count]
        starts.add(start)
        read |= set(range(start, start + 10 * count))
    assert starts == set(range(10))
    assert read == set(range(2699))  # of 2700; the last is only a target
    mixed = train.batch(torch.tensor([5, 5, 0]), torch.tensor([1, 2, 2]))
    for row, (index, epoch) in enumerate([(5, 1), (5, 2), (0, 2)]):
        alone = train.batch(torch.tensor([index]), torch.tensor([epoch]))
        assert all(torch.equal(many[row], one[0]) for many, one in zip(mixed, alone, strict=True))
    assert torch.equal(train[7][0], train.batch(torch.tensor([7]))[0][0])
    for name in ("validation", "test"):
        indices = torch.arange(len(made["fixed"].split(name)))
        still = made["fixed"].split(name).batch(indices)[0]
        assert torch.equal(made["shifting"].split(name).batch(indices)[0], still)
    other = make("text", path=str(tmp_path / "t"), length=10, windows="shifting", seed=4).split("train")
    ten = [torch.full((count,), epoch) for epoch in range(10)]
    assert any(not torch.equal(train.batch(everyone, e)[0], other.batch(everyone, e)[0]) for e in ten)


def test_windows_need_room_to_shift(make, tmp_path):
    (tmp_path / "t").write_bytes(b"0123456789" * 10)
    shares = {"validation_share": 0.45, "test_share": 0.45}
    with pytest.raises(ConfigError, match=r"train has 10 tokens; two windows of 6"):
        make("text", path=str(tmp_path / "t"), length=6, windows="shifting", **shares).describe()
    assert make("text", path=str(tmp_path / "t"), length=5, windows="shifting", **shares).describe().train_samples == 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.uint32])
@pytest.mark.parametrize("kind", [WindowDataset, ShiftingWindows])
def test_windows_of_any_width_of_token(dtype, kind):
    largest = {torch.uint8: 255, torch.uint16: 65_535, torch.uint32: 2**31 - 1}[dtype]
    tokens = torch.arange(1000).flip(0) + largest - 999 if largest > 999 else torch.arange(1000) % 256
    dataset = kind(tokens.to(dtype), 30, *([7] if kind is ShiftingWindows else []))
    inputs, targets = dataset.batch(torch.arange(len(dataset)))
    assert inputs.dtype == targets.dtype == (torch.uint8 if dtype == torch.uint8 else torch.int32)
    assert torch.equal(inputs.flatten()[1:].long(), targets.flatten()[:-1].long())
    start = int((tokens == int(inputs[0, 0])).nonzero()[0])
    assert torch.equal(inputs.flatten().long(), tokens[start : start + inputs.numel()])
    assert all(torch.equal(one, many[-1]) for one, many in zip(dataset[-1], (inputs, targets), strict=True))


def test_the_length_that_is_proposed_works(make, tmp_path):
    (tmp_path / "t").write_bytes(b"0123456789" * 20)
    with pytest.raises(ConfigError) as refusal:
        make("text", path=str(tmp_path / "t"), length=50).describe()
    fix = refusal.value.problems[0].fix
    assert make("text", path=str(tmp_path / "t"), length=int(fix.split("=")[1])).describe().test_samples == 1
