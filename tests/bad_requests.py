"""Bad requests by the thousand, for tests that no request can harm the server: seeded, so that a finding comes again.

Three kinds: random bytes; valid requests with something broken; and messages that parse and make no sense. They are for
the models of tests/contract_models.py. A few may happen to be answerable. Nothing here sends anything.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from google.protobuf.message import Message

from protos.serving import inference_pb2, metadata_pb2, model_pb2, model_service_pb2, predict_pb2
from protos.tensorflow import example_pb2, tensor_pb2
from server.wire.encoding import encode_varint, length_delimited, tensor_to_proto
from tests.contract_models import ECHOED
from tests.mutations import Rng, flip, mutated

PREDICTION = "/tensorflow.serving.PredictionService/"
STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
HEALTH = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
STREAMS = (WATCH, REFLECTION)
"""Methods that answer with a stream; Reflection also takes one."""
MODELS = ("affine", "defaults", "echo", "forest")


@dataclass(frozen=True, slots=True)
class Request:
    """A method's path and the bytes to send there."""

    path: str
    data: bytes


def bad_requests(seed: int, count: int) -> Iterator[Request]:
    """Make requests, the same ones for the same seed."""
    rng = random.Random(seed)  # noqa: S311 - chosen, not secret
    good = good_requests()
    for _ in range(count):
        choice = rng.random()
        if choice < 0.02:
            yield _odd_stream(rng)
        elif choice < 0.1:
            yield Request(rng.choice(good).path, rng.randbytes(int(10 ** rng.uniform(0, 4)) - 1))
        elif choice < 0.55:
            yield _mutated(rng, good)
        else:
            yield rng.choice(NONSENSE)(rng)


def bad_configurations(seed: int, count: int, root: Path) -> Iterator[Request]:
    """Make requests to replace what is served, all of them bad but for a few by chance.

    Args:
        seed: The same requests come for the same seed.
        count: How many.
        root: Where the models of tests/contract_models.py are.
    """
    rng = random.Random(seed)  # noqa: S311 - chosen, not secret
    for _ in range(count):
        if rng.random() < 0.15:
            yield Request(RELOAD, rng.randbytes(int(10 ** rng.uniform(0, 4)) - 1))
            continue
        request = _odd_configuration(rng, root)
        data = request.SerializeToString()
        if rng.random() < 0.4:
            data = mutated(rng, data, good_configuration(root).data)
        yield Request(RELOAD, data)


def good_configuration(root: Path) -> Request:
    """Serve all the models, as at the start."""
    request = model_service_pb2.ReloadConfigRequest()
    for name in MODELS:
        request.config.model_config_list.config.add(
            name=name, base_path=str(root / name), model_platform="tensorflow"
        ).model_version_policy.specific.versions.append(1)
    return Request(RELOAD, request.SerializeToString())


def good_requests() -> list[Request]:
    """At least one request for each method, all of which must be answered."""
    row = np.array([[1, 2, 3, 4]], np.float32)
    predicts = [_predict("affine", "", {"x": row, "bias": row}), _predict("defaults", "", {"x": row})]
    predicts[0].output_filter.extend(["z", "y"])
    predicts[1].model_spec.version.value = 1
    for name in ECHOED:
        values = ["oak", "", "elm"] if name == "string" else [1, 0, 1]
        array = np.array(values, object) if name == "string" else np.array(values).astype(_NUMPY.get(name, name))
        predicts.append(_predict("echo", name, {"x": array}))
    classify = inference_pb2.ClassificationRequest(model_spec=_spec("forest"), input=_examples())
    regress = inference_pb2.RegressionRequest(model_spec=_spec("forest", "value"), input=_examples())
    tasks = [
        inference_pb2.InferenceTask(model_spec=_spec("forest"), method_name="tensorflow/serving/classify"),
        inference_pb2.InferenceTask(model_spec=_spec("forest", "value"), method_name="tensorflow/serving/regress"),
    ]
    multi = inference_pb2.MultiInferenceRequest(tasks=tasks, input=_examples())
    metadata = metadata_pb2.GetModelMetadataRequest(model_spec=_spec("echo"), metadata_field=["signature_def"])
    status = model_service_pb2.GetModelStatusRequest(model_spec=_spec("affine"))
    return [
        *(_request("Predict", predict) for predict in predicts),
        _request("Classify", classify),
        _request("Regress", regress),
        _request("MultiInference", multi),
        _request("GetModelMetadata", metadata),
        Request(STATUS, status.SerializeToString()),
        Request(HEALTH, b"\x0a\x24tensorflow.serving.PredictionService"),
    ]


