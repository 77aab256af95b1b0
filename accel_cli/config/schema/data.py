"""Data: what is learned from, and how it is split.

Besides its fields every class says what the torch-free front may know: ``input_kind`` and ``target_kind`` (None where
only the data can tell), and ``needs_preparing``: whether to download or decode once, before the ranks start. Where its
size is known without reading it, ``train_samples`` is that of the training split.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from accel_cli.config.schema.base import Entry, Option

InputKind = Literal["image", "vector", "tokens"] | None
TargetKind = Literal["class", "number", "next_token"] | None


def _given(value: Any) -> Any:
    if value is None or value in ("", "???"):
        raise PydanticCustomError("missing", "has no default: it is yours to name")
    return value


Required = Annotated[str, BeforeValidator(_given)]
ValidationShare = Annotated[
    float,
    Field(gt=0, lt=0.5, description="share of the training samples that becomes validation, where the source has none"),
]
TestShare = Annotated[
    float,
    Field(gt=0, lt=0.5, description="share of the training samples that becomes test, where the source has none"),
]
Cache = Annotated[
    str | None,
    Field(description="folder of decoded arrays and downloads; null: $XDG_CACHE_HOME/accel or ~/.cache/accel"),
]
Length = Annotated[int, Field(gt=0, description="tokens in one window, the context of the model")]


def left_for_training(samples: int, *shares: float) -> int:
    """What cutting the other splits out of ``samples`` leaves."""
    return samples - sum(max(1, round(samples * share)) for share in shares)


class Data(Option):
    """What every data set says."""

    @property
    def train_samples(self) -> int | None:
        """None where only the data can tell."""
        return None


class Digits(Data):
    """1,797 handwritten digits of 8x8 pixels, carried by scikit-learn: real data, no download."""

    input_kind: ClassVar[InputKind] = "image"
    target_kind: ClassVar[TargetKind] = "class"
    needs_preparing: ClassVar[bool] = False

    validation_share: ValidationShare
    test_share: TestShare

    @property
    def train_samples(self) -> int:
        return left_for_training(1797, self.validation_share, self.test_share)


class Stream(Data):
    """What every text says: tokens one behind another, cut into windows."""

    input_kind: ClassVar[InputKind] = "tokens"
    target_kind: ClassVar[TargetKind] = "next_token"

    tokenizer: str = Field(
        min_length=1,
        description="bytes; or the path of a tokenizer.json; or an encoding of tiktoken, such as gpt2",
    )
    length: Length
    windows: Literal["fixed", "shifting"] = Field(
        description="where training windows begin: at the same tokens in each epoch, or shifted by (seed, epoch)"
    )
    validation_share: ValidationShare
    test_share: TestShare
    cache: Cache

    @property
    def reads_file(self) -> bool:
        """Whether the tokenizer is a file, rather than an encoding of tiktoken."""
        return self.tokenizer.endswith(".json") or "/" in self.tokenizer

    @property
    def packages(self) -> dict[str, str]:
        if self.tokenizer == "bytes":
            return {}
        return {"tokenizer": "tokenizers" if self.reads_file else "tiktoken"}


class StandardLibraryText(Stream):
    """The source text of the running Python's standard library: real text, no download."""

    max_bytes: int | None = Field(gt=0, description="bytes read, in sorted order of the files; null: all")

    @property
    def needs_preparing(self) -> bool:
        return self.tokenizer != "bytes"


class Text(Stream):
    """Your own text, to predict the next token: a file, a folder or a glob."""

    needs_preparing: ClassVar[bool] = True
    many_files: ClassVar[bool] = True

    path: Required = Field(
        description="a file, a folder or a quoted glob: a document each, in sorted order; .jsonl: one a line"
    )
    field: str = Field(min_length=1, description="key of the text in each line of a .jsonl file")
    separator: Annotated[int, Field(ge=0)] | str | None = Field(
        description="token between documents, by number or name; null: none; auto: its end of text, or byte 0"
    )


class ImageFolder(Data):
    """Your own images in train/<class>/*, decoded once into a cache."""

    input_kind: ClassVar[InputKind] = "image"
    target_kind: ClassVar[TargetKind] = "class"
    needs_preparing: ClassVar[bool] = True

    root: Required = Field(description="folder that holds train/<class>/*, and perhaps validation/ or val/, and test/")
    image_size: int | None = Field(
        gt=0, description="pixels of each side, cropped at the centre; null: as the first training image"
    )
    channels: Literal[1, 3] = Field(description="3: colour, 1: grey")
    validation_share: ValidationShare
    test_share: TestShare
    cache: Cache


class Downloaded(Data):
    """A public image set, downloaded once by torchvision."""

    input_kind: ClassVar[InputKind] = "image"
    target_kind: ClassVar[TargetKind] = "class"
    needs_preparing: ClassVar[bool] = True

    root: str | None = Field(description="folder of its files, as torchvision lays them out; null: the cache folder")
    validation_share: ValidationShare
    cache: Cache
    source_samples: ClassVar[int]
    """Of the training split as it is downloaded."""

    @property
    def train_samples(self) -> int:
        return left_for_training(self.source_samples, self.validation_share)


class Cifar10(Downloaded):
    """60,000 colour images of 32x32 pixels in 10 classes."""

    source_samples: ClassVar[int] = 50_000


class Cifar100(Downloaded):
    """60,000 colour images of 32x32 pixels in 100 classes."""

    source_samples: ClassVar[int] = 50_000


