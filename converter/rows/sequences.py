"""Rules of recurrent networks and attention. Pure."""

from converter.rows.dimensions import ONE, Number, Unproved
from converter.rows.nodes import Inputs, Node, given, optional, present, rule
from converter.rows.values import Value, in_rows, refuse_rows, refuse_sizes, same


@rule("LSTM", "GRU", "RNN")
def recurrent(node: Node, inputs: Inputs) -> list[Value]:
    """Sequences, with the rows in the second axis, or in the first if the layout says so.

    Inputs: X, W, R, B, sequence lengths, initial states, for the LSTM also initial cells and peepholes.
    """
    value, recurrence = given(inputs, 0), given(inputs, 2)
    refuse_sizes(*present(inputs))
    refuse_rows(*inputs[1:4], optional(inputs, 7))
    first = bool(node.integer("layout", 0))
    if value.axis is None:
        refuse_rows(*present(inputs))
        return [same(None)] * node.outputs
    axis = 0 if first else 1
    if value.axis != axis:
        raise Unproved(f"the rows are in axis {value.axis} of the sequences")
    size = value.dims[axis]
    lengths = optional(inputs, 4)
    _require(lengths, 0, size)
    for index in (5, 6):
        _require(optional(inputs, index), 0 if first else 1, size)
    steps, hidden = value.dims[1 - axis], recurrence.dims[-1]
    directions = Number(2) if node.text("direction", "forward") == "bidirectional" else ONE
    if first:
        outputs = [in_rows([size, steps, directions, hidden], 0)]
        outputs += [in_rows([size, directions, hidden], 0)] * 2
    else:
        outputs = [in_rows([steps, directions, size, hidden], 2)]
        outputs += [in_rows([directions, size, hidden], 1)] * 2
    return outputs[: node.outputs]


def _require(value: Value | None, axis: int, size: Number) -> None:
    """Have the same rows along an axis, if it is there."""
    if value is not None and (value.axis != axis or value.dims[axis] != size):
        raise Unproved("the rows of the states or lengths are not those of the sequences")


@rule("Attention")
def attention(node: Node, inputs: Inputs) -> list[Value]:
    """Queries, keys and values with the rows in the first axis; a mask that is theirs or the same for all.

    Inputs: Q, K, V, mask, past keys, past values, lengths without padding.
    """
    query, key, values = (given(inputs, index) for index in range(3))
    refuse_sizes(*present(inputs))
    holders = [query, key, values, *(each for each in inputs[4:7] if each is not None)]
    size = query.dims[0]
    for each in holders:
        if each.axis != 0 or each.dims[0] != size:
            raise Unproved("queries, keys and values are not laid out in the same rows")
    mask = optional(inputs, 3)
    if mask is not None:
        apart = mask.axis == 0 and len(mask.dims) == 4 and mask.dims[0] == size
        if not apart and (mask.axis is not None or (len(mask.dims) > 3 and mask.dims[0] != ONE)):
            raise Unproved("the mask is neither of the same rows nor the same for all")
    rank = len(query.dims)
    if rank == 4:
        shape = [*query.dims[:3], values.dims[3]]
    else:
        shape = [*query.dims[:2], query.dims[2] if values.dims[2] == key.dims[2] else node.unknown()]
    present_size = [node.unknown(part) for part in range(3)]
    extra = [in_rows([size, *present_size], 0)] * (node.outputs - 1)
    return [in_rows(shape, 0), *extra]


@rule("RotaryEmbedding")
def rotary(_node: Node, inputs: Inputs) -> list[Value]:
    """Positions turned into each element, by tables that all rows share and the positions of each row.

    Inputs: X, cosines, sines, positions.
    """
    value, positions = given(inputs, 0), optional(inputs, 3)
    refuse_sizes(*present(inputs))
    refuse_rows(*inputs[1:3])
    if positions is None:
        raise Unproved("the tables may be those of other rows")
    if value.axis not in {None, 0} or positions.axis != value.axis:
        raise Unproved("the rows of the positions are not those of the sequences")
    return [value.other]
