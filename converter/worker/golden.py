"""Golden cases: inputs, and what TensorFlow itself answers to them, through the loaded signature.

This is the reference that every backend must reproduce, so nothing between the signature and the answer is ours.
TensorFlow runs on the CPU in float32, with its own default of oneDNN kernels.
"""

import dataclasses
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from converter.worker import draw, samples
from converter.worker.load import quoted
from converter.worker.protocol import FailureKind, Origin, WorkerFailure
from converter.worker.samples import Inputs, Question
from converter.worker.signature import Signature
from server.arrays import Array

_REFUSALS = (tf.errors.OpError, TypeError, ValueError)


@dataclasses.dataclass(frozen=True)
class Given:
    """A representative input of the job, with where it came from."""

    origin: Origin
    inputs: Inputs


@dataclasses.dataclass(frozen=True)
class Case:
    """One golden case; `batch` is None where the inputs have no common first dimension that may vary."""

    origin: Origin
    batch: int | None
    inputs: Inputs
    outputs: Mapping[str, Array]


class _Asker:
    """Asks TensorFlow and remembers its last refusal."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.refusal = ""

    def once(self, inputs: Inputs) -> dict[str, Array] | None:
        try:
            return _ask(self.signature, inputs)
        except _REFUSALS as error:
            self.refusal = quoted(error)
            return None

    def cases(self, origin: Origin, questions: Sequence[Question]) -> list[Case]:
        """The cases of those questions that TensorFlow accepts, each asked twice."""
        result = []
        for question in questions:
            outputs, again = self.once(question.inputs), self.once(question.inputs)
            if outputs is None or again is None:
                continue
            _require_same(self.signature, outputs, again)
            result.append(Case(origin, question.batch, question.inputs, outputs))
        return result


def golden_cases(
    signature: Signature, given: Sequence[Given], batches: Sequence[int], seed: int, words: Sequence[bytes]
) -> list[Case]:
    """Ask TensorFlow about the job's samples if there are any, else about random inputs.

    Args:
        signature: The signature to call.
        given: Samples for it: the user's file goes before the model's own warm-up requests.
        batches: Sizes of the batches, where it can be batched.
        seed: Of the random inputs; the same seed gives the same cases.
        words: Strings that the model's tables know.

    Raises:
        WorkerFailure: The user's inputs do not fit, or TensorFlow refuses everything (`inputs_rejected`); the same
            input gets different answers (`nondeterministic`).
    """
    asker = _Asker(signature)
    for origin in ("inputs file", "warm-up"):
        chosen = [item.inputs for item in given if item.origin == origin]
        if chosen:
            cases = _from_samples(asker, origin, chosen, batches)
            if cases:
                return cases
            if origin == "inputs file":
                raise _rejected(signature, asker.refusal, "Correct the inputs in the file given with --inputs.")
    rng = np.random.default_rng([seed, zlib.crc32(signature.name.encode())])
    cases = _from_random(asker, batches, words, rng)
    if not cases:
        advice = "Give representative inputs with --inputs FILE.npz: one array per input, named by its alias."
        raise _rejected(signature, asker.refusal, advice)
    return cases


def _ask(signature: Signature, inputs: Inputs) -> dict[str, Array]:
    tensors = {spec.alias: tf.constant(inputs[spec.alias], spec.dtype) for spec in signature.inputs}
    answers = signature.function(**tensors)
    return {spec.alias: np.asarray(answers[spec.alias].numpy(), spec.numpy_dtype) for spec in signature.outputs}


def _from_samples(asker: _Asker, origin: Origin, chosen: Sequence[Inputs], batches: Sequence[int]) -> list[Case]:
    signature = asker.signature
    fitting = []
    for inputs in chosen:
        try:
            fitting.append(samples.conform(signature, inputs))
        except WorkerFailure as failure:
            if origin == "inputs file":
                raise
            asker.refusal = failure.cause  # a stale warm-up record; the others, or random inputs, will do
    if not fitting:
        return []
    cases = asker.cases(origin, samples.questions(signature, fitting, batches))
    if not cases:  # rows may not be independent of each other
        cases = asker.cases(origin, [Question(None, inputs) for inputs in fitting])
    lengths = {_lengths(case) for case in cases}
    shorter = samples.shortened(signature, Question(cases[-1].batch, cases[-1].inputs)) if len(lengths) == 1 else None
    if shorter is not None:
        cases += [case for case in asker.cases(origin, [shorter]) if draw.finite(case.outputs)]
    return cases


def _from_random(asker: _Asker, batches: Sequence[int], words: Sequence[bytes], rng: np.random.Generator) -> list[Case]:
    signature = asker.signature
    plans = draw.search(signature, asker.once, words, rng)
    if not plans:
        return []
    sizes: Sequence[int | None] = list(batches) if signature.batchable else [None, None]
    questions = [
        Question(size, draw.draw(signature, plans[index % len(plans)], size, rng)) for index, size in enumerate(sizes)
    ]
    return asker.cases("random", questions)


def _lengths(case: Case) -> tuple[tuple[int, ...], ...]:
    first = 0 if case.batch is None else 1
    return tuple(array.shape[first:] for array in case.inputs.values())


def _require_same(signature: Signature, outputs: Mapping[str, Array], again: Mapping[str, Array]) -> None:
    for alias, array in outputs.items():
        if array.shape != again[alias].shape or not _close(array, again[alias]):
            raise WorkerFailure(
                FailureKind.NONDETERMINISTIC,
                f"Output {alias!r} of signature {signature.name!r} differs between two runs on the same input, so "
                "there is no reference that an export could be compared with.",
                "Save the model for inference: no random numbers, no dropout, no state that a request changes.",
            )


def _close(left: Array, right: Array) -> bool:
    """Equal but for the last bits, which may depend on how threads shared a sum."""
    if left.dtype.kind not in "fcV":
        return bool(np.array_equal(left, right))
    tolerance = 1e-5 if left.dtype.itemsize >= 4 else 1e-2
    wide = (left.astype(np.complex128), right.astype(np.complex128))
    return bool(np.allclose(*wide, rtol=tolerance, atol=tolerance, equal_nan=True))


def _rejected(signature: Signature, refusal: str, advice: str) -> WorkerFailure:
    if refusal.startswith("ResourceExhaustedError"):
        return WorkerFailure(
            FailureKind.OUT_OF_MEMORY,
            f"TensorFlow lacks the memory to run signature {signature.name!r}: {refusal}",
            "Convert on a machine with more memory, or give smaller inputs with --inputs FILE.npz.",
        )
    cause = (
        f"TensorFlow refuses every input tried for signature {signature.name!r}. Its last words: {refusal or 'none'}."
    )
    return WorkerFailure(FailureKind.INPUTS_REJECTED, cause, advice)
