"""A comparison as a picture: the only module that imports matplotlib."""

from pathlib import Path

from converter.compare import Comparison

# Okabe and Ito's colours, which people with any colour vision tell apart.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
_HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo", "--")


def draw(path: Path, title: str, comparison: Comparison) -> None:
    """Write bars of each backend's median by batch size, with the span from the 5th to the 95th percentile.

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
    figure, axes = pyplot.subplots(figsize=(2.4 + 1.1 * len(batches) * max(1.0, len(names) / 3), 4.2))
    width = 0.8 / len(names)
    for number, name in enumerate(names):
        found = sorted((t for t in comparison.timings if t.backend == name), key=lambda t: t.batch)
        places = [batches.index(t.batch) + (number - (len(names) - 1) / 2) * width for t in found]
        medians = [1e3 * t.median for t in found]
        below = [m - 1e3 * t.quantile(0.05) for m, t in zip(medians, found, strict=True)]
        above = [1e3 * t.quantile(0.95) - m for m, t in zip(medians, found, strict=True)]
        colour, hatch = _COLOURS[number % 8], _HATCHES[number % 8]
        bars = axes.bar(places, medians, width, label=name, yerr=[below, above], capsize=2, color=colour)
        for bar in bars:
            bar.set(hatch=hatch, edgecolor="white")
        for place, timing, median in zip(places, found, medians, strict=True):
            best = comparison.fastest(timing.batch) is timing
            axes.annotate(f"{median:.3g}", (place, median), (0, 4), textcoords="offset points", ha="center",
                          fontsize=8, fontweight="bold" if best else "normal")  # fmt: skip
    axes.set_yscale("log")
    axes.set_xticks(range(len(batches)), [str(batch) for batch in batches])
    axes.set_xlabel("rows of a batch")
    axes.set_ylabel("milliseconds (median, 5-95 %)")
    axes.set_title(title, fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=144, bbox_inches="tight", metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)
