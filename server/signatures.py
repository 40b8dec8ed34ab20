"""What a request must hold to fit a signature: TensorFlow Serving's rules, their order and their texts.

Pure: parsed requests in, arrays for a backend out. The texts are TensorFlow Serving's, so that clients that match on
them keep working; the order of the checks is the one in its predict_util.cc and in TensorFlow's saved_model/util.cc.
Where TensorFlow iterates an unordered map, aliases are taken in sorted order.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from protos.segue import package_pb2
from protos.tensorflow import signature_pb2
from server.arrays import Array
from server.backends.interface import TensorPort
from server.errors import InvalidRequest
from server.quickness import Quickness
from server.wire.dtypes import name_of as type_name
from server.wire.tensors import RawTensor, tensor_from_proto

DEFAULT_SIGNATURE = "serving_default"


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input as clients see it.

    `shape` is None for unknown rank and has -1 for dynamic dimensions; `onnx_name` is empty if no output depends on the
    input; `default` is what TensorFlow feeds if a client leaves the input out.
    """

    alias: str
    feed_name: str
    dtype: int
    shape: tuple[int, ...] | None
    onnx_name: str
    default: Array | None


class Call(NamedTuple):
    """A request that fits: feeds by ONNX name, and the outputs wanted as (alias, ONNX name)."""

    feeds: Mapping[str, Array]
    outputs: Sequence[tuple[str, str]]