_NUMPY = {"float": "f4", "double": "f8", "half": "f2", "bfloat16": "bfloat16"}


def _request(method: str, message: Message) -> Request:
    return Request(PREDICTION + method, message.SerializeToString())


def _spec(name: str, signature: str = "") -> model_pb2.ModelSpec:
    return model_pb2.ModelSpec(name=name, signature_name=signature)


def _predict(name: str, signature: str, inputs: dict[str, np.ndarray]) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest(model_spec=_spec(name, signature))
    for alias, array in inputs.items():
        request.inputs[alias].CopyFrom(tensor_to_proto(array))
    return request


def _examples() -> inference_pb2.Input:
    result = inference_pb2.Input()
    for age in (2.0, 0.5):
        features = result.example_list.examples.add().features.feature
        features["age"].float_list.value.append(age)
        features["size"].int64_list.value.extend([3, 4])
        features["kind"].bytes_list.value.append(b"oak")
    return result


# ---------------------------------------------------------------------------------------------- valid bytes, broken


def _mutated(rng: Rng, good: list[Request]) -> Request:
    chosen = rng.choice(good)
    data = mutated(rng, chosen.data, rng.choice(good).data)
    # Sometimes another method's bytes: they may parse as something.
    return Request(rng.choice(good).path if rng.random() < 0.1 else chosen.path, data)


# ----------------------------------------------------------------------------------------- parses, and makes no sense


def _name(rng: Rng) -> str:
    """A name: often one that exists, else one of the kind that breaks things."""
    huge = "n" * (100_000 if rng.random() < 0.05 else 2_000)
    odd = ("", " ", "\0", "a\nb", "ä" * 600, huge, "../../etc/passwd", "{}", "%s%n", '"', "𝄞", "None", "{x}")
    known = (*MODELS, *ECHOED, "x", "bias", "y", "z", "value", "scores", "serving_default", "age", "size", "kind")
    return rng.choice((rng.choice(known), rng.choice(known), rng.choice(odd), f"made-up-{rng.randrange(10**9)}"))


def _number(rng: Rng) -> int:
    return rng.choice((0, 1, 2, 3, -1, 2**31, 2**32, 2**62, 2**63 - 1, -(2**63), rng.getrandbits(63)))


def _odd_spec(rng: Rng, name: str) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=_name(rng) if rng.random() < 0.2 else name)
    if rng.random() < 0.6:
        spec.signature_name = _name(rng)
    choice = rng.random()
    if choice < 0.2:
        spec.version.value = _number(rng)
    elif choice < 0.3:
        spec.version_label = _name(rng)
    return spec


def _odd_tensor(rng: Rng) -> tensor_pb2.TensorProto:
    array = np.array(rng.choices((0, 1, 2, 127), k=rng.choice((0, 1, 4, 4, 9))))
    name = rng.choice(tuple(ECHOED))
    strings = name == "string"
    tensor = tensor_to_proto(
        array.astype(str).astype(object) if strings else array.astype(_NUMPY.get(name, name)),
        as_content=rng.random() < 0.3,
    )
    if rng.random() < 0.5:  # an enum that is open takes any number
        number = rng.choice((rng.randrange(35), rng.randrange(101, 135), -1, 2**31 - 1))
        tensor.MergeFromString(b"\x08" + encode_varint(number % 2**64))
    if rng.random() < 0.6:
        tensor.tensor_shape.Clear()
        for _ in range(rng.choice((0, 1, 2, 2, 3, 8, 64, 65, 254, 300))):
            size = rng.choice((0, 1, 1, 1, 2, 4, 4, 1000)) if rng.random() < 0.9 else _number(rng)
            tensor.tensor_shape.dim.add(size=size, name=_name(rng) if rng.random() < 0.05 else "")
        tensor.tensor_shape.unknown_rank = rng.random() < 0.1
    if rng.random() < 0.1:
        tensor.tensor_content = rng.randbytes(rng.randrange(40))
    if rng.random() < 0.1:
        tensor.string_val.append(rng.choice((b"\xff\xfe", b"", b"s" * rng.choice((10, 1_000, 100_000)))))
    if rng.random() < 0.05:
        tensor.resource_handle_val.add(name=_name(rng))
    if rng.random() < 0.1:
        tensor.half_val.extend([-1, 2**31 - 1])
    return tensor


