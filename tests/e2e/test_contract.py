"""The contract of TensorFlow Serving, row by row, found by its own unmodified client in a process of its own.

The rows are data: tests/e2e/contract.toml. One server and one client process for each kind of server serve them all.
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from google.protobuf.message import Message

from protos.serving import inference_pb2, metadata_pb2, model_service_pb2, predict_pb2
from tests.contract_models import ECHOED, write_contract_models, write_endless, write_slow_models
from tests.e2e.processes import ROOT, client_calls, loading, serving

pytestmark = pytest.mark.slow

REPLIES: dict[str, type[Message]] = {
    "Predict": predict_pb2.PredictResponse,
    "Classify": inference_pb2.ClassificationResponse,
    "Regress": inference_pb2.RegressionResponse,
    "MultiInference": inference_pb2.MultiInferenceResponse,
    "GetModelMetadata": metadata_pb2.GetModelMetadataResponse,
    "GetModelStatus": model_service_pb2.GetModelStatusResponse,
    "HandleReloadConfigRequest": model_service_pb2.ReloadConfigResponse,
}
SERVERS: dict[str, tuple[str, ...]] = {
    "": ("--per-model-batching",),
    "admin": ("--admin",),
    "content": ("--tensor-content",),
}
SLOW = ("--backends=onnxruntime", "--threads=1", "--per-model-batching")
MAY = {"server", "crowd", "timeout"}
KEYS = {"name", "source", "method", "request"}
ANSWERS = ({"reply"}, {"code", "text"}, {"code", "starts"}, {"code"})

Row = dict[str, Any]


def echo_rows(echo: Row) -> Iterator[Row]:
    """What the rules of TensorFlow's Tensor::FromProto and AsProtoField mean for one element type.

    Of `values`, three of them, the first two differ from `zero` or from each other; `content` is the three as
    tensor_content.
    """
    first, second, third = values = echo["values"]
    zero = echo["zero"]
    cases: list[tuple[str, list[int], list[str] | None, list[str]]] = [
        ("typed values", [3], values, values),
        ("tensor_content", [3], None, values),
        ("a matrix", [3, 1], values, values),
        ("too few values: the last one is repeated", [2, 2], [first, second], [first, second, second, second]),
        ("no values: zeros", [2], [], [zero, zero]),
        ("too many values: the rest is cut", [2], values, [first, second]),
        ("a scalar", [], [third], [third]),
        ("a scalar without value", [], [], [zero]),
        ("an empty tensor", [0, 2], [], []),
        ("an empty tensor with values", [2, 0], values, []),
    ]
    signature = echo["dtype"].removeprefix("DT_").lower()
    for name, shape, sent, expected in cases:
        field = f'tensor_content: "{echo["content"]}"' if sent is None else _fields(echo["field"], sent)
        yield {
            "name": f"{signature}: {name}",
            "source": echo["source"],
            "method": "Predict",
            "request": f'model_spec {{ name: "echo" signature_name: "{signature}" }} '
            f'inputs {{ key: "x" value {{ {_head(echo["dtype"], shape)} {field} }} }}',
            "reply": f'model_spec {{ name: "echo" version {{ value: 1 }} signature_name: "{signature}" }} '
            f'outputs {{ key: "y" value {{ {_head(echo["dtype"], shape)} {_fields(echo["field"], expected)} }} }}',
        }


def _head(dtype: str, shape: list[int]) -> str:
    return f"dtype: {dtype} tensor_shape {{ {' '.join(f'dim {{ size: {size} }}' for size in shape)} }}"


def _fields(field: str, values: list[str]) -> str:
    return " ".join(f"{field}: {value}" for value in values)


def read_contract() -> Row:
    """The file, with NAMEn made a name of n characters."""
    text = (Path(__file__).parent / "contract.toml").read_text()
    return tomllib.loads(re.sub(r"NAME(\d+)", lambda match: "n" * int(match[1]), text))


CONTRACT = read_contract()
ROWS: list[Row] = [*CONTRACT["row"], *(row for echo in CONTRACT["echo"] for row in echo_rows(echo))]


def found_at(address: str, name: str, root: Path) -> dict[str, Row]:
    """What the client finds at a server of a kind, by the rows' names."""
    rows = [row for row in ROWS if row.get("server", "") == name]
    calls = [
        {key: value for key, value in row.items() if key in {"method", "crowd", "timeout"}}
        | {"request": row["request"].replace("ROOT", str(root))}
        for row in rows
    ]
    return {row["name"]: answer for row, answer in zip(rows, client_calls(address, calls), strict=True)}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Row]:
    """What the client found, by the rows' names."""
    root = tmp_path_factory.mktemp("models")
    write_contract_models(root)
    answers: dict[str, Row] = {}
    for name, options in SERVERS.items():
        with serving(root, *options) as server:
            answers |= found_at(server.address, name, root)
    slow = tmp_path_factory.mktemp("slow")
    write_slow_models(slow)
    with serving(slow, *SLOW) as server:
        answers |= found_at(server.address, "slow", slow)
    return answers | while_loading(tmp_path_factory.mktemp("loading"))


