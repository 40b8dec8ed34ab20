"""How far each contender's answers are from TensorFlow's."""

from collections.abc import Mapping

import numpy as np

from server.arrays import Array


def errors(answers: Mapping[str, Mapping[str, Array]], reference: str) -> dict[str, dict[str, float]]:
    """By contender: the largest and the root mean square difference to the reference over all outputs' elements."""
    if reference not in answers:
        return {}
    result = {}
    for name, outputs in answers.items():
        if name == reference:
            continue
        differences = np.concatenate(
            [
                (outputs[alias].astype(np.float64) - array.astype(np.float64)).reshape(-1)
                for alias, array in answers[reference].items()
            ]
        )
        result[name] = {
            "largest": float(np.abs(differences).max()),
            "rms": float(np.sqrt(np.mean(differences**2))),
        }
    return result