def _odd_predict(rng: Rng) -> Request:
    model, aliases = rng.choice((("affine", ("x", "bias")), ("defaults", ("x",)), ("echo", ("x",)), ("echo", ("x",))))
    request = predict_pb2.PredictRequest(model_spec=_odd_spec(rng, model))
    if model == "echo" and rng.random() < 0.8:
        request.model_spec.signature_name = rng.choice(tuple(ECHOED))
    for alias in aliases:
        if rng.random() < 0.95:
            request.inputs[alias].CopyFrom(_odd_tensor(rng))
    if rng.random() < 0.15:
        request.inputs[_name(rng)].CopyFrom(_odd_tensor(rng))
    if rng.random() < 0.3:
        request.output_filter.extend(_name(rng) for _ in range(rng.choice((1, 2, 3, 300))))
    data = request.SerializeToString()
    if rng.random() < 0.2:  # a key of the map twice: the last one counts
        entry = length_delimited(1, b"x") + length_delimited(2, _odd_tensor(rng).SerializeToString())
        data += length_delimited(2, entry)
    return Request(PREDICTION + "Predict", data)


def _odd_batches(rng: Rng) -> Request:
    """Tensors that fit the signature one by one and not together, which only the runtime notices."""
    batches = rng.choices((0, 1, 2, 3, 7), k=2)
    arrays = {alias: np.ones((batch, 4), np.float32) for alias, batch in zip(("x", "bias"), batches, strict=True)}
    return _request("Predict", _predict("affine", "", arrays))


def _odd_claim(rng: Rng) -> Request:
    """A few bytes that claim a tensor of anything up to a million million elements."""
    model, aliases = rng.choice((("affine", ("x", "bias")), ("echo", ("x",))))
    name = "float" if model == "affine" else rng.choice(tuple(ECHOED))
    size = int(2 ** rng.choice((rng.uniform(0, 16), rng.uniform(27, 62))))  # what lies between is large, not bad
    shape = [size, 4] if model == "affine" else rng.choice(([size], [size, 1], [1] * 20 + [size], [size, 2, 2]))
    tensor = tensor_pb2.TensorProto(dtype=ECHOED[name][0])
    for each in shape:
        tensor.tensor_shape.dim.add(size=each)
    if name == "string":
        tensor.string_val.append(b"")
    request = predict_pb2.PredictRequest(model_spec=_spec(model, "" if model == "affine" else name))
    for alias in aliases:
        request.inputs[alias].CopyFrom(tensor)
    return _request("Predict", request)


def _odd_feature(rng: Rng) -> example_pb2.Feature:
    feature = example_pb2.Feature()
    count = rng.choice((0, 1, 1, 2, 2, 3, 1000))
    choice = rng.randrange(4)
    if choice == 0:
        feature.float_list.value.extend(rng.choices((0.5, float("nan"), float("inf"), -1e38), k=count))
    elif choice == 1:
        feature.int64_list.value.extend(_number(rng) for _ in range(count))
    elif choice == 2:
        feature.bytes_list.value.extend(rng.choices((b"oak", b"", b"\xff\xfe\x00", b"s" * 10_000), k=count))
    return feature