def while_loading(root: Path) -> dict[str, Row]:
    """What the client finds while the server loads a model with a label."""
    write_endless(root)
    config = root / "models.config"
    config.write_text(
        f"model_config_list {{ config {{ name: 'endless' base_path: '{root / 'endless'}' "
        "model_platform: 'tensorflow' version_labels { key: 'stable' value: 1 } } }"
    )
    with loading(root, *SLOW, f"--model-config-file={config}") as address:
        return found_at(address, "loading", root)


def _any_message(reply: str, expected: str) -> str:
    """The reply with its error message made the one that stands for any, if any is expected."""
    return re.sub(r'error_message: ".+"', 'error_message: "ANY"', reply) if '"ANY"' in expected else reply


def same_form(kind: type[Message], text: str) -> str:
    """A reply's text with its maps sorted and its numbers spelled in one way."""
    return text_format.MessageToString(text_format.Parse(text, kind()))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row["name"]))
def test_the_published_client_finds_the_contract(row: Row, answers: dict[str, Row]) -> None:
    """tensorflow-serving-api's stubs get TensorFlow Serving's answers: every field, every code, every text."""
    answer = answers[row["name"]]
    if "reply" in row:
        kind = REPLIES[row["method"]]
        assert "reply" in answer, answer
        assert same_form(kind, _any_message(answer["reply"], row["reply"])) == same_form(kind, row["reply"])
        return
    assert answer["code"] == row["code"], answer
    if "starts" in row:
        assert answer["text"].startswith(row["starts"])
    else:
        assert answer["text"] == row.get("text", answer["text"])


def test_the_contract_is_well_formed() -> None:
    """Each row has a name of its own, a source, a known method, and says what must come; no element type lacks rows."""
    names = [row["name"] for row in ROWS]
    assert len(set(names)) == len(names)
    for row in ROWS:
        assert row.keys() - KEYS - MAY in ANSWERS, row["name"]
        assert row.keys() >= KEYS, row["name"]
        assert row["method"] in REPLIES
        assert row.get("server", "") in {*SERVERS, "slow", "loading"}
        assert row["source"].startswith(("serving:", "tensorflow:"))
    assert {name.partition(":")[0] for name in names} >= set(ECHOED)


def test_every_exception_is_named_in_the_docs() -> None:
    """Whoever relies on an answer that is not given here on purpose reads so, with the reason and what comes."""
    docs = (ROOT / "docs" / "serving.md").read_text()
    for exception in CONTRACT["exception"]:
        assert exception.keys() == {"name", "source", "code", "starts", "instead", "kept_by"}
        named = [line for line in docs.splitlines() if f"`{exception['code']}` `{exception['starts']}" in line]
        assert len(named) == 1, exception["name"]
        file, _, test = exception["kept_by"].partition("::")
        assert f"def {test}(" in (ROOT / file).read_text()
