"""Folders of images, and the public sets of torchvision."""

import io
import struct
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from accel_cli.data.base import SPLITS
from accel_cli.errors import ConfigError, ResourceError

COLOURS = {"blue": (0, 0, 255), "red": (255, 0, 0)}


def paint(path, colour, size=(6, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def folder(tmp_path):
    for split, count in (("train", 20), ("test", 3)):
        for name, colour in COLOURS.items():
            for number in range(count):
                paint(tmp_path / f"images/{split}/{name}/{number}.png", colour)
    return tmp_path / "images"


@pytest.fixture
def images(make, tmp_path):
    def images(root, **values):
        return make("image_folder", root=str(root), cache=str(tmp_path / "cache"), **values)

    return images


def problems(data):
    with pytest.raises(ConfigError) as refusal:
        data.prepare(lambda *_: None)
    return [f"{p.where} {p.why} {p.fix}" for p in refusal.value.problems]


def test_images_are_decoded_once_with_progress(images, folder):
    reports = []
    images(folder).prepare(lambda *report: reports.append(report))
    assert reports[-1] == ("decode images", 46, 46)
    again = images(folder)
    again.prepare(lambda *report: pytest.fail("decoded twice"))
    facts = again.describe()
    assert facts.input_shape == (3, 4, 6)
    assert facts.class_names == ("blue", "red")
    assert (facts.train_samples, facts.validation_samples, facts.test_samples) == (36, 4, 6)
    assert facts.mean == (127.5, 0.0, 127.5)
    assert facts.std == (127.5, 1.0, 127.5)


def test_pixels_and_classes_belong_together(images, folder):
    data = images(folder)  # no prepare: split builds the cache itself
    for name in SPLITS:
        inputs, targets = data.split(name).batch(torch.arange(len(data.split(name))))
        assert inputs.dtype == torch.uint8
        assert torch.equal(inputs[:, 0, 0, 0] == 255, targets == 1)
        assert torch.equal(inputs[:, 2, 0, 0] == 255, targets == 0)


def test_cache_follows_the_files_and_the_settings(images, folder, tmp_path):
    images(folder).describe()
    paint(folder / "train/red/new.png", COLOURS["red"])
    assert images(folder).describe().train_samples == 37
    assert images(folder, image_size=8).describe().input_shape == (3, 8, 8)
    assert images(folder, channels=1).describe().input_shape == (1, 4, 6)
    entries = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert len(entries) == 3  # the stale one is gone


def test_own_validation_is_used_under_either_name(images, folder):
    for name in COLOURS:
        paint(folder / f"val/{name}/0.png", COLOURS[name])
    facts = images(folder).describe()
    assert (facts.train_samples, facts.validation_samples, facts.test_samples) == (40, 2, 6)


def test_other_sizes_are_cropped_at_the_centre(images, folder):
    wide = Image.new("RGB", (300, 100), COLOURS["red"])
    wide.paste((0, 255, 0), (0, 0, 60, 100))  # left of the centre square of 100
    wide.save(folder / "test/red/0.png")
    data = images(folder, image_size=10)
    inputs, targets = data.split("test").batch(torch.arange(6))
    assert inputs[targets == 1][:, 1].max() == 0


def test_broken_images_are_named_all_at_once(images, folder):
    whole = (folder / "train/red/0.png").read_bytes()
    (folder / "train/red/3.png").write_bytes(b"no image")
    (folder / "test/blue/1.png").write_bytes(whole[:50])
    found = problems(images(folder))
    assert len(found) == 2
    assert "train/red/3.png: not an image that PIL knows" in "".join(found)
    assert "test/blue/1.png: " in "".join(found)
    assert "remove or replace the file" in found[0]


def test_first_image_broken(images, folder):
    (folder / "train/blue/0.png").write_bytes(b"")
    assert "train/blue/0.png" in "".join(problems(images(folder)))


def test_wrong_layouts_are_named_all_at_once(images, folder, tmp_path):
    assert "no such folder" in problems(images(tmp_path / "nowhere"))[0]
    assert "has no folder train" in problems(images(folder / "train"))[0]
    (folder / "train/green").mkdir()
    paint(folder / "test/black/0.png", (0, 0, 0))
    (folder / "val").mkdir()
    found = "\n".join(problems(images(folder)))
    assert "train/green holds no images" in found
    assert "test has classes that train has not: black" in found
    assert "validation holds no class folders" in found


def test_one_class_only(images, tmp_path):
    paint(tmp_path / "one/train/red/0.png", COLOURS["red"])
    assert "one class only, red" in problems(images(tmp_path / "one"))[0]
    (tmp_path / "none/train").mkdir(parents=True)
    assert "no class folders" in problems(images(tmp_path / "none"))[0]


def test_real_jpegs(images, shared, tmp_path):
    root, kept = tmp_path / "cifar", 0
    with tarfile.open(shared("cifar10-jpeg.tar.xz")) as archive:
        for member in archive:
            if kept == 200:
                break
            if member.isfile() and member.name.endswith(".jpg"):
                # The archive is in order of classes; two made-up classes do to see real files through.
                path = root / f"train/{'even' if kept % 2 == 0 else 'odd'}/{kept:03}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.extractfile(member).read())
                kept += 1
    data = images(root)
    facts = data.describe()
    assert facts.input_shape == (3, 32, 32)
    assert facts.train_samples + facts.validation_samples + facts.test_samples == 200
    assert all(50 < mean < 200 for mean in facts.mean)
    assert all(30 < std < 100 for std in facts.std)
    dataset = data.split("train")
    picture = np.asarray(Image.open(root / "train/even/000.jpg").convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(dataset.inputs[0].numpy(), picture)


def write_idx(folder, part, images, labels):
    folder.mkdir(parents=True, exist_ok=True)
    head = struct.pack(">IIII", 0x803, *images.shape)
    (folder / f"{part}-images-idx3-ubyte").write_bytes(head + images.tobytes())
    (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, len(labels)) + labels.tobytes())


@pytest.mark.parametrize(("option", "name"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_files_that_are_there_are_used(make, tmp_path, option, name):
    random = np.random.default_rng(0)
    for part, count in (("train", 40), ("t10k", 10)):
        images = random.integers(256, size=(count, 28, 28)).astype(np.uint8)
        write_idx(tmp_path / f"data/{name}/raw", part, images, np.arange(count, dtype=np.uint8) % 10)
    data = make(option, root=str(tmp_path / "data"), cache=str(tmp_path / "cache"))
    data.prepare(lambda *_: None)
    facts = data.describe()
    assert facts.input_shape == (1, 28, 28)
    assert (facts.train_samples, facts.validation_samples, facts.test_samples) == (36, 4, 10)
    inputs, targets = data.split("test").batch(torch.arange(10))
    assert np.array_equal(inputs[:, 0].numpy(), images)
    assert targets.tolist() == list(range(10))
    assert facts.class_names[1] == ("1" if option == "mnist" else "Trouser")


@pytest.mark.parametrize("option", ["cifar10", "cifar100", "mnist", "fashion_mnist"])
def test_offline_says_what_would_do(make, tmp_path, monkeypatch, option):
    for scheme in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(scheme, "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("no_proxy", "")
    data = make(option, root=str(tmp_path / "data"), cache=str(tmp_path / "cache"))
    with pytest.raises(ResourceError) as refusal:
        data.prepare(lambda *_: None)
    assert f"cannot download {option} into data.root={tmp_path / 'data'}" in refusal.value.message
    assert "cifar" in refusal.value.fix or "ubyte" in refusal.value.fix
    assert "data=digits" in refusal.value.fix


def test_damaged_public_files(make, tmp_path):
    folder = tmp_path / "data/MNIST/raw"
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (folder / f"{part}-{kind}-ubyte").write_bytes(io.BytesIO(b"\0\0\x08").getvalue())
    data = make("mnist", root=str(tmp_path / "data"), cache=str(tmp_path / "cache"))
    with pytest.raises(ResourceError, match="cannot be read"):
        data.describe()
