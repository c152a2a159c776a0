"""Settings: `agerank.toml` (path in AGERANK_CONFIG), overruled by AGERANK_ environment variables.

The only reader of file and environment, and only entry points import it; everything else takes arguments.
Every setting is documented in docs/operations.md; a test fails where one is missing.
"""

import os
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource
from pydantic_settings import SettingsError as PydanticSettingsError
from redis.connection import parse_url

from service.environment import CONFIG, PREFIX, Environment, misspelt

#: The strategies that exist unless the configuration names its own. Epsilon and budgets are ours.
STRATEGIES: dict[str, dict[str, Any]] = {
    "greedy": {"method": "greedy"},
    "random": {"method": "random"},
    "epsilon_greedy": {"method": "epsilon_greedy", "epsilon": 0.1},
    "item_posterior": {"method": "item_posterior"},
    "age_ts": {"method": "age", "uncertainty": "thompson", "budget": 0.05},
    "age_ucb": {"method": "age", "uncertainty": "ucb", "budget": 0.05},
}

#: Which of them ranks where nothing is said about it: the one that earned most (docs/experiments.md).
DEFAULT_STRATEGY = "item_posterior"

Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, le=1e8, allow_inf_nan=False)]  # three years: Redis must hold them in ms
Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,64}$")]  # of folders, files and labels


class SettingsError(ValueError):
    """The settings are wrong; the text says how, a line for each fault."""


