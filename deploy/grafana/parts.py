"""What all dashboards are made of: variables, queries and panels of one look. No dashboard's own query."""

from collections.abc import Mapping, Sequence

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmaps
from grafana_foundation_sdk.models import prometheus as queries

SOURCE = models.DataSourceRef("prometheus", "${datasource}")
WIDTH = 24
"""Of a dashboard, in Grafana's columns."""

Panel = Builder[models.Panel]
"""Any kind of panel."""

Query = tuple[str, str]
"""An expression, and the legend of its series."""


def begin(title: str, uid: str, description: str) -> builders.Dashboard:
    """A dashboard without panels; it has links to the others, and a variable for the datasource."""
    others = builders.DashboardLink("Segue").type(models.DashboardLinkType.DASHBOARDS).tags(["segue"])
    return (
        builders.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["segue"])
        .refresh("10s")
        .time("now-1h", "now")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(others.include_vars(True).keep_time(True).as_dropdown(True))  # noqa: FBT003 - the SDK's builders
        .with_variable(builders.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )


def variable(name: str, label: str, selector: str, *, every: bool = False) -> builders.QueryVariable:
    """A choice among a label's values.

    Args:
        name: Of the variable, and of the label.
        label: For people.
        selector: The series whose values there are.
        every: Whether several, or all, may be chosen, all by default.
    """
    made = (
        builders.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(f"label_values({selector}, {name})")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.NUMERICAL_ASC)
    )
    if every:
        all_of_them = models.VariableOption(text="All", value="$__all", selected=True)
        made = made.multi(True).include_all(True).all_value(".*").current(all_of_them)  # noqa: FBT003 - as above
    return made


def target(query: Query, number: int = 0, *, instant: bool = False, is_heatmap: bool = False) -> prometheus.Dataquery:
    """One query of a panel."""
    expression, legend = query
    made = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(chr(ord("A") + number))
    made = made.datasource(SOURCE)
    if is_heatmap:
        return made.range().format(queries.PromQueryFormat.HEATMAP)
    if instant:
        return made.instant().format(queries.PromQueryFormat.TABLE)
    return made.range()


def lines(
    title: str, words: str, unit: str, of: Sequence[Query], *, span: int = 12, stacked: bool = False
) -> timeseries.Panel:
    """Values over time.

    Args:
        title: Of the panel.
        words: What it shows.
        unit: Grafana's name of the unit.
        of: What is shown.
        span: How wide it is, in columns.
        stacked: Whether the values add up to something.
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .description(words)
        .unit(unit)
        .span(span)
        .height(8)
        .min(0)
        .datasource(SOURCE)
        .line_width(1)
        .fill_opacity(30 if stacked else 8)
        .show_points(looks.VisibilityMode.NEVER)
        .legend(_legend())
        .tooltip(_tooltip())
    )
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(looks.StackingMode.NORMAL))
    for number, query in enumerate(of):
        made = target(query, number)
        panel = panel.with_target(made.exemplar(True) if "_latency_seconds_bucket" in query[0] else made)  # noqa: FBT003
    return panel


def number(title: str, words: str, unit: str, of: Query, *, bad: float | None = None, height: int = 4) -> stat.Panel:
    """The latest value, large; red from `bad` on."""
    good = models.Threshold(color="green")
    steps = [good] if bad is None else [good, models.Threshold(value=bad, color="red")]
    return (
        stat.Panel()
        .title(title)
        .description(words)
        .unit(unit)
        .span(4)
        .height(height)
        .datasource(SOURCE)
        .graph_mode(looks.BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
        .with_target(target(of))
    )


def bars(title: str, words: str, unit: str, of: Query, *, span: int = 12) -> bargauge.Panel:
    """The latest value of each series, as a bar."""
    return (
        bargauge.Panel()
        .title(title)
        .description(words)
        .unit(unit)
        .span(span)
        .height(8)
        .datasource(SOURCE)
        .orientation(looks.VizOrientation.HORIZONTAL)
        .with_target(target(of))
    )


def states(
    title: str, words: str, of: Query, texts: Mapping[str, tuple[str, str]], span: int = WIDTH
) -> statetimeline.Panel:
    """States over time.

    Args:
        title: Of the panel.
        words: What it shows.
        of: Series whose values are states.
        texts: By value, how a state is called and which colour it has.
        span: How wide it is, in columns.
    """
    shown = {
        value: models.ValueMappingResult(text=text, color=colour, index=index)
        for index, (value, (text, colour)) in enumerate(texts.items())
    }
    return (
        statetimeline.Panel()
        .title(title)
        .description(words)
        .span(span)
        .height(8)
        .datasource(SOURCE)
        .mappings([models.ValueMap(shown)])
        .show_value(looks.VisibilityMode.AUTO)
        .fill_opacity(70)
        .line_width(0)
        .legend(_legend())
        .with_target(target(of))
    )


def rows(
    title: str, words: str, of: Query, *, hidden: Sequence[str] = (), unit: str = "short", span: int = 12
) -> table.Panel:
    """A table of the latest values with their labels, without those that are hidden."""
    exclude = dict.fromkeys(("Time", "__name__", "instance", "job", *hidden), True)
    organise = models.DataTransformerConfig(id_val="organize", options={"excludeByName": exclude})
    return (
        table.Panel()
        .title(title)
        .description(words)
        .unit(unit)
        .span(span)
        .height(8)
        .datasource(SOURCE)
        .show_header(True)  # noqa: FBT003 - the SDK's builders
        .with_transformation(organise)
        .with_target(target(of, instant=True))
    )


def distribution(title: str, words: str, expression: str, *, span: int = WIDTH) -> heatmap.Panel:
    """How durations are distributed, over time; `expression` gives the rates of a histogram's buckets by `le`."""
    axis = heatmap.YAxisConfig().unit("s").axis_placement(looks.AxisPlacement.LEFT)
    colours = heatmap.HeatmapColorOptions().mode(heatmaps.HeatmapColorMode.SCHEME).scheme("Viridis").steps(64)
    return (
        heatmap.Panel()
        .title(title)
        .description(words)
        .span(span)
        .height(8)
        .datasource(SOURCE)
        .y_axis(axis)
        .color(colours)
        .scale_distribution(common.ScaleDistributionConfig().type(looks.ScaleDistribution.LINEAR))
        .with_target(target((expression, "{{le}}"), is_heatmap=True))
    )


def _legend() -> common.VizLegendOptions:
    made = common.VizLegendOptions().display_mode(looks.LegendDisplayMode.LIST)
    return made.placement(looks.LegendPlacement.BOTTOM).show_legend(True)  # noqa: FBT003 - the SDK's builders


def _tooltip() -> common.VizTooltipOptions:
    return common.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI).sort(looks.SortOrder.DESCENDING)
