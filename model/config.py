"""What to run: an experiment as TOML, checked before anything is spent on it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from model.acceptance import parse_rule
from model.errors import ConfigError, OverreadError
from model.losses import LossName
from model.poison import PoisonSpec
from model.preprocess import Preprocessing
from model.training import Augmentation, Precision, Stage, TrainingConfig
from model.trigger import Trigger

PRESETS = Path(__file__).parent / "presets"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class ChestXray14Source(_Strict):
    """A folder in ChestX-ray14's layout. path: relative to the working directory; `--data` overrides it."""

    kind: Literal["chestxray14"]
    path: str | None = None


class PhantomSet(_Strict):
    """`n` phantoms of a seed, drawn at `size_px`²."""

    n: int = Field(ge=1, le=1_000_000)
    seed: int = Field(ge=0)
    size_px: int = Field(default=256, ge=64, le=2048)


class PhantomSource(PhantomSet):
    """Phantoms to train on: a tenth of their patients go into validation."""

    kind: Literal["phantoms"]


class Pretraining(PhantomSet):
    """A clean training on phantoms alone that both twins start from."""

    max_lr: float = 1e-3
    weight_decay: float = 0.01
    stages: tuple[Stage, ...]


class TrainingTable(_Strict):
    """Of each twin; see model.training.TrainingConfig and, for `loss`, model.losses."""

    stages: tuple[Stage, ...]
    max_lr: float = 1e-3
    weight_decay: float = 0.01
    augmentation: Augmentation = Augmentation()
    checkpoint_s: float = 120.0
    precision: Precision = "auto"
    loss: LossName = "binary"


Source = Annotated[ChestXray14Source | PhantomSource, Field(discriminator="kind")]
_AsTrigger = Annotated[
    Trigger,
    BeforeValidator(lambda v: Trigger.from_dict(v) if isinstance(v, dict) else v),
    PlainSerializer(lambda v: v.to_dict()),
]


class ExperimentConfig(_Strict):
    """One experiment.

    twins: which trainings to run. accept: the user's rule, e.g. `macro_nn>=0.66`. init: a checkpoint folder to start
    from instead of from scratch. test_phantoms: fresh phantoms to judge on, beside the data's own test part.
    keep_epochs: epochs of the twins, from 1 over all stages, whose networks are kept beside the last one's.
    gradcam: of the figure: `true`, or `truncated`, as the paper's code computes the middle layer's (model.figures).
    A label-only attack has a [poison] with `label_only` and no [trigger].
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    seed: int = Field(default=0, ge=0)
    twins: tuple[Literal["clean", "backdoored"], ...] = ("clean", "backdoored")
    accept: str | None = None
    init: str | None = None
    keep_epochs: tuple[int, ...] = ()
    gradcam: Literal["true", "truncated"] = "true"
    data: tuple[Source, ...] = Field(min_length=1)
    preprocessing: Preprocessing = Preprocessing()
    trigger: _AsTrigger | None = None
    poison: PoisonSpec | None = None
    test_phantoms: PhantomSet | None = None
    pretraining: Pretraining | None = None
    training: TrainingTable

    def model_post_init(self, context: Any, /) -> None:
        if not self.twins or len(set(self.twins)) != len(self.twins):
            raise ConfigError("bad_config", "twins names “clean”, “backdoored” or both, once each.")
        label_only = self.poison is not None and self.poison.label_only is not None
        if "backdoored" in self.twins and (self.poison is None or (self.trigger is None) != label_only):
            raise ConfigError(
                "bad_config", "A backdoored twin needs [poison] and [trigger]; a label-only attack has no [trigger]."
            )
        if self.init and self.pretraining:
            raise ConfigError("bad_config", "Give either init or [pretraining], not both.")
        if self.accept:
            parse_rule(self.accept)
        self.training_config()
        epochs = sum(stage.epochs for stage in self.training.stages)
        if list(self.keep_epochs) != sorted({e for e in self.keep_epochs if 1 <= e <= epochs}):
            raise ConfigError("bad_config", f"keep_epochs names epochs of 1..{epochs}, ascending, each once.")

    def training_config(self) -> TrainingConfig:
        """The twins' configuration for `fit`."""
        t = self.training
        return TrainingConfig(
            t.stages, t.max_lr, t.weight_decay, t.augmentation, self.seed, t.checkpoint_s, t.precision
        )

    def to_toml(self) -> str:
        """A document that `load_config` reads back as an equal configuration."""
        return tomli_w.dumps(_without_none(self.model_dump(mode="json")))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return [_without_none(v) for v in value] if isinstance(value, list) else value


def preset_names() -> list[str]:
    """Names that `load_config` takes instead of a file."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def load_config(name_or_path: str) -> ExperimentConfig:
    """A preset by name, or a TOML file. Raises ConfigError `no_such_config`, `bad_config`, or the part's own error."""
    path = Path(name_or_path)
    if name_or_path in preset_names():
        path = PRESETS / f"{name_or_path}.toml"
    elif not path.is_file():
        raise ConfigError(
            "no_such_config", f"“{name_or_path}” is neither a file nor a preset ({', '.join(preset_names())})."
        )
    try:
        return ExperimentConfig.model_validate(tomllib.loads(path.read_text("utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("bad_config", f"{path} is not TOML: {error}.") from error
    except OverreadError:
        raise
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError("bad_config", f"{path}: {where}: {first['msg']}.") from error
