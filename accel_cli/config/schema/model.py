"""Model: what is trained. Input shapes, classes and vocabulary come from the data, never from here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from accel_cli.config.schema.base import Entry, Option

Count = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Normalisation = Literal["batch", "group"]


class MLP(Option):
    """Fully connected layers on the flattened input."""

    widths: list[Count] = Field(description="neurons of each hidden layer; [] is a linear model")
    activation: Literal["relu", "gelu", "silu", "tanh"] = Field(description="after each hidden layer")
    dropout: Share = Field(description="share of hidden neurons zeroed in training")


class CNN(Option):
    """A small convolutional net for images from a few pixels up."""

    channels: list[Count] = Field(min_length=1, description="output channels of each 3x3 convolution")
    normalisation: Normalisation = Field(description="batch, or group: independent of the batch size")
    dropout: Share = Field(description="share of pooled features zeroed in training")


class ResNet(Option):
    """Residual net in its CIFAR form (3x3 stem, no first pooling): images from 8x8 up."""

    depth: Literal[18, 34] = Field(description="layers with weights: 18 or 34")
    blocks: list[Count] | None = Field(
        min_length=1, description="blocks of each stage, instead of depth; each stage but the first halves the image"
    )
    width: Count = Field(description="channels of the first stage, doubled at each next one; 64 in the paper")
    normalisation: Normalisation = Field(description="batch, or group: independent of the batch size")


class ViT(Option):
    """Vision transformer: image patches as tokens, mean pooling."""

    patch: Count = Field(description="side of a patch, pixels; must divide the image")
    width: Count = Field(description="numbers per token; heads must divide it")
    depth: Count = Field(description="transformer blocks")
    heads: Count = Field(description="attention heads")
    dropout: Share = Field(description="share of activations zeroed in training")


class GPT(Option):
    """Decoder-only transformer that predicts the next token."""

    width: Count = Field(description="numbers per token; heads must divide it")
    depth: Count = Field(description="transformer blocks")
    heads: Count = Field(description="attention heads")
    dropout: Share = Field(description="share of activations zeroed in training")
    weight_tying: bool = Field(description="read logits out with the token embedding: fewer parameters")


class Torchvision(Option):
    """Any classification model of torchvision, by its exact name."""

    architecture: str = Field(min_length=1, description="exact name, such as resnet50")
    weights: str | None = Field(description="name of published weights, such as DEFAULT; null: fresh")
    args: dict[str, Any] = Field(description="further arguments of the architecture")


class Timm(Option):
    """Any model of timm, by its exact name."""

    architecture: str = Field(min_length=1, description="exact name, such as convnext_atto")
    pretrained: bool = Field(description="start from timm's published weights")
    args: dict[str, Any] = Field(description="further arguments of timm.create_model")


class Transformers(Option):
    """A text model of transformers: a fresh one by type, or a local folder's."""

    architecture: str = Field(
        min_length=1, description="a type such as gpt2 or bert, or a folder of config.json and safetensors"
    )
    args: dict[str, Any] = Field(description="fields of the model's configuration, such as n_layer")


class Custom(Option):
    """Your own model: a class or function that returns a torch.nn.Module."""

    factory: str | None = Field(description="package.module:name, called with args; needs --plugin package")
    args: dict[str, Any] = Field(
        description="its arguments; classes, num_classes, input_shape, in_channels, in_features, "
        "vocabulary, vocab_size and outputs are filled from the data where left unset"
    )


OPTIONS = {
    "mlp": Entry(MLP, "accel_cli.model.mlp:build"),
    "cnn": Entry(CNN, "accel_cli.model.cnn:build"),
    "resnet": Entry(ResNet, "accel_cli.model.resnet:build"),
    "vit": Entry(ViT, "accel_cli.model.vit:build"),
    "gpt": Entry(GPT, "accel_cli.model.gpt:build"),
    "torchvision": Entry(Torchvision, "accel_cli.model.torchvision:build"),
    "timm": Entry(Timm, "accel_cli.model.timm:build", requires=("timm",)),
    "transformers": Entry(Transformers, "accel_cli.model.transformers:build", requires=("transformers",)),
    "custom": Entry(Custom, "accel_cli.model.custom:build"),
}
