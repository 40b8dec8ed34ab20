"""Operators that read or write elements by their positions, and those that search or sort."""

from typing import Final

import torch

from server.lowering.graph import Graph, Node
from server.lowering.operators.integers import as_int64
from server.lowering.table import Table

OPERATORS: Final = Table()
_MISSING: Final = "onnx2torch has none"
_REDUCTIONS: Final = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@OPERATORS.add("Gather", versions=(1, 13), why="positions below 0 on any axis, and positions that are shapes")
def gather(data: torch.Tensor, indices: torch.Tensor, *, axis: int = 0) -> torch.Tensor:
    """Gather; positions below 0 count from the end."""
    axis = axis + data.ndim if axis < 0 else axis
    if indices.ndim == 0:  # which indexing would take for a number, and ask the device for it
        return data.index_select(axis, _counted(indices, data.shape[axis]).reshape(1)).squeeze(axis)
    return data[(slice(None),) * axis + (indices.to(torch.int64),)]


def _counted(indices: torch.Tensor, size: int) -> torch.Tensor:
    """Positions below 0 as what they mean."""
    indices = indices.to(torch.int64)
    return torch.where(indices < 0, indices + size, indices)


@OPERATORS.add("GatherElements", versions=(11, 13), why="positions below 0")
def gather_elements(data: torch.Tensor, indices: torch.Tensor, *, axis: int = 0) -> torch.Tensor:
    """GatherElements."""
    return torch.gather(data, axis, _counted(indices, data.shape[axis]))


@OPERATORS.add("GatherND", versions=(11, 13), why="batch_dims")
def gather_nd(data: torch.Tensor, indices: torch.Tensor, *, batch_dims: int = 0) -> torch.Tensor:
    """GatherND: the last axis of `indices` holds positions on the axes after the batch axes."""
    places = tuple(indices.to(torch.int64).unbind(-1))
    rows = []
    for axis in range(batch_dims):
        row = torch.arange(data.shape[axis], device=data.device)
        rows.append(row.reshape([-1 if at == axis else 1 for at in range(indices.ndim - 1)]))
    return data[(*rows, *places)]


@OPERATORS.add("ScatterElements", versions=(11, 18), why=_MISSING)
def scatter_elements(
    data: torch.Tensor, indices: torch.Tensor, updates: torch.Tensor, *, axis: int = 0, reduction: str = "none"
) -> torch.Tensor:
    """ScatterElements."""
    places = _counted(indices, data.shape[axis])
    if reduction == "none":
        return torch.scatter(data, axis, places, updates)
    return torch.scatter_reduce(data, axis, places, updates, _REDUCTIONS[reduction], include_self=True)


@OPERATORS.add("Scatter", versions=(9, 11), why=_MISSING)
def scatter(data: torch.Tensor, indices: torch.Tensor, updates: torch.Tensor, *, axis: int = 0) -> torch.Tensor:
    """Scatter, the older name of ScatterElements."""
    return scatter_elements(data, indices, updates, axis=axis)


@OPERATORS.add("ScatterND", versions=(11, 18), why="reductions; onnx2torch's writes into its input")
def scatter_nd(
    data: torch.Tensor, indices: torch.Tensor, updates: torch.Tensor, *, reduction: str = "none"
) -> torch.Tensor:
    """ScatterND: the last axis of `indices` holds positions on the first axes."""
    places = tuple(indices.to(torch.int64).unbind(-1))
    if reduction in {"none", "add"}:
        return torch.index_put(data, places, updates, accumulate=reduction == "add")
    flat = torch.zeros(indices.shape[:-1], dtype=torch.int64, device=data.device)
    for axis, place in enumerate(places):
        flat = flat * data.shape[axis] + _counted(place, data.shape[axis])
    rest = data.shape[len(places) :]
    rows = flat.reshape(-1, *[1] * len(rest)).expand(-1, *rest)
    table = data.reshape(-1, *rest)
    changed = torch.scatter_reduce(
        table, 0, rows, updates.reshape(-1, *rest), _REDUCTIONS[reduction], include_self=True
    )
    return changed.reshape(data.shape)


@OPERATORS.add("OneHot", versions=(11, 11), host=(1,), why=_MISSING)
def one_hot(indices: torch.Tensor, depth: int | tuple[int], values: torch.Tensor, *, axis: int = -1) -> torch.Tensor:
    """OneHot; positions below 0 count from the end, those out of range give no `on` at all."""
    width = int(depth[0] if isinstance(depth, tuple) else depth)
    axis = axis + indices.ndim + 1 if axis < 0 else axis
    places = indices.to(torch.int64)
    places = torch.where(places < 0, places + width, places).unsqueeze(axis)
    line = torch.arange(width, device=indices.device).reshape([-1 if at == axis else 1 for at in range(places.ndim)])
    return torch.where(places == line, values[1], values[0])


@OPERATORS.add("NonZero", versions=(9, 13), why="onnx2torch's is the transpose of what ONNX says")
def non_zero(data: torch.Tensor) -> torch.Tensor:
    """NonZero: one row for each axis."""
    return torch.nonzero(data).t()


