"""Text models of transformers: fresh by type, or from a local folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn

from accel_cli.config.schema.model import Transformers
from accel_cli.config.suggest import did_you_mean, nearest
from accel_cli.description import DataDescription
from accel_cli.errors import ConfigError, Problem, SecurityError
from accel_cli.model.base import on_meta, outputs, require

KINDS = {
    "next_token": transformers.AutoModelForCausalLM,
    "class": transformers.AutoModelForSequenceClassification,
    "number": transformers.AutoModelForSequenceClassification,
}
SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "cls_token_id", "sep_token_id")
PICKLES = (".bin", ".pt", ".pth", ".ckpt")


def build(config: Transformers, description: DataDescription) -> nn.Module:
    """Tokens int64 [n, L] -> logits [n, L, vocabulary], or [n, classes or outputs].

    With a folder's weights, ``model.new_parameters`` names what they did not fill; on the meta device they are
    not read. Nothing is downloaded, no code of a folder is run. Raises ConfigError for what does not fit,
    SecurityError for a folder whose weights are pickles.
    """
    require(config, description, inputs=("tokens",), targets=tuple(KINDS))
    if description.target not in KINDS:
        why = f"cannot tell which head a target of kind {description.target} needs"
        raise ConfigError(Problem("model=transformers", why, "try model=custom model.factory=my_file:MyNet"))
    folder = Path(config.architecture).expanduser()
    local = folder.is_dir()
    settings = from_folder(config, folder, description) if local else from_type(config, description)
    settings.use_cache = False
    if description.target == "next_token":
        settings.is_decoder = True  # else encoders such as bert would see the token that they predict
    kind = KINDS[description.target]
    weighted = local and has_weights(config, folder)
    try:
        if weighted and not on_meta():
            model, found = kind.from_pretrained(
                folder,
                config=settings,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
            mismatched = [entry[0] for entry in found["mismatched_keys"]]
            model.new_parameters = tuple(sorted({*found["missing_keys"], *mismatched}))
        else:
            model = kind.from_config(settings, dtype=torch.float32, trust_remote_code=False)
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        why = f"{settings.model_type}: {brief(error)}"
        raise ConfigError(Problem(f"model.architecture={config.architecture}", why, "try model.args={}")) from error
    if settings.pad_token_id is None and description.target != "next_token":
        model.config.pad_token_id = -1  # no sample is padded: gpt2 and llama read their class off the last token
    model.register_forward_hook(take_logits)
    return model.train()


def take_logits(module: nn.Module, inputs: Any, output: Any) -> Tensor:
    """A forward hook rather than a wrapper: parameter names stay those of transformers' own files."""
    return output.logits


def from_type(config: Transformers, description: DataDescription) -> Any:
    """A fresh configuration of this type, with sizes from the data where model.args leave them unset."""
    name = config.architecture
    known = transformers.CONFIG_MAPPING
    if name not in known:
        if "/" in name or name.startswith((".", "~")):
            why = "no such folder; nothing is downloaded"
            fix = "put config.json and model.safetensors there, or try model.architecture=gpt2"
        else:
            why = "neither a folder nor a type that transformers knows"
            fix = did_you_mean([f"model.architecture={n}" for n in nearest(name, known)]) or "try gpt2"
        raise ConfigError(Problem(f"model.architecture={name}", why, fix))
    plain = known[name]()
    check_arguments(config, plain)
    sizes: dict[str, Any] = {}
    if description.vocabulary:
        sizes["vocab_size"] = description.vocabulary
    if hasattr(plain, "max_position_embeddings"):
        # Roberta and its kin count positions from the padding token's id on.
        offset = (plain.pad_token_id or 0) + 1 if hasattr(plain, "pad_token_id") and "roberta" in name else 0
        sizes["max_position_embeddings"] = description.input_shape[0] + offset
    aliases = {value: key for key, value in plain.attribute_map.items()}
    given = {key for argument in config.args for key in (argument, aliases.get(argument, argument))}
    sizes = {key: value for key, value in sizes.items() if key not in given}
    for token in SPECIAL_TOKENS:
        value = getattr(plain, token, None)
        if isinstance(value, int) and value >= (description.vocabulary or value + 1):
            sizes[token] = None
    try:
        return transformers.AutoConfig.for_model(name, **{**sizes, **head(config, description), **config.args})
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise ConfigError(Problem(f"model.args={config.args}", brief(error), "try model.args={}")) from error


def from_folder(config: Transformers, folder: Path, description: DataDescription) -> Any:
    """The folder's own configuration with model.args on top; its vocabulary and length must hold the data's."""
    where = f"model.architecture={config.architecture}"
    if not (folder / "config.json").is_file():
        raise ConfigError(Problem(where, "has no config.json", "name a folder written by save_pretrained"))
    try:
        settings = transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **head(config, description)
        )
    except (ValueError, OSError, TypeError, StrictDataclassError) as error:
        raise ConfigError(Problem(where, brief(error), "try a type, such as gpt2")) from error
    check_arguments(config, settings)
    try:
        for key, value in config.args.items():
            setattr(settings, key, value)
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise ConfigError(Problem(f"model.args={config.args}", brief(error), "try model.args={}")) from error
    if (description.vocabulary or 0) > settings.vocab_size:
        why = f"knows {settings.vocab_size} tokens; the data has {description.vocabulary}"
        raise ConfigError(Problem(where, why, "try the model's own tokenizer: data.tokenizer=FOLDER/tokenizer.json"))
    longest = getattr(settings, "max_position_embeddings", None)
    if longest and description.input_shape[0] > longest:
        why = f"reads {longest} tokens at most; the data has {description.input_shape[0]}"
        raise ConfigError(Problem(where, why, f"shorten the data's window to {longest}"))
    return settings


def head(config: Transformers, description: DataDescription) -> dict[str, Any]:
    """The settings that give a classifier its outputs."""
    if description.target == "next_token" or "num_labels" in config.args:
        return {}
    kind = "regression" if description.target == "number" else "single_label_classification"
    return {"num_labels": outputs(config, description), "problem_type": kind}


def check_arguments(config: Transformers, settings: Any) -> None:
    """Raise ConfigError for names that this type's configuration lacks: transformers itself takes any."""
    known = {*settings.to_dict(), *settings.attribute_map, "num_labels"}
    for key in config.args:
        if key not in known:
            fix = did_you_mean([f"model.args.{n}" for n in nearest(key, known)])
            why = f"{settings.model_type} has no such setting"
            raise ConfigError(Problem(f"model.args.{key}", why, fix or f"it has {', '.join(sorted(known)[:8])}, ..."))


def has_weights(config: Transformers, folder: Path) -> bool:
    """Whether the folder holds safetensors. Raises SecurityError where its only weights are pickles."""
    if any(folder.glob("*.safetensors")):
        return True
    if pickles := [path for path in folder.iterdir() if path.suffix in PICKLES]:
        why = f"{pickles[0].name} is a pickle, which can run code when it is read"
        fix = "convert it where you trust it: model.save_pretrained(folder, safe_serialization=True)"
        raise SecurityError(Problem(f"model.architecture={config.architecture}", why, fix))
    return False


def brief(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