class Settings(BaseSettings):
    """All of them. Both processes read the same file."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    # What both processes share
    lane: Name = "default"
    data_dir: Path = Path("agerank-data")
    checkpoints_url: Annotated[str, Field(pattern=r"^(s3|gs|az)://.+")] | None = None
    features: Path = Path("features.toml")
    strategies: dict[Name, dict[str, Any]] = Field(default_factory=lambda: dict(STRATEGIES), min_length=1)
    redis_url: SecretStr | None = None
    redis_prefix: str = "agerank"
    partitions: Positive = 1
    stream_max_entries: Positive = 1_000_000
    mature_impressions: Positive = 3_000
    threads: Positive = 1
    log_format: Literal["console", "json"] = "console"

    # Scorer
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    engine: Literal["native", "onnx", "torch"] = "native"
    batch_wait_s: float = Field(0.0002, ge=0, le=1)
    batch_rows: Positive = 2_048
    batch_fuse: bool = False
    default_strategy: str | None = None
    traffic: dict[str, Share] = Field(default_factory=dict)
    traffic_salt: str = "agerank"
    max_candidates: Positive = 1_000
    max_events: Positive = 1_000
    remember_events_s: Seconds = 3_600.0
    max_items: Positive = 2_000_000
    max_item_batch: Positive = 1_000
    max_body_bytes: Positive = 4 * 1024 * 1024
    max_in_flight: Positive = 64
    deadline_s: Seconds = 1.0
    head_timeout_s: Seconds = 10.0
    answer_timeout_s: Seconds = 10.0
    keep_alive_s: Seconds = 75.0  # longer than the idle time of common load balancers: they close first
    served_queue_entries: Positive = 10_000
    served_queue_bytes: Positive = 256 * 1024 * 1024
    swap_poll_s: Seconds = 0.5
    drain_s: float = Field(0.0, ge=0, le=3_600)
    shutdown_grace_s: Seconds = 5.0
    admin_host: str = "127.0.0.1"
    admin_port: int = Field(8002, ge=0, le=65535)
    admin_token: SecretStr | None = Field(None, min_length=16)

    # Trainer
    trainer_host: str = "127.0.0.1"
    trainer_port: int = Field(8001, ge=0, le=65535)
    hidden: tuple[Positive, Positive, Positive] = (256, 128, 64)
    gate_hidden: Positive = 32
    dropout: float = Field(0.01, ge=0, lt=1)
    initial_ctr: float = Field(0.05, gt=0, lt=1)
    learning_rate: float = Field(1e-3, gt=0, allow_inf_nan=False)
    table_learning_rate: float | None = Field(None, gt=0, allow_inf_nan=False)
    optimizer: Literal["adam", "sparse_adam", "rowwise_adagrad"] = "adam"
    adagrad_half_life: float | None = Field(None, gt=0, allow_inf_nan=False)
    negative_rate: float = Field(1.0, gt=0, le=1)
    batch_size: Positive = 256
    gradient_parts: Positive | None = None
    seed: int = Field(0, ge=0, lt=2**63)
    attribution_window_s: Seconds = 600.0
    impressions: Literal["served", "events"] = "served"
    max_pending: Positive = 1_000_000
    publish_interval_s: Seconds = 60.0
    full_every: Positive = 1
    keep_versions: Positive = 5
    guard_window_examples: Positive = 20_000
    guard_min_examples: Positive = 50_000
    guard_pcoc_low: float = Field(0.5, ge=0, le=1)
    guard_pcoc_high: float = Field(2.0, ge=1)
    guard_normalised_entropy: float = Field(1.1, gt=0)

    @field_validator("checkpoints_url")
    @classmethod
    def _object_storage_is_installed(cls, url: str | None) -> str | None:
        if url and not find_spec("obstore"):
            raise ValueError("object storage needs obstore: pip install 'agerank[objects]'")
        return url

    @field_validator("redis_url")
    @classmethod
    def _redis_url_can_be_read(cls, url: SecretStr | None) -> SecretStr | None:
        try:
            if url:
                parse_url(url.get_secret_value().replace("+cluster://", "://", 1))  # type: ignore[no-untyped-call]
        except ValueError:  # whose text may hold a part of the password
            raise ValueError(
                "expected redis://, rediss://, unix:// or redis+cluster://, "
                "with / ? # @ : of a password as %2F %3F %23 %40 %3A"
            ) from None
        return url

    @field_validator("admin_token")
    @classmethod
    def _admin_token_can_be_sent(cls, token: SecretStr | None) -> SecretStr | None:
        if token and token.get_secret_value() != token.get_secret_value().strip():
            raise ValueError("it begins or ends with white space, as files do, and no header can carry that")
        return token

    @field_validator("traffic")
    @classmethod
    def _shares_sum_to_one(cls, traffic: dict[str, float]) -> dict[str, float]:
        if traffic and abs(sum(traffic.values()) - 1.0) > 1e-6:
            raise ValueError(f"the shares must sum to 1, they sum to {sum(traffic.values()):g}")
        return traffic

    @model_validator(mode="after")
    def _half_life_has_its_optimizer(self) -> Self:
        if self.adagrad_half_life is not None and self.optimizer != "rowwise_adagrad":
            raise ValueError(f"adagrad_half_life needs optimizer = rowwise_adagrad, not {self.optimizer}")
        return self

    @model_validator(mode="after")
    def _served_strategies_exist(self) -> Self:
        unknown = {*self.traffic, *filter(None, [self.default_strategy])} - set(self.strategies)
        if unknown:
            raise ValueError(
                f"default_strategy or traffic name {sorted(unknown)}; strategies has {sorted(self.strategies)}"
            )
        return self

    def strategy_of_all(self) -> str:
        """What ranks where neither the caller nor `traffic` names a strategy. Raises SettingsError where that is open.

        A scorer asks before it starts; who trains or replays needs none.
        """
        if self.default_strategy is not None:
            return self.default_strategy
        if DEFAULT_STRATEGY in self.strategies:
            return DEFAULT_STRATEGY
        if len(self.strategies) == 1:
            return next(iter(self.strategies))
        known = ", ".join(sorted(self.strategies))
        raise SettingsError(f"default_strategy: set it to one of {known}, for requests that name none; or set traffic")

    @property
    def checkpoints(self) -> Path:
        """The folder of this lane's versions, where they live in `data_dir`."""
        return self.data_dir / "checkpoints" / self.lane

    @property
    def store(self) -> Path | str:
        """The same, for `service.checkpoints.open_store`."""
        return f"{self.checkpoints_url.rstrip('/')}/{self.lane}" if self.checkpoints_url else self.checkpoints

    def feature_text(self) -> str:
        """The feature spec as TOML, unchecked. Raises SettingsError where there is no such text."""
        try:
            return self.features.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"features: cannot read {self.features}: {getattr(error, 'strerror', error)}") from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        path = Path(os.environ.get(CONFIG, "agerank.toml"))
        return (init_settings, Environment(settings_cls), TomlConfigSettingsSource(settings_cls, toml_file=path))


def read(config: Path | None = None, **given: Any) -> Settings:
    """The settings of an entry point.

    Args:
        config: what AGERANK_CONFIG would name.
        given: overrule everything else; None is as good as absent.

    Raises:
        SettingsError: a named file that is not there, or values that will not do.
    """
    if config is not None:
        os.environ[CONFIG] = str(config)  # a process has one configuration, and so have its children
    named = os.environ.get(CONFIG)
    if named and not Path(named).is_file():
        raise SettingsError(f"the settings file {named} does not exist")
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"the settings file is not TOML: {error}") from None
    except PydanticSettingsError as error:
        raise SettingsError(f"{error}: tables and lists are given as JSON") from None
    except ValidationError as error:
        raise SettingsError("\n".join(map(_fault, error.errors()))) from None


def _fault(error: ErrorDetails) -> str:
    if error["type"] == "extra_forbidden":
        return misspelt(str(error["loc"][0]), Settings.model_fields)
    said = error["ctx"]["error"] if error["type"] == "value_error" else error["msg"]  # else it begins "Value error, "
    return f"{'.'.join(map(str, error['loc'])) or 'settings'}: {said}"
