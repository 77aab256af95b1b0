"""Optimizer: how gradients become updates."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from accel_cli.config.schema.base import Count, Entry, Option

Decay = Annotated[float, Field(ge=0, lt=1)]
Epsilon = Annotated[float, Field(gt=0)]


class Optimizer(Option):
    """What every optimizer has."""

    learning_rate: float = Field(gt=0, description="step size at factor 1 of the schedule")
    weight_decay: float = Field(ge=0, description="pull of the weights towards zero")
    decay_norms_and_biases: bool = Field(description="weight decay also on parameters of fewer than two dimensions")


class SGD(Optimizer):
    """Stochastic gradient descent with momentum; decay is added to the gradient."""

    momentum: Decay = Field(description="share of the last update that is kept; 0: none")
    nesterov: bool = Field(description="look ahead along the momentum")

    @field_validator("nesterov")
    @classmethod
    def _needs_momentum(cls, nesterov: bool, values: ValidationInfo) -> bool:
        if nesterov and values.data.get("momentum") == 0:
            raise ValueError("needs optimizer.momentum above 0")
        return nesterov


class _Moments(Optimizer):
    beta1: Decay = Field(description="memory of the gradient's running mean")
    beta2: Decay = Field(description="memory of the squared gradient's running mean")
    epsilon: Epsilon = Field(description="added to the denominator")


class Adam(_Moments):
    """Per-weight step sizes from running moments; decay is added to the gradient."""


class AdamW(_Moments):
    """Adam with weight decay apart from the gradient."""


class NAdam(_Moments):
    """Adam with Nesterov momentum."""

    momentum_decay: float = Field(ge=0, description="how fast the momentum's own schedule rises")
    decoupled_weight_decay: bool = Field(description="decay apart from the gradient, as in AdamW")


class RMSprop(Optimizer):
    """Steps divided by the running root mean square of the gradient."""

    smoothing: Decay = Field(description="memory of the squared gradient's running mean")
    epsilon: Epsilon = Field(description="added to the denominator")
    momentum: Decay = Field(description="share of the last update that is kept; 0: none")
    centered: bool = Field(description="divide by the standard deviation instead")


class Adagrad(Optimizer):
    """Steps divided by the root of all squared gradients so far: for sparse features."""

    initial_accumulator: float = Field(ge=0, description="squared gradients counted before the first step")
    epsilon: Epsilon = Field(description="added to the denominator")


class Muon(_Moments):
    """Orthogonalised momentum on hidden weight matrices, AdamW on everything else."""

    momentum: Decay = Field(description="memory of the matrices' running mean of gradients")
    nesterov: bool = Field(description="look ahead along the momentum")
    newton_schulz_steps: Count = Field(lt=100, description="iterations of the orthogonalisation")
    rate_adjustment: Literal["original", "match_rms_adamw"] = Field(
        description="how a matrix's shape scales its update; match_rms_adamw: rates tuned for AdamW fit"
    )
    adamw_rate: float = Field(gt=0, description="AdamW's learning rate as a multiple of learning_rate")


class Custom(Optimizer):
    """Your own optimizer class, called with the parameter groups and lr."""

    factory: str = Field(description="package.module:Name of a torch.optim.Optimizer")
    args: dict[str, Any] = Field(description="keyword arguments for it, beside lr and weight decay")


OPTIONS = {
    "adamw": Entry(AdamW, "accel_cli.optimizer.adamw:build"),
    "adam": Entry(Adam, "accel_cli.optimizer.adam:build"),
    "sgd": Entry(SGD, "accel_cli.optimizer.sgd:build"),
    "nadam": Entry(NAdam, "accel_cli.optimizer.nadam:build"),
    "rmsprop": Entry(RMSprop, "accel_cli.optimizer.rmsprop:build"),
    "adagrad": Entry(Adagrad, "accel_cli.optimizer.adagrad:build"),
    "muon": Entry(Muon, "accel_cli.optimizer.muon:build"),
    "custom": Entry(Custom, "accel_cli.optimizer.custom:build"),
}