def _odd_examples(rng: Rng) -> inference_pb2.Input:
    result = _examples()
    examples = result.example_list.examples
    for _ in range(rng.randrange(3)):
        examples.add().features.feature[_name(rng)].CopyFrom(_odd_feature(rng))
    for example in examples:
        for alias in ("age", "size", "kind"):
            if rng.random() < 0.2:
                example.features.feature[alias].CopyFrom(_odd_feature(rng))
    if rng.random() < 0.1:
        del examples[:]
    if rng.random() < 0.3:
        listed = list(examples)
        result.example_list_with_context.examples.extend(listed)
        result.example_list_with_context.context.features.feature[_name(rng)].CopyFrom(_odd_feature(rng))
    return result


def _odd_classify(rng: Rng) -> Request:
    request = inference_pb2.ClassificationRequest(model_spec=_odd_spec(rng, "forest"), input=_odd_examples(rng))
    return _request(rng.choice(("Classify", "Regress")), request)


def _odd_multi(rng: Rng) -> Request:
    request = inference_pb2.MultiInferenceRequest(input=_odd_examples(rng))
    methods = ("tensorflow/serving/classify", "tensorflow/serving/regress", "tensorflow/serving/predict", "", "x")
    for _ in range(rng.choice((0, 1, 2, 2, 3, 500))):
        request.tasks.add(model_spec=_odd_spec(rng, "forest"), method_name=rng.choice(methods))
    return _request("MultiInference", request)


def _odd_metadata(rng: Rng) -> Request:
    names = [rng.choice(("signature_def", _name(rng))) for _ in range(rng.choice((0, 1, 1, 2, 1000)))]
    request = metadata_pb2.GetModelMetadataRequest(model_spec=_odd_spec(rng, "echo"), metadata_field=names)
    return _request("GetModelMetadata", request)


def _odd_status(rng: Rng) -> Request:
    request = model_service_pb2.GetModelStatusRequest(model_spec=_odd_spec(rng, "affine"))
    return Request(STATUS, request.SerializeToString())


def _odd_stream(rng: Rng) -> Request:
    """Health and reflection, asked for what there is not, or with bytes that mean nothing."""
    path = rng.choice((HEALTH, *STREAMS))
    field = rng.choice((1, 1, 3, 4, 5, 6, 7, 9))
    data = length_delimited(field, rng.choice((_name(rng).encode(), b"tensorflow.serving.ModelSpec", rng.randbytes(9))))
    return Request(path, flip(rng, data, b"") if rng.random() < 0.3 else data)


def _odd_configuration(rng: Rng, root: Path) -> model_service_pb2.ReloadConfigRequest:
    """The good configuration with something in it that must be refused."""
    request = model_service_pb2.ReloadConfigRequest.FromString(good_configuration(root).data)
    models = request.config.model_config_list.config
    model = rng.choice(models)
    fault = rng.randrange(9)
    if fault == 0:
        models.add().CopyFrom(model)
    elif fault == 1:
        model.base_path = rng.choice(("", "models", "../x", "s3://bucket/m", "file:/x", "gs://b", _name(rng)))
    elif fault == 2:
        model.model_platform = rng.choice(("", "pytorch", _name(rng)))
    elif fault == 3:
        model.name = ""
    elif fault == 4:
        model.version_labels[_name(rng)] = rng.choice((0, 2, 7, -1, 2**62))
    elif fault == 5:
        request.ClearField("config")
    elif fault == 6:
        request.config.custom_model_config.type_url = _name(rng)
    elif fault == 7:
        model.model_type = rng.choice((1, 2, 99))  # type: ignore[assignment]  # an open enum takes any number
    else:
        models.add(name="dup", base_path=str(root)).model_version_policy.latest.num_versions = 2**32 - 1
    request.metric_names.extend(_name(rng) for _ in range(rng.choice((0, 0, 1, 300))))
    return request


def _odd_method(rng: Rng) -> Request:
    path = rng.choice(
        (PREDICTION + "Nope", PREDICTION, "/nope/Predict", "/tensorflow.serving.SessionService/SessionRun")
    )
    return Request(path, rng.randbytes(rng.randrange(20)))


NONSENSE: tuple[Callable[[Rng], Request], ...] = (
    _odd_predict,
    _odd_predict,
    _odd_predict,
    _odd_predict,
    _odd_claim,
    _odd_batches,
    _odd_classify,
    _odd_classify,
    _odd_multi,
    _odd_metadata,
    _odd_status,
    _odd_method,
)
