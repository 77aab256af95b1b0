"""Optimizer: how gradients become updates."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from accel_cli.config.schema.base import Count, Entry, Option, Section

Decay = Annotated[float, Field(ge=0, lt=1)]
Epsilon = Annotated[float, Field(gt=0)]


class Group(Section):
    """Parameters by name, and what is different about them; what is not said is as the optimizer has it."""

    match: str = Field(description="glob over parameter names; * crosses dots")
    rate: float | None = Field(default=None, gt=0, description="their learning rate as a multiple of learning_rate")
    weight_decay: float | None = Field(default=None, ge=0, description="theirs, whatever their dimensions")
    frozen: bool = Field(default=False, description="they stay as they are")

    @model_validator(mode="after")
    def _says_something(self) -> Group:
        if self.rate is None and self.weight_decay is None and not self.frozen:
            raise ValueError("needs rate, weight_decay or frozen: true")
        return self


class Optimizer(Option):
    """What every optimizer has."""

    learning_rate: float = Field(
        gt=0, description="step size at factor 1 of the schedule; train.learning_rate=find looks for one"
    )
    weight_decay: float = Field(ge=0, description="pull of the weights towards zero")
    decay_norms_and_biases: bool = Field(description="weight decay also on parameters of fewer than two dimensions")
    groups: list[Group] = Field(description="of match, rate, weight_decay, frozen; a parameter's first match counts")


class _Kernel(Optimizer):
    kernel: Literal["auto", "loop", "foreach", "fused"] = Field(description="how torch walks the tensors")


class _NoFused(Optimizer):
    kernel: Literal["auto", "loop", "foreach"] = Field(description="how torch walks the tensors")


class SGD(_Kernel):
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


class Adam(_Moments, _Kernel):
    """Per-weight step sizes from running moments; decay is added to the gradient."""


class AdamW(_Moments, _Kernel):
    """Adam with weight decay apart from the gradient."""


class NAdam(_Moments, _NoFused):
    """Adam with Nesterov momentum."""

    momentum_decay: float = Field(ge=0, description="how fast the momentum's own schedule rises")
    decoupled_weight_decay: bool = Field(description="decay apart from the gradient, as in AdamW")


class Adamax(_Moments, _NoFused):
    """Adam with the largest gradient of late in the denominator."""


class RAdam(_Moments, _NoFused):
    """Adam that warms up by itself, while the squared gradients' mean is uncertain."""

    decoupled_weight_decay: bool = Field(description="decay apart from the gradient, as in AdamW")


class RMSprop(_NoFused):
    """Steps divided by the running root mean square of the gradient."""

    smoothing: Decay = Field(description="memory of the squared gradient's running mean")
    epsilon: Epsilon = Field(description="added to the denominator")
    momentum: Decay = Field(description="share of the last update that is kept; 0: none")
    centered: bool = Field(description="divide by the standard deviation instead")


class Adagrad(_Kernel):
    """Steps divided by the root of all squared gradients so far: for sparse features."""

    initial_accumulator: float = Field(ge=0, description="squared gradients counted before the first step")
    epsilon: Epsilon = Field(description="added to the denominator")


class Adadelta(_NoFused):
    """Steps as large as the last ones were, divided by the gradients' size."""

    smoothing: Decay = Field(description="memory of the running means of squared gradients and steps")
    epsilon: Epsilon = Field(description="added to both means")


class ASGD(_NoFused):
    """Plain steps; what is evaluated is the mean of the weights that they lead through."""

    shrink: float = Field(ge=0, lt=1, description="pull towards zero that also lowers the rate with the steps")
    power: float = Field(gt=0, le=1, description="how fast the rate falls")
    average_from: float = Field(ge=0, description="steps before the mean begins; until then it is the weights")


class Rprop(_NoFused):
    """A step size for every weight, by the sign of the gradient alone: for whole-data batches."""

    shrink: Annotated[float, Field(gt=0, lt=1)] = Field(description="factor where the gradient's sign has turned")
    grow: float = Field(gt=1, description="factor where it has not")
    smallest_step: float = Field(gt=0, description="least step size")
    largest_step: float = Field(gt=0, description="largest step size")


class Adafactor(_NoFused):
    """The squared gradients of a matrix as one row and one column of sums: hardly any state."""

    memory_growth: float = Field(gt=0, description="the mean's memory at step t is 1 - t^-this")
    smallest_scale: float = Field(gt=0, description="least root mean square of a weight that its step is scaled by")
    clip_threshold: float = Field(ge=1, description="most root mean square of an update")


class Lamb(_Moments):
    """Adam's steps, each layer's as long as its weights ask for: for large batches."""


class Lars(Optimizer):
    """SGD with a rate for every layer, from the sizes of its weights and gradient: for large batches."""

    momentum: Decay = Field(description="share of the last update that is kept")
    trust: float = Field(gt=0, description="a layer's step as a share of its weights' size")
    epsilon: Epsilon = Field(description="added to the denominator")


class Lion(Optimizer):
    """Steps of one size, in the direction of the sign of the momentum."""

    beta1: Decay = Field(description="share of the momentum in the direction of a step")
    beta2: Decay = Field(description="memory of the momentum")


class ScheduleFree(_Moments):
    """AdamW whose weights are averaged as it goes, so that no schedule has to decay."""

    beta1: float = Field(gt=0, lt=1, description="how near to the mean the gradient is taken")


class AdamW8bit(_Moments):
    """AdamW whose two moments take a byte a weight each."""


class Muon(_Moments, _Kernel):
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
    "adamax": Entry(Adamax, "accel_cli.optimizer.adamax:build"),
    "radam": Entry(RAdam, "accel_cli.optimizer.radam:build"),
    "adadelta": Entry(Adadelta, "accel_cli.optimizer.adadelta:build"),
    "asgd": Entry(ASGD, "accel_cli.optimizer.asgd:build"),
    "rprop": Entry(Rprop, "accel_cli.optimizer.rprop:build"),
    "adafactor": Entry(Adafactor, "accel_cli.optimizer.adafactor:build"),
    "lamb": Entry(Lamb, "accel_cli.optimizer.lamb:build"),
    "lars": Entry(Lars, "accel_cli.optimizer.lars:build"),
    "lion": Entry(Lion, "accel_cli.optimizer.lion:build"),
    "schedule_free": Entry(ScheduleFree, "accel_cli.optimizer.schedule_free:build"),
    "adamw8bit": Entry(AdamW8bit, "accel_cli.optimizer.adamw8bit:build", requires=("torchao",)),
    "muon": Entry(Muon, "accel_cli.optimizer.muon:build"),
    "custom": Entry(Custom, "accel_cli.optimizer.custom:build"),
}
