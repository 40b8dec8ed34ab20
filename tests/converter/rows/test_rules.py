"""The rules of operators that exports seldom have, or that graph rewrites bring in: one small graph each."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from converter.rows.proof import why_not_apart

X, Y = "float[n, 4] x", "float[?] y"


def graph(body: str, inputs: str = X, opset: int = 23, **constants: object) -> onnx.ModelProto:
    """A model from ONNX's text: an output y of whatever shape, and constants by name."""
    text = f'<ir_version: 8, opset_import: ["" : {opset}]> g ({inputs}) => (float[n] y) {{ {body} }}'
    model = parser.parse_model(text)
    for name, value in constants.items():
        array = np.asarray(value, np.float32 if np.asarray(value).dtype.kind == "f" else np.int64)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


SQUARE = np.eye(4)
ONES = np.ones(4)
ROW = np.zeros((1, 4))
SERIES = "float[n, 6, 4] x"
IMAGE = "float[n, 4, 6, 6] x"
THREE = "float[n, 5, 8] q, float[n, 5, 8] k, float[n, 5, 8] v"
FOUR = "float[n, 2, 5, 4] q, float[n, 2, 5, 4] k, float[n, 2, 5, 4] v, float[n, 2, 5, 5] m"

APART: dict[str, onnx.ModelProto] = {
    "layer normalisation": graph("y = LayerNormalization<axis=-1>(x, s, s)", s=ONES),
    "root mean square": graph("y = RMSNormalization<axis=-1>(x, s)", s=ONES),
    "gelu": graph('y = Gelu<approximate="tanh">(x)'),
    "gemm": graph("y = Gemm<transB=1>(x, w, b)", w=SQUARE, b=ROW),
    "attention": graph("y = Attention<q_num_heads=2, kv_num_heads=2>(q, k, v)", THREE),
    "attention with the rows' own masks": graph("y = Attention(q, k, v, m)", FOUR),
    "attention with one mask for all": graph("y = Attention(q, k, v, c)", FOUR, c=np.zeros((5, 5))),
    "lstm": graph(
        "t = Transpose<perm=[1,0,2]>(x) a, y0, c0 = LSTM<hidden_size=1>(t, w, r) y = Squeeze(y0, zero)",
        SERIES, w=np.ones((1, 4, 4)), r=np.ones((1, 4, 1)), zero=[0],
    ),
    "gru with rows first": graph(
        "a, b = GRU<hidden_size=1, layout=1>(x, w, r) y = Relu(b)", SERIES, w=np.ones((1, 3, 4)), r=np.ones((1, 3, 1))
    ),
    "pooling": graph("y = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x)", IMAGE),
    "stored statistics": graph("y = BatchNormalization(x, s, s, s, s)", IMAGE, s=ONES),
    "statistics of each image": graph("y = InstanceNormalization(x, s, s)", IMAGE, s=ONES),
    "flatten": graph("f = Flatten(x) y = MatMul(f, w)", IMAGE, w=np.ones((144, 2))),
    "transposed product": graph("t = Transpose(x) p = MatMul(w, t) y = Transpose(p)", w=SQUARE),
    "einsum": graph('y = Einsum<equation="ni,ij->nj">(x, w)', w=SQUARE),
    "depth to space": graph("y = DepthToSpace<blocksize=2>(x)", IMAGE),
    "transposed convolution": graph("y = ConvTranspose(x, w)", IMAGE, w=np.ones((4, 2, 3, 3))),
    "own places": graph("i = ArgMax<axis=1, keepdims=1>(x) y = GatherElements<axis=1>(x, i)"),
    "quantised": graph("q = QuantizeLinear(x, s) y = DequantizeLinear(q, s)", s=0.5),
    "triangle": graph("y = Trilu(x)", SERIES),
    "split": graph("a, b = Split<axis=1, num_outputs=2>(x) y = Add(a, b)"),
    "condition on steps": graph(
        "s = Shape(x) d = Gather(s, one) l = Less(d, c) b = Squeeze(l)"
        "y = If(b) <then_branch = t () => (float[m] p) { p = Relu(x) },"
        "else_branch = e () => (float[m] p) { p = Neg(x) }>",
        "float[n, m] x", one=[1], c=[9],
    ),
}  # fmt: skip
TOUCHING: dict[str, tuple[onnx.ModelProto, str]] = {
    "normalised over all": (graph("y = LayerNormalization<axis=0>(x, s, s)", s=ONES), "LayerNormalization"),
    "statistics of the batch": (
        graph("y, m, v = BatchNormalization<training_mode=1>(x, s, s, s, s)", IMAGE, s=ONES), "statistics"
    ),
    "rows as channels": (
        graph("t = Transpose<perm=[1,0,2,3]>(x) z = BatchNormalization(t, s, s, s, s)"
              "y = Transpose<perm=[1,0,2,3]>(z)", IMAGE, s=ONES), "axis 1",
    ),
    "places within the batch": (graph("z, i = MaxPool<kernel_shape=[2,2]>(x) y = Cast<to=1>(i)", IMAGE), "places"),
    "rows as time": (
        graph("a, h = GRU<hidden_size=1>(x, w, r) y = Squeeze(h, zero)", SERIES, w=np.ones((1, 3, 4)),
              r=np.ones((1, 3, 1)), zero=[0]), "axis 0",
    ),
    "rows times rows": (graph("t = Transpose(x) p = MatMul(x, t) y = MatMul(p, x)"), "multiplies rows with rows"),
    "summed rows": (graph('s = Einsum<equation="ni->i">(x) y = Add(x, s)'), "sums over rows"),
    "rows attend to rows": (
        graph("a = Transpose<perm=[1,0,2]>(q) b = Attention<q_num_heads=2, kv_num_heads=2>(a, a, a)"
              "y = Transpose<perm=[1,0,2]>(b)", THREE), "not laid out",
    ),
    "masks of other rows": (
        graph("h = Transpose<perm=[1,0,2,3]>(m) y = Attention(q, k, v, h)", FOUR), "mask",
    ),
    "an unknown operator of rows": (graph("y = NonMaxSuppression(x)"), "not analysed"),
    "random": (graph("r = RandomNormalLike(x) y = Add(x, r)"), "not analysed"),
    "dropout in training": (graph("y = Dropout(x, r, t)", r=0.5, t=1), "at random"),
    "a condition of rows": (
        graph("s = ReduceMax<keepdims=0>(x) l = Less(s, s)"
              "y = If(l) <then_branch = t () => (float[m] p) { p = Relu(x) },"
              "else_branch = e () => (float[m] p) { p = Neg(x) }>"), "ReduceMax",
    ),
    "one row": (graph("y = Gather<axis=0>(x, zero)", zero=[0]), "axis 0"),
    "rows squeezed": (graph("y = Squeeze(x, zero)", zero=[0]), "axis of the rows"),
    "rows repeated": (graph("y = Tile(x, two)", two=[2, 1]), "repeats the rows"),
    "rows added": (graph("y = Pad(x, p)", p=[0, 0, 1, 0]), "adds rows"),
    "rows after rows": (graph("y = Concat<axis=0>(x, x)"), "one after the other"),
    "a constant row before": (graph("y = Concat<axis=0>(c, x)", c=ROW), "one after the other"),
    "rows put elsewhere": (graph("y = ScatterElements<axis=0>(x, i, c)", i=[[0, 0, 0, 0]], c=ROW), "rows meet"),
    "as wide as the batch": (graph("s = Shape(x) c = Cast<to=1>(s) y = Add(x, c)"), "Cast"),
    "not the rows": (graph("y = Relu(w)", w=SQUARE), "not laid out in the rows"),
    "two rows in one": (graph("y = Reshape(x, s)", s=[-1, 8]), "Reshape"),
    "rows summed by a product": (graph("t = Transpose(x) y = MatMul(t, w)", w=SQUARE), "axis 1"),
    "inputs of fixed size": (graph("y = Relu(x)", "float[2, 4] x"), "not dynamic"),
    "old operators": (graph("y = Relu(x)", opset=9), "opset"),
    "a broken graph": (graph("y = Transpose<perm=[1,0,2]>(x)"), "demands"),
}  # fmt: skip


