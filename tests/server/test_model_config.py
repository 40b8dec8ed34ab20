"""Tests of `server.model_config`."""

from pathlib import Path

import pytest

from protos.serving.config_pb2 import ModelServerConfig
from server.errors import InvalidRequest
from server.lifecycle.plan import DEFAULT_POLICY, ModelPolicy
from server.model_config import configured_models, ignored, parse, single_model

# What such files look like in the field: colons, commas and both quotes, as the text format allows.
WILD = """
# comment
model_config_list: {
  config: {
    name: "first", base_path: '/models/one/place', model_platform: "tensorflow",
  }
  config {
    name: "second"
    base_path: "/models/another"
    model_platform: 'tensorflow'
    model_version_policy: { specific { versions: 1 versions: 42 } }
    version_labels { key: 'stable' value: 1 }
    version_labels { key: 'canary', value: 42 }
    logging_config { sampling_config { sampling_rate: 0.1 } }
  }
  config { name: "third" base_path: "file:///models/third" model_type: TENSORFLOW model_version_policy { all {} } }
  config { name: "fourth" base_path: "/4" model_platform: "tensorflow" model_version_policy { latest {} } }
  config { name: "fifth" base_path: "/5" model_platform: "tensorflow"
           model_version_policy { latest { num_versions: 3 } } }
}
"""


def listing(*models: str) -> ModelServerConfig:
    """A configuration of models, each given by its fields."""
    return parse("model_config_list {" + "".join(f"config {{ {fields} }}" for fields in models) + "}", "test")


CHANGE = "Illegal to change a model's platform. "
A = "name: 'a' base_path: '/a' model_platform: 'tensorflow'"


def test_a_file_of_tensorflow_serving_is_understood_as_it_is() -> None:
    """Places, policies and labels come out; no field is lost on the way."""
    models = configured_models(parse(WILD, "models.config"))
    assert models.folders == {
        "first": Path("/models/one/place"),
        "second": Path("/models/another"),
        "third": Path("/models/third"),
        "fourth": Path("/4"),
        "fifth": Path("/5"),
    }
    assert models.policies == {
        "first": DEFAULT_POLICY,
        "second": ModelPolicy(count=None, only=frozenset({1, 42}), labels={"stable": 1, "canary": 42}),
        "third": ModelPolicy.all(),
        "fourth": ModelPolicy.latest(),
        "fifth": ModelPolicy.latest(3),
    }


def test_what_is_not_done_is_said() -> None:
    """Nothing in a configuration is dropped in silence."""
    assert list(ignored(parse(WILD, ""))) == ["model second: logging_config is ignored: requests are not recorded"]
    custom = ModelServerConfig()
    custom.custom_model_config.SetInParent()
    assert list(ignored(custom)) == ["custom_model_config is ignored: only model_config_list says what is served"]
    assert not configured_models(custom).folders


def test_one_model_from_the_command_line() -> None:
    """The short form is a configuration like any other."""
    models = configured_models(single_model("m", "/models/m"))
    assert models.folders == {"m": Path("/models/m")}
    assert models.policies == {"m": DEFAULT_POLICY}


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("model_config_list {\n config { nam: 'a' } }", "2:11"),
        ("model_config_list {\n config {", "2:9"),
        ("model_config_list: 5", "1:20"),
        ("just words", "1:1"),
    ],
)
def test_a_file_that_does_not_parse_names_its_line(text: str, where: str) -> None:
    """The operator finds the place without counting brackets."""
    with pytest.raises(InvalidRequest, match=rf"^models\.config: line {where} : "):
        parse(text, "models.config")


@pytest.mark.parametrize(
    ("models", "text"),
    [
        ([A, A], "Illegal to list model a multiple times in config list"),
        (
            ["name: 'm' base_path: 'p' model_platform: 'tensorflow'"],
            "Expected model m to have an absolute path or URI; got base_path()=p",
        ),
        (
            ["name: 'm' model_platform: 'tensorflow'"],
            "Expected model m to have an absolute path or URI; got base_path()=",
        ),
        (
            ["name: 'm' base_path: 'gs://bucket/m' model_platform: 'tensorflow'"],
            "Model m has the base_path gs://bucket/m: only folders can be served, so mount it or copy it into one",
        ),
        (["name: 'm' base_path: '/m' model_platform: 'caffe'"], "Model m requests unsupported platform caffe"),
        (
            ["name: 'm' base_path: '/m'"],
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform.",
        ),
        (
            [A + " model_type: TENSORFLOW"],
            "Illegal setting both ModelServerConfig::model_type (deprecated) and ModelServerConfig::model_platform.",
        ),
        (
            ["name: 'm' base_path: '/m' model_type: OTHER"],
            "ModelServerConfig::model_type choice 2 not supported.",
        ),
        (
            ["name: 'known' base_path: '/m' model_platform: 'caffe'"],
            f"{CHANGE}For model known platform was tensorflow and new platform requested is caffe",
        ),
        (["base_path: '/m' model_platform: 'tensorflow'"], "A model in the config list has no name"),
    ],
)
def test_what_tensorflow_serving_refuses_is_refused_with_its_text(models: list[str], text: str) -> None:
    """Each text is the one that an operator may search for."""
    with pytest.raises(InvalidRequest) as caught:
        configured_models(listing(*models), known={"known"})
    assert caught.value.message == text