@OPERATORS.add("Compress", versions=(9, 11), why=_MISSING)
def compress(data: torch.Tensor, condition: torch.Tensor, *, axis: int | None = None) -> torch.Tensor:
    """Compress; of the flattened tensor where no axis is given."""
    if axis is None:
        data, axis = data.reshape(-1), 0
    return data.index_select(axis, torch.nonzero(condition).reshape(-1))


@OPERATORS.add("TopK", versions=(11, 25), host=(1,), many=True, why="of equal numbers the first counts")
def top_k(
    data: torch.Tensor, k: int | tuple[int], *, axis: int = -1, largest: int = 1, sorted: int = 1,  # noqa: A002, ARG001
    count: int,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    """TopK, always sorted."""
    wanted = k[0] if isinstance(k, tuple) else k
    values, places = torch.sort(data, dim=axis, descending=bool(largest), stable=True)
    return (values.narrow(axis, 0, wanted), places.narrow(axis, 0, wanted))[:count]


@OPERATORS.add("Unique", versions=(11, 11), many=True, why=_MISSING)
def unique(data: torch.Tensor, *, axis: int | None = None, sorted: int = 1, count: int) -> tuple[torch.Tensor, ...]:  # noqa: A002
    """Unique: values, where each was first, which of them each element is, how often each occurs."""
    if axis is None:
        data, axis = data.reshape(-1), 0
    values, inverse, counts = torch.unique(data, sorted=True, return_inverse=True, return_counts=True, dim=axis)
    length = inverse.shape[0]
    places = torch.arange(length, device=data.device)
    first = torch.full_like(counts, length).scatter_reduce(0, inverse, places, "amin")
    if not sorted:
        order = torch.argsort(first)
        values, first, counts = values.index_select(axis, order), first[order], counts[order]
        inverse = torch.argsort(order)[inverse]
    return (values, first, inverse, counts)[:count]


@OPERATORS.add("ReverseSequence", versions=(10, 10), why=_MISSING)
def reverse_sequence(
    data: torch.Tensor, lengths: torch.Tensor, *, batch_axis: int = 1, time_axis: int = 0
) -> torch.Tensor:
    """ReverseSequence: the first `lengths[b]` steps of row b backwards, the rest as they are."""
    steps = torch.arange(data.shape[time_axis], device=data.device).unsqueeze(1)
    ends = as_int64(lengths).unsqueeze(0)
    places = torch.where(steps < ends, ends - 1 - steps, steps)  # [time, batch]
    rows = torch.arange(data.shape[batch_axis], device=data.device).unsqueeze(0)
    if (batch_axis, time_axis) == (0, 1):
        return data[rows.t(), places.t()]
    return data[places, rows]


@OPERATORS.add("NonMaxSuppression", versions=(10, 11), host=(2, 3, 4), why="corners in any order; optional inputs")
def non_max_suppression(
    boxes: torch.Tensor, scores: torch.Tensor, limit: int | tuple[int] = 0, overlap: float | tuple[float] = 0.0,
    threshold: float | tuple[float] | None = None, *, center_point_box: int = 0,
) -> torch.Tensor:  # fmt: skip
    """NonMaxSuppression: rows of (batch, class, box), best first within a class."""
    from torchvision.ops import nms  # noqa: PLC0415 - slow to import, and few models need it

    most, share, least = (one[0] if isinstance(one, tuple) else one for one in (limit, overlap, threshold))
    if center_point_box:
        middle, half = boxes[..., :2], boxes[..., 2:] / 2
        low, high = middle - half, middle + half
    else:
        low = torch.minimum(boxes[..., :2], boxes[..., 2:])
        high = torch.maximum(boxes[..., :2], boxes[..., 2:])
    corners = torch.cat([low, high], -1)
    found = []
    for batch in range(scores.shape[0]):
        for kind in range(scores.shape[1]):
            own = scores[batch, kind]
            able = torch.arange(own.shape[0], device=own.device) if least is None else torch.nonzero(own > least)[:, 0]
            kept = able[nms(corners[batch][able], own[able], share)][: int(most or 0)]
            found.append(torch.stack([torch.full_like(kept, batch), torch.full_like(kept, kind), kept], 1))
    return torch.cat(found)


def _refuse_maximum(node: Node, graph: Graph) -> str | None:  # noqa: ARG001 - the form of such a function
    return "mode max has no form here" if node.attributes.get("mode", "avg") != "avg" else None


@OPERATORS.add(
    "RoiAlign", versions=(16, 22), refuse=_refuse_maximum, why="its import of torchvision, put off until used"
)
def roi_align(
    data: torch.Tensor, boxes: torch.Tensor, rows: torch.Tensor, *, mode: str = "avg",  # noqa: ARG001 - see above
    coordinate_transformation_mode: str = "half_pixel", output_height: int = 1, output_width: int = 1,
    sampling_ratio: int = 0, spatial_scale: float = 1.0,
) -> torch.Tensor:  # fmt: skip
    """RoiAlign: the mean of points in each cell of each box."""
    from torchvision.ops import roi_align as align  # noqa: PLC0415 - slow to import, and few models need it

    named = torch.cat([rows.unsqueeze(1).to(boxes.dtype), boxes], 1)
    aligned = coordinate_transformation_mode == "half_pixel"
    result: torch.Tensor = align(
        data, named, (output_height, output_width), spatial_scale, sampling_ratio, aligned=aligned
    )
    return result