@pytest.mark.parametrize("name", APART)
def test_rows_that_keep_apart_are_proved(name: str) -> None:
    """The operator is followed, however the rows are laid out."""
    assert why_not_apart(APART[name]) == ""


@pytest.mark.parametrize("name", TOUCHING)
def test_rows_that_may_touch_are_not_proved(name: str) -> None:
    """The reason says where the proof ends."""
    model, words = TOUCHING[name]
    assert words in why_not_apart(model)


def test_an_initializer_that_a_client_may_replace_is_no_constant() -> None:
    """An input with a default in the graph is an input."""
    model = graph("y = Add(x, w)", w=ROW)
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, ["n", 4]))
    assert "default" in why_not_apart(model)


@pytest.mark.parametrize(("other", "proved"), [("a", True), ("b", False)])
def test_names_of_two_graphs_are_not_taken_for_one_another(other: str, proved: bool) -> None:  # noqa: FBT001 - a case
    """Loops whose bodies use the same names have lengths of their own: what fits one need not fit the other."""
    body = "t = ReduceSum<keepdims=0>(two) ok = Less(zero, t)"
    for name in ("a", "b"):
        body += f"""{name} = Loop(t, ok, {name}_begin) <body = g (int64 i, bool c, float[?] s) => (bool d, float[?] e)
            {{ d = Identity(c) e = Concat<axis=0>(s, one) }}> {name}_size = Shape({name})"""
    body += f"""n = Shape<end=1>(x) more = Concat<axis=0>(a_size, ones) w = Expand(x, more)
        again = Concat<axis=0>({other}_size, n, rest) r = Reshape(w, again) y = ReduceMax<keepdims=0>(r, first)"""
    begins = {"a_begin": [1.0], "b_begin": [1.0, 2.0], "one": [1.0]}
    model = graph(body, X, 23, **begins, two=[2], zero=0, ones=[1, 1], rest=[-1], first=[0])
    assert (why_not_apart(model) == "") is proved
