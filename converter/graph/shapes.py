"""Shape arithmetic folded: a shape that is known, or follows from the input's, is a constant.

TensorFlow computes shapes at run time (`tf.shape(x)[0]`, then a stack, then a reshape) even where only the batch is
dynamic. ONNX's Reshape can copy a dimension and work one out, so that most of these become constants.
"""

from typing import Final

import numpy as np
import onnx_ir as ir

from converter.graph.edit import Rewrite, Variables, add_constant, integers, nodes_of
from converter.graph.facts import Facts, constant_elements, gather_facts
from converter.graph.sizes import reshape_target
from converter.graph.unused import remove_unused


def _apply(model: ir.Model, variables: Variables) -> int:
    facts = gather_facts(model)
    done = _fold_known(model, facts) + _fix_targets(model, facts)
    remove_unused(model, variables)
    return done


def _fold_known(model: ir.Model, facts: Facts) -> int:
    """Put constants in place of integers that are the same in every run."""
    done = 0
    for node in list(model.graph):
        output = node.outputs[0]
        elements = facts.elements.get(output)
        if len(node.outputs) > 1 or elements is None or output.is_graph_output():
            continue
        known = [element for element in elements if isinstance(element, int)]
        if len(known) == len(elements) and (node.op_type != "Constant" or node.domain):
            dtype = facts.types[output].numpy()
            array = np.array(known, dtype).reshape([s for s in facts.shapes[output] if isinstance(s, int)])
            ir.convenience.replace_all_uses_with(output, add_constant(model, f"{output.name}/known", array))
            done += 1
    return done


def _fix_targets(model: ir.Model, facts: Facts) -> int:
    done = 0
    for node in nodes_of(model, "Reshape"):
        source, output = node.inputs[0], node.outputs[0]
        if source is None or source not in facts.shapes or output not in facts.shapes:
            continue
        target = reshape_target(facts.shapes[source], facts.shapes[output])
        given = constant_elements(node.inputs[1])
        # A constant that gives a number is better than one that lets it be worked out.
        if target is None or (given is not None and (given == tuple(target) or -1 in target)):
            continue
        node.replace_input_with(1, add_constant(model, f"{output.name}/shape", integers(*target)))
        node.attributes.pop("allowzero", None)
        done += given is None
    return done


REWRITE: Final = Rewrite("shapes", "shapes that follow from the input's are constants", _apply)