class Mnist(Downloaded):
    """70,000 handwritten digits of 28x28 pixels."""

    source_samples: ClassVar[int] = 60_000


class FashionMnist(Downloaded):
    """70,000 grey images of clothing of 28x28 pixels, in 10 classes."""

    source_samples: ClassVar[int] = 60_000


class Synthetic(Data):
    """Random but learnable data of any size: the target depends on the input."""

    shape: Literal["image", "vector", "tokens"] = Field(description="what a sample is")
    classes: int | None = Field(
        ge=2, description="classes, or the vocabulary of tokens; null: a number to predict (not for tokens)"
    )
    channels: int = Field(gt=0, description="of an image")
    height: int = Field(gt=0, description="of an image, in pixels")
    width: int = Field(gt=0, description="of an image, in pixels")
    features: int = Field(gt=0, description="of a vector")
    length: Length
    samples: int = Field(ge=3, description="of all splits together")
    noise: float = Field(ge=0, le=1, description="0: the target follows from the input exactly; 1: not at all")
    validation_share: ValidationShare
    test_share: TestShare

    @property
    def input_kind(self) -> InputKind:
        return self.shape

    @property
    def target_kind(self) -> TargetKind:
        if self.shape == "tokens":
            return "next_token"
        return "number" if self.classes is None else "class"

    @property
    def needs_preparing(self) -> bool:
        return False

    @property
    def train_samples(self) -> int:
        return left_for_training(self.samples, self.validation_share, self.test_share)


class Csv(Data):
    """Your own table: numbers in columns, one of them the target."""

    input_kind: ClassVar[InputKind] = "vector"
    needs_preparing: ClassVar[bool] = True

    path: Required = Field(description="the file; its first row names the columns")
    target: Required = Field(description="name of the column to predict")
    target_kind: Literal["class", "number"] = Field(description="class: any text; number: a quantity")
    ignore: list[str] = Field(description="names of columns that are neither input nor target")
    delimiter: str | None = Field(
        min_length=1, max_length=1, description="between two cells; null: as the first row shows"
    )
    validation_share: ValidationShare
    test_share: TestShare
    cache: Cache


class Numpy(Data):
    """Your own arrays in a .npz file."""

    input_kind: ClassVar[InputKind] = None
    target_kind: ClassVar[TargetKind] = None
    needs_preparing: ClassVar[bool] = True

    path: Required = Field(description="the .npz file; arrays of Python objects are refused")
    inputs: str = Field(description="its array [n, features], [n, height, width] or [n, channels, height, width]")
    targets: str = Field(description="its array [n] of class numbers (integers) or [n] or [n, outputs] of quantities")
    validation_share: ValidationShare
    test_share: TestShare
    cache: Cache


class Custom(Data):
    """Your own Dataset, by factory."""

    input_kind: ClassVar[InputKind] = None
    target_kind: ClassVar[TargetKind] = None
    needs_preparing: ClassVar[bool] = False

    factory: Required = Field(description='package.module:name, called with split="train", "validation" or "test"')
    args: dict[str, Any] = Field(description="further keyword arguments of the factory")
    classes: int | None = Field(ge=2, description="classes; null: as the data set's own `classes` says")
    collate: str | None = Field(
        description="package.module:name that makes a batch of a list of samples; null: torch's"
    )
    fingerprint: str | None = Field(
        min_length=1,
        description="any word that names the content: decoded samples are then kept for later runs; change it when the "
        "data or the code changes; null: decoded for each run",
    )
    validation_share: ValidationShare
    test_share: TestShare
    cache: Cache


class Shards(Data):
    """Samples in litdata's chunks, in a folder or behind a URL."""

    input_kind: ClassVar[InputKind] = None
    target_kind: ClassVar[TargetKind] = None
    needs_preparing: ClassVar[bool] = True
    is_address: ClassVar[bool] = True

    path: Required = Field(
        description="folder or URL of an index.json, or of train/, validation/ and test/ with one each"
    )
    classes: int | None = Field(ge=2, description="classes, or tokens of the vocabulary, where a sample cannot tell")
    cache_gigabytes: float = Field(
        gt=0, description="most that fetched chunks take on this disk, of each split's folder"
    )
    validation_share: ValidationShare
    test_share: TestShare
    cache: Cache


OPTIONS = {
    "digits": Entry(Digits, "accel_cli.data.digits:Digits"),
    "stdlib_text": Entry(StandardLibraryText, "accel_cli.data.text:StandardLibraryText"),
    "text": Entry(Text, "accel_cli.data.text:Text"),
    "image_folder": Entry(ImageFolder, "accel_cli.data.image_folder:ImageFolder"),
    "cifar10": Entry(Cifar10, "accel_cli.data.downloaded:Downloaded"),
    "cifar100": Entry(Cifar100, "accel_cli.data.downloaded:Downloaded"),
    "mnist": Entry(Mnist, "accel_cli.data.downloaded:Downloaded"),
    "fashion_mnist": Entry(FashionMnist, "accel_cli.data.downloaded:Downloaded"),
    "synthetic": Entry(Synthetic, "accel_cli.data.synthetic:Synthetic"),
    "csv": Entry(Csv, "accel_cli.data.csv:Csv"),
    "numpy": Entry(Numpy, "accel_cli.data.numpy:Numpy"),
    "shards": Entry(Shards, "accel_cli.data.shards:Shards", requires=("litdata",)),
    "custom": Entry(Custom, "accel_cli.data.custom:Custom"),
}
