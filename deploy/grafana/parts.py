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

COLOURS = {"onnxruntime-c": "blue", "openvino": "orange", "torch": "super-light-yellow", "tensorrt": "green"}
"""Of each kind of backend on all panels, by what its name contains. Violet is for marks, red for what is bad."""

_DASHED = {"fill": "dash", "dash": [6, 4]}


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
    title: str,
    words: str,
    unit: str,
    of: Sequence[Query],
    *,
    span: int = 12,
    stacked: bool = False,
    none: str = "",
    usual: float | None = None,
) -> timeseries.Panel:
    """Values over time.

    Args:
        title: Of the panel.
        words: What it shows.
        unit: Grafana's name of the unit.
        of: What is shown.
        span: How wide it is, in columns.
        stacked: Whether the values add up to something.
        none: What to say while there is nothing to show.
        usual: A value up to which the axis reaches in any case.
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
    if none:
        panel = panel.no_value(none)
    if usual is not None:
        panel = panel.axis_soft_max(usual)
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
    """The latest value of each series, as a bar; what is below zero has a colour of its own."""
    steps = [models.Threshold(color="orange"), models.Threshold(value=0, color="blue")]
    return (
        bargauge.Panel()
        .title(title)
        .description(words)
        .unit(unit)
        .span(span)
        .height(8)
        .datasource(SOURCE)
        .min(0)
        .display_mode(looks.BarGaugeDisplayMode.BASIC)
        .orientation(looks.VizOrientation.HORIZONTAL)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .text(common.VizTextDisplayOptions().title_size(14).value_size(18))
        .thresholds(builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
        .with_target(target(of))
    )


def states(
    title: str, words: str, of: Query, texts: Mapping[str, tuple[str, str]], *, span: int = WIDTH, height: int = 8
) -> statetimeline.Panel:
    """States over time.

    Args:
        title: Of the panel.
        words: What it shows.
        of: Series whose values are states.
        texts: By value, how a state is called and which colour it has.
        span: How wide it is, in columns.
        height: How high it is, in rows.
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
        .height(height)
        .datasource(SOURCE)
        .mappings([models.ValueMap(shown)])
        .show_value(looks.VisibilityMode.AUTO)
        .fill_opacity(70)
        .line_width(0)
        .legend(_legend())
        .with_target(target(of))
    )


def rows(
    title: str,
    words: str,
    of: Query,
    columns: Mapping[str, str],
    *,
    unit: str = "short",
    span: int = 12,
    none: str = "",
) -> table.Panel:
    """A table of the latest values with their labels.

    Args:
        title: Of the panel.
        words: What it shows.
        of: What is shown.
        columns: What each is called, by its label or "Value", in their order; "" for one that is not shown.
        unit: Grafana's name of the value's unit.
        span: How wide it is, in columns.
        none: What to say while there is nothing to show.
    """
    hidden = ("Time", "__name__", "instance", "job", *(name for name, text in columns.items() if not text))
    shown = {name: text for name, text in columns.items() if text}
    order = {name: index for index, name in enumerate(shown)}
    options = {"excludeByName": dict.fromkeys(hidden, True), "indexByName": order, "renameByName": shown}
    organise = models.DataTransformerConfig(id_val="organize", options=options)
    return (
        table.Panel()
        .title(title)
        .description(words)
        .unit(unit)
        .span(span)
        .height(8)
        .datasource(SOURCE)
        .decimals(0 if unit == "short" else 1)
        .no_value(none or "Nothing yet")
        .show_header(True)  # noqa: FBT003 - the SDK's builders
        .with_transformation(organise)
        .override_by_regexp("/.*/", [models.DynamicConfigValue("custom.minWidth", 60)])
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


def by_backend(panel: timeseries.Panel) -> timeseries.Panel:
    """Have each backend its colour, and 95th percentiles dashed."""
    for word, colour in COLOURS.items():
        panel = coloured(panel, f"/{word}/", colour)
    return panel.override_by_regexp("/p95$/", [models.DynamicConfigValue("custom.lineStyle", _DASHED)])


def coloured(panel: timeseries.Panel, pattern: str, colour: str) -> timeseries.Panel:
    """Have series whose names match a pattern a colour that says what they are."""
    fixed = models.FieldColor(mode=models.FieldColorModeId.FIXED, fixed_color=colour)
    return panel.override_by_regexp(pattern, [models.DynamicConfigValue("color", fixed)])


def by_code(panel: timeseries.Panel) -> timeseries.Panel:
    """Have what went well, what the client got wrong, and what the server could not do, each its colour."""
    panel = coloured(panel, "/\\bOK$/", "green")
    panel = coloured(panel, "/(INVALID_ARGUMENT|NOT_FOUND|FAILED_PRECONDITION|UNIMPLEMENTED|CANCELLED)$/", "yellow")
    return coloured(panel, "/(INTERNAL|UNKNOWN|UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|ABORTED)$/", "red")


def _legend() -> common.VizLegendOptions:
    made = common.VizLegendOptions().display_mode(looks.LegendDisplayMode.LIST)
    return made.placement(looks.LegendPlacement.BOTTOM).show_legend(True)  # noqa: FBT003 - the SDK's builders


def _tooltip() -> common.VizTooltipOptions:
    return common.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI).sort(looks.SortOrder.DESCENDING)
