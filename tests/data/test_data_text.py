"""Streams of bytes: windows, borders, any file."""

import pytest
import torch

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


def test_the_length_that_is_proposed_works(make, tmp_path):
    (tmp_path / "t").write_bytes(b"0123456789" * 20)
    with pytest.raises(ConfigError) as refusal:
        make("text", path=str(tmp_path / "t"), length=50).describe()
    fix = refusal.value.problems[0].fix
    assert make("text", path=str(tmp_path / "t"), length=int(fix.split("=")[1])).describe().test_samples == 1