class ServedSignature:
    """One signature of a loaded version."""

    def __init__(self, signature: package_pb2.Signature) -> None:
        self.name = signature.name
        self.onnx_file = signature.onnx_file
        self.definition = definition = signature.signature_def
        self.method_name = definition.method_name
        bound = {binding.alias: binding.onnx_name for binding in signature.inputs}
        self.inputs = tuple(_input_spec(alias, definition, bound.get(alias, "")) for alias in sorted(definition.inputs))
        self.outputs: Mapping[str, str] = {
            b.alias: b.onnx_name for b in sorted(signature.outputs, key=lambda b: b.alias)
        }
        self._output_dtypes = {alias: info.dtype for alias, info in definition.outputs.items()}
        self._all_outputs = tuple(self.outputs.items())
        self._has_defaults = bool(definition.defaults)
        self.quickness = Quickness()

    def ports(self) -> tuple[tuple[TensorPort, ...], tuple[TensorPort, ...]]:
        """The ONNX graph's inputs and outputs that this signature needs."""
        inputs = tuple(TensorPort(spec.onnx_name, spec.dtype) for spec in self.inputs if spec.onnx_name)
        outputs = tuple(TensorPort(name, self._output_dtypes[alias]) for alias, name in self._all_outputs)
        return inputs, outputs

    def call(self, inputs: Mapping[str, RawTensor], output_filter: Sequence[str] = ()) -> Call:
        """Check a request against the signature.

        Raises:
            InvalidRequest: with TensorFlow Serving's text for the first rule that it breaks.
        """
        return self._usual_call(inputs, output_filter) or self._checked_call(inputs, output_filter)

    def _usual_call(self, inputs: Mapping[str, RawTensor], output_filter: Sequence[str]) -> Call | None:
        """The call of a request that names every input, each of the right form, and no output; None for any other."""
        if output_filter or len(inputs) != len(self.inputs):
            return None
        feeds: dict[str, Array] = {}
        for spec in self.inputs:
            tensor = inputs.get(spec.alias)
            if tensor is None:
                return None
            form = tensor.form
            if form.dtype != spec.dtype or not _fits(spec.shape, form.shape):
                return None
            array = tensor.to_numpy()
            if spec.onnx_name:
                feeds[spec.onnx_name] = array
        return Call(feeds, self._all_outputs)

    def _checked_call(self, inputs: Mapping[str, RawTensor], output_filter: Sequence[str]) -> Call:
        """Rule by rule, in TensorFlow Serving's order."""
        self._check_count(inputs)
        arrays = [self._value(spec, inputs) for spec in self.inputs]
        self._check_names(inputs)
        outputs = self._select(output_filter) if output_filter else self._all_outputs
        feeds: dict[str, Array] = {}
        for position, (spec, (dtype, array)) in enumerate(zip(self.inputs, arrays, strict=True)):
            if dtype != spec.dtype:
                msg = f"Expects arg[{position}] to be {type_name(spec.dtype)} but {type_name(dtype)} is provided"
                raise InvalidRequest(msg)
            self._check_shape(spec, array)
            if spec.onnx_name:
                feeds[spec.onnx_name] = array
        return Call(feeds, outputs)

    def call_with_arrays(self, arrays: Mapping[str, Array], wanted: Sequence[str]) -> Call:
        """The same for arrays by alias that have the right dtypes already; inputs that are missing take their default.

        Raises:
            InvalidRequest: An array's shape does not fit.
        """
        feeds: dict[str, Array] = {}
        for spec in self.inputs:
            array = arrays.get(spec.alias, spec.default)
            assert array is not None  # noqa: S101 - whoever made the arrays left out only inputs with a default
            self._check_shape(spec, array)
            if spec.onnx_name:
                feeds[spec.onnx_name] = array
        return Call(feeds, [(alias, self.outputs[alias]) for alias in wanted])

    def alias_of(self, onnx_name: str) -> str:
        """What clients call an input of the ONNX graph."""
        return next((spec.alias for spec in self.inputs if spec.onnx_name == onnx_name), onnx_name)

    def bind(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Feeds by ONNX name for arrays by alias that are known to fit, such as golden inputs."""
        return {spec.onnx_name: arrays[spec.alias] for spec in self.inputs if spec.onnx_name}

    def _check_count(self, inputs: Mapping[str, RawTensor]) -> None:
        sent, known = len(inputs), len(self.inputs)
        if sent == known or (sent < known and self._has_defaults):
            return
        names = {spec.alias for spec in self.inputs}
        msg = (
            f"input size does not match signature: {sent}!={known} "
            f"len({_braced(inputs)}) != len({_braced(names)}). "
            f"Sent extra: {_braced(inputs.keys() - names)}. Missing but required: {_braced(names - inputs.keys())}."
        )
        raise InvalidRequest(msg)

    def _value(self, spec: InputSpec, inputs: Mapping[str, RawTensor]) -> tuple[int, Array]:
        tensor = inputs.get(spec.alias)
        if tensor is not None:
            return tensor.dtype, tensor.to_numpy()
        if spec.default is not None:
            return spec.dtype, spec.default
        defaults = ",".join(s.alias for s in self.inputs if s.default is not None)
        msg = (
            f"Signature input alias: {spec.alias}(feed name: {spec.feed_name}) not found in request and no default "
            f"value provided. Inputs expected to be in the request {_braced(inputs)}, "
            f"or default input alias set: {defaults}"
        )
        raise InvalidRequest(msg)

    def _check_names(self, inputs: Mapping[str, RawTensor]) -> None:
        used = inputs.keys() & {spec.alias for spec in self.inputs}
        if len(used) != len(inputs):
            msg = (
                f"Inputs contains invalid name. Used request inputs: {','.join(sorted(used))}, "
                f"request input: {','.join(sorted(inputs))}"
            )
            raise InvalidRequest(msg)

    def _select(self, output_filter: Sequence[str]) -> list[tuple[str, str]]:
        chosen: dict[str, str] = {}
        for alias in output_filter:
            if alias not in self.outputs:
                known = ",".join(self.outputs)
                rule = f"Outputs expected to be in the set {{{known}}}."
                msg = f"output tensor alias not found in signature: {alias} {rule}"
                raise InvalidRequest(msg)
            if alias in chosen:
                raise InvalidRequest(f"duplicate output tensor alias: {alias}")
            chosen[alias] = self.outputs[alias]
        return list(chosen.items())

    def _check_shape(self, spec: InputSpec, array: Array) -> None:
        # TensorFlow's text for this depends on the operator that stumbles over it; the code is the same.
        if spec.shape is None or _fits(spec.shape, array.shape):
            return
        msg = (
            f"input {spec.alias!r} has shape {list(array.shape)}, which does not fit {list(spec.shape)} "
            f"of signature {self.name!r} (-1: any size)"
        )
        raise InvalidRequest(msg)


def _input_spec(alias: str, definition: signature_pb2.SignatureDef, onnx_name: str) -> InputSpec:
    info = definition.inputs[alias]
    shape = None if info.tensor_shape.unknown_rank else tuple(dim.size for dim in info.tensor_shape.dim)
    default = tensor_from_proto(definition.defaults[alias]) if alias in definition.defaults else None
    return InputSpec(
        alias, info.name, info.dtype, shape, onnx_name, default if default is None else np.asarray(default)
    )


@lru_cache(maxsize=4096)
def _fits(wanted: tuple[int, ...] | None, actual: tuple[int, ...]) -> bool:
    """Whether a shape is one that an input takes."""
    if wanted is None:
        return True
    return len(actual) == len(wanted) and all(want in (-1, got) for want, got in zip(wanted, actual, strict=True))


def _braced(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"
