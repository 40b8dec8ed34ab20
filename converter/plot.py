"""A comparison as a picture: the only module that imports matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from converter.compare import Comparison, Timing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which people with any colour vision tell apart.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
_HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo", "--")


def draw(path: Path, title: str, comparison: Comparison) -> None:
    """Write a panel for each batch size: bars of each backend's median from zero, with its 5th to 95th percentile.

    Args:
        path: Its suffix decides the format: .svg or .png.
        title: Above the picture.
        comparison: What was measured.
    """
    import matplotlib as mpl  # noqa: PLC0415 - takes a second, and only this needs it

    mpl.use("agg")
    from matplotlib import pyplot  # noqa: PLC0415 - as above

    batches = sorted({timing.batch for timing in comparison.timings})
    names = list(dict.fromkeys(timing.backend for timing in comparison.timings))
    size = (7.0, 0.6 + len(batches) * (0.35 + 0.28 * len(names)))
    figure, panels = pyplot.subplots(len(batches), 1, figsize=size, squeeze=False, layout="constrained")
    for panel, batch in zip(panels[:, 0], batches, strict=True):
        _fill(panel, names, [timing for timing in comparison.timings if timing.batch == batch])
        panel.set_ylabel(f"{batch} row{'s' if batch > 1 else ''}", rotation=0, ha="right", labelpad=8)
    panels[-1, 0].set_xlabel("milliseconds of a batch: median, and 5th to 95th percentile", fontsize=8)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    figure.savefig(path, dpi=144, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def _fill(panel: "Axes", names: Sequence[str], timings: Sequence[Timing]) -> None:
    fastest = min(timings, key=lambda timing: timing.median)
    for timing in timings:
        number = names.index(timing.backend)
        low, middle, high = (1e3 * timing.quantile(share) for share in (0.05, 0.5, 0.95))
        span = [[middle - low], [high - middle]]
        bars = panel.barh(
            [number], [middle], xerr=span, height=0.72, capsize=2, color=_COLOURS[number % 8], ecolor="#333"
        )
        bars[0].set(hatch=_HATCHES[number % 8], edgecolor="white")
        weight = "bold" if timing is fastest else "normal"
        panel.annotate(f"{middle:.4g}", (high, number), (5, 0), textcoords="offset points", va="center", fontsize=8,
                       fontweight=weight)  # fmt: skip
    panel.set_yticks(range(len(names)), names, fontsize=8)
    panel.invert_yaxis()
    panel.set_xlim(0, 1.15e3 * max(timing.quantile(0.95) for timing in timings))
    panel.tick_params(axis="x", labelsize=8)
    panel.spines[["top", "right"]].set_visible(False)
