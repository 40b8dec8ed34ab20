"""Model configurations as TensorFlow Serving has them: read from text, checked with its texts, turned into ours.

Nothing here loads or watches anything. The rules and texts are those of TensorFlow Serving's server_core.cc.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from google.protobuf import text_format

from protos.serving.config_pb2 import (
    TENSORFLOW,
    FileSystemStoragePathSourceConfig,
    ModelConfig,
    ModelServerConfig,
)
from server.errors import InvalidRequest
from server.lifecycle.plan import DEFAULT_POLICY, ModelPolicy

PLATFORM = "tensorflow"
"""The only platform. What is served was a TensorFlow model, so configurations keep the name."""

_FILE_SCHEME = "file://"


@dataclass(frozen=True, slots=True)
class ConfiguredModels:
    """Where each model lies and how its versions are chosen, by name."""

    folders: Mapping[str, Path]
    policies: Mapping[str, ModelPolicy]


def parse(text: str, origin: str) -> ModelServerConfig:
    """Read a model_config_file.

    Args:
        text: a text-format ModelServerConfig.
        origin: the file's name, for the error.

    Raises:
        InvalidRequest: with the line and column of what does not parse.
    """
    try:
        return text_format.Parse(text, ModelServerConfig())
    except text_format.ParseError as error:
        where = "line " if error.GetLine() else ""
        raise InvalidRequest(f"{origin}: {where}{error}") from error
    except (ValueError, RecursionError) as error:  # a number that its field cannot hold; messages nested without end
        raise InvalidRequest(f"{origin}: {error}") from error


def single_model(name: str, base_path: str) -> ModelServerConfig:
    """What --model_name and --model_base_path stand for."""
    config = ModelServerConfig()
    config.model_config_list.config.add(name=name, base_path=base_path, model_platform=PLATFORM)
    return config


def configured_models(config: ModelServerConfig, known: Collection[str] = ()) -> ConfiguredModels:
    """Check a configuration and say what it means.

    Args:
        config: with a model_config_list, or empty for no models.
        known: models that are configured so far; none of them can change its platform.

    Raises:
        InvalidRequest: what TensorFlow Serving refuses, with its texts; models without a name; places that are not
            folders.
    """
    models = config.model_config_list.config
    _check_names(models)
    for model in models:
        _check_path(model)
    for model in models:
        if model.name in known:
            _check_same_platform(model)
    for model in models:
        platform = _platform(model)
        if platform != PLATFORM:
            raise InvalidRequest(f"Model {model.name} requests unsupported platform {platform}")
    return ConfiguredModels(
        {model.name: Path(model.base_path.removeprefix(_FILE_SCHEME)) for model in models},
        {model.name: _policy(model) for model in models},
    )


def ignored(config: ModelServerConfig) -> Iterator[str]:
    """A line for each thing that the configuration asks for and that is not done."""
    if config.HasField("custom_model_config"):
        yield "custom_model_config is ignored: only model_config_list says what is served"
    for model in config.model_config_list.config:
        if model.HasField("logging_config"):
            yield f"model {model.name}: logging_config is ignored: requests are not recorded"


def _check_names(models: Collection[ModelConfig]) -> None:
    seen = set()
    for model in models:
        if not model.name:
            raise InvalidRequest("A model in the config list has no name")
        if model.name in seen:
            raise InvalidRequest(f"Illegal to list model {model.name} multiple times in config list")
        seen.add(model.name)


def _check_path(model: ModelConfig) -> None:
    path = model.base_path
    if path.removeprefix(_FILE_SCHEME).startswith("/"):
        return
    if "://" in path:
        raise InvalidRequest(
            f"Model {model.name} has the base_path {path}: only folders can be served, so mount it or copy it into one"
        )
    raise InvalidRequest(f"Expected model {model.name} to have an absolute path or URI; got base_path()={path}")


def _check_same_platform(model: ModelConfig) -> None:
    platform = _platform(model)
    if platform != PLATFORM:
        raise InvalidRequest(
            f"Illegal to change a model's platform. For model {model.name} platform was {PLATFORM} and new platform "
            f"requested is {platform}"
        )


def _platform(model: ModelConfig) -> str:
    """The platform, also from the field that came before it."""
    if not model.model_type:
        if not model.model_platform:
            raise InvalidRequest(
                "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
                "ModelServerConfig::model_platform."
            )
        return model.model_platform
    if model.model_platform:
        raise InvalidRequest(
            "Illegal setting both ModelServerConfig::model_type (deprecated) and ModelServerConfig::model_platform."
        )
    if model.model_type != TENSORFLOW:
        raise InvalidRequest(f"ModelServerConfig::model_type choice {model.model_type} not supported.")
    return PLATFORM


def _policy(model: ModelConfig) -> ModelPolicy:
    return replace(_versions(model.model_version_policy), labels=dict(model.version_labels))


def _versions(policy: FileSystemStoragePathSourceConfig.ServableVersionPolicy) -> ModelPolicy:
    match policy.WhichOneof("policy_choice"):
        case "latest":
            return ModelPolicy.latest(policy.latest.num_versions)
        case "all":
            return ModelPolicy.all()
        case "specific":
            return ModelPolicy.specific(policy.specific.versions)
    return DEFAULT_POLICY
