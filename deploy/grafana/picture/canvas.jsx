// Panels that Grafana's packages have no component for, drawn on its own chart: state timelines and heatmaps. And marks.
import { useLayoutEffect, useMemo } from 'react';
import { formattedValueToString, getFieldDisplayName, getValueFormat } from '@grafana/data';
import { ScaleDirection, ScaleOrientation } from '@grafana/schema';
import { UPlotChart, UPlotConfigBuilder, VizLayout, VizLegend, measureText, useTheme2 } from '@grafana/ui';
import { interpolateViridis } from 'd3-scale-chromatic';

const FONT = 12;

/** Marks behind or over a chart: a dashed line where each begins, a band as long as it lasts. */
export function Marks({ config, marks }) {
  const theme = useTheme2();
  useLayoutEffect(() => {
    config.addHook('draw', (u) => {
      const { ctx, bbox } = u;
      const ratio = window.devicePixelRatio;
      ctx.save();
      for (const mark of marks) {
        const [left, right] = [mark.from, mark.to].map((time) => u.valToPos(time, 'x', true));
        const color = theme.visualization.getColorByName(mark.color);
        ctx.strokeStyle = ctx.fillStyle = color;
        ctx.lineWidth = 2 * ratio;
        ctx.setLineDash([5 * ratio, 5 * ratio]);
        ctx.beginPath();
        ctx.moveTo(left, bbox.top);
        ctx.lineTo(left, bbox.top + bbox.height);
        ctx.stroke();
        ctx.globalAlpha = 0.1;
        ctx.fillRect(left, bbox.top, right - left, bbox.height);
        ctx.globalAlpha = 1;
        ctx.fillRect(left, bbox.top + bbox.height, Math.max(right - left, 6 * ratio), 5 * ratio);
      }
      ctx.restore();
    });
  }, [config, marks, theme]);
  return null;
}

/** A chart of rows, which `paint(u, theme)` fills. */
function rowsChart({ names, count, range, theme, paint, at }) {
  const config = new UPlotConfigBuilder('utc');
  config.addScale({
    scaleKey: 'x', isTime: true, orientation: ScaleOrientation.Horizontal, direction: ScaleDirection.Right,
    range: () => [range.from.valueOf(), range.to.valueOf()],
  });
  config.addScale({
    scaleKey: 'y', orientation: ScaleOrientation.Vertical, direction: ScaleDirection.Up, range: () => [0, count],
  });
  config.addAxis({ scaleKey: 'x', isTime: true, placement: 'bottom', theme, timeZone: 'utc', grid: { show: false } });
  const width = Math.max(...names.map((name) => measureText(name, FONT).width));
  config.addAxis({
    scaleKey: 'y', placement: 'left', theme, size: width + 12, grid: { show: false }, ticks: { show: false },
    splits: () => names.map((_, index) => index + at), values: () => names,
  });
  config.addSeries({ scaleKey: 'y', theme, pathBuilder: () => null, pointsBuilder: () => null, lineWidth: 0, show: true });
  config.addHook('drawClear', (u) => {
    u.ctx.save();
    u.ctx.beginPath();
    u.ctx.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height);
    u.ctx.clip();
    paint(u);
    u.ctx.restore();
  });
  config.setPrepData(([frame]) => frame);
  return config;
}

function Chart({ config, times, width, height, marks }) {
  const data = useMemo(() => [times, times.map(() => 0)], [times]);
  return (
    <UPlotChart config={config} data={data} width={width} height={height}>
      <Marks config={config} marks={marks} />
    </UPlotChart>
  );
}

/** States over time: a row for each series, a block for as long as a state lasts. */
export function StateTimeline({ panel, data, range, marks, width, height }) {
  const theme = useTheme2();
  const rows = data.map((frame) => ({
    name: getFieldDisplayName(frame.fields[1], frame, data),
    field: frame.fields[1],
    times: frame.fields[0].values,
  }));
  rows.reverse(); // the first is on top
  const config = useMemo(() => {
    const paint = (u) => rows.forEach((row, index) => paintStates(u, row, index, panel, theme));
    return rowsChart({ names: rows.map(({ name }) => name), count: rows.length, range, theme, paint, at: 0.5 });
  }, [data, theme]);
  const texts = new Map();
  for (const { field } of rows) {
    for (const value of field.values) {
      const shown = value === null ? null : field.display(value);
      if (shown?.text) {
        texts.set(shown.text, shown.color);
      }
    }
  }
  const items = [...texts].map(([label, color]) => ({ label, color, yAxis: 1 }));
  const legend = (
    <VizLayout.Legend placement="bottom" maxHeight="35%">
      <VizLegend placement="bottom" items={items} displayMode="list" readonly />
    </VizLayout.Legend>
  );
  return (
    <VizLayout width={width} height={height} legend={legend}>
      {(inner, high) => <Chart config={config} times={rows[0].times} width={inner} height={high} marks={marks} />}
    </VizLayout>
  );
}

function paintStates(u, { field, times }, index, panel, theme) {
  const { ctx } = u;
  const ratio = window.devicePixelRatio;
  const step = times[1] - times[0];
  const share = panel.options.rowHeight;
  const top = u.valToPos(index + 0.5 + share / 2, 'y', true);
  const height = u.valToPos(index + 0.5 - share / 2, 'y', true) - top;
  for (let first = 0; first < times.length; ) {
    let next = first + 1;
    while (next < times.length && field.values[next] === field.values[first]) {
      next += 1;
    }
    if (field.values[first] !== null) {
      const shown = field.display(field.values[first]);
      const left = u.valToPos(times[first], 'x', true);
      const right = u.valToPos(next < times.length ? times[next] : times[next - 1] + step, 'x', true);
      ctx.globalAlpha = panel.fieldConfig.defaults.custom.fillOpacity / 100;
      ctx.fillStyle = shown.color;
      ctx.fillRect(left, top, right - left, height);
      ctx.globalAlpha = 1;
      ctx.font = `${FONT * ratio}px ${theme.typography.fontFamily}`;
      if (ctx.measureText(shown.text).width + 8 * ratio < right - left && height > FONT * ratio) {
        ctx.fillStyle = theme.colors.text.primary;
        ctx.textBaseline = 'middle';
        ctx.textAlign = 'left';
        ctx.fillText(shown.text, left + 4 * ratio, top + height / 2);
      }
    }
    first = next;
  }
}

/** A histogram's buckets over time: the brighter a cell, the more of them. */
export function Heatmap({ panel, data, range, marks, width, height }) {
  const theme = useTheme2();
  const cells = useMemo(() => differences(data), [data]);
  const steps = panel.options.color.steps;
  const color = (value) => interpolateViridis(Math.round((value / cells.most) * (steps - 1)) / (steps - 1));
  const config = useMemo(() => {
    const format = getValueFormat(panel.options.yAxis.unit);
    const every = Math.ceil((cells.bounds.length * FONT * 1.4) / (height - 60));
    const shown = (bound, index) => (index % every ? '' : formattedValueToString(format(bound)));
    const names = cells.bounds.map((bound, index) => (Number.isFinite(bound) ? shown(bound, index) : ''));
    const paint = (u) => paintCells(u, cells, color, panel.options.filterValues.le);
    return rowsChart({ names, count: names.length, range, theme, paint, at: 1 });
  }, [data, theme]);
  const stops = [0, 0.25, 0.5, 0.75, 1].map(interpolateViridis).join(', ');
  const legend = (
    <VizLayout.Legend placement="bottom">
      <div style={{ display: 'flex', alignItems: 'center', gap: 6, fontSize: FONT, padding: '2px 8px' }}>
        0
        <div style={{ width: 160, height: 8, background: `linear-gradient(90deg, ${stops})` }} />
        {cells.most.toPrecision(2)} runs/s
      </div>
    </VizLayout.Legend>
  );
  return (
    <VizLayout width={width} height={height} legend={legend}>
      {(inner, high) => <Chart config={config} times={cells.times} width={inner} height={high} marks={marks} />}
    </VizLayout>
  );
}

/** Of cumulative buckets what each holds itself. */
function differences(data) {
  const bound = (frame) => Number(frame.fields[1].labels.le.replace('+Inf', 'Infinity'));
  const sorted = [...data].sort((one, other) => bound(one) - bound(other));
  const times = sorted[0].fields[0].values;
  const values = sorted.map((frame, row) =>
    frame.fields[1].values.map((value, index) => value - (row ? sorted[row - 1].fields[1].values[index] : 0))
  );
  const most = Math.max(...values.flat().filter(Number.isFinite), 1e-9);
  return { bounds: sorted.map(bound), times, values, most };
}

function paintCells(u, { times, values }, color, least) {
  const step = times[1] - times[0];
  const ratio = window.devicePixelRatio;
  values.forEach((row, index) => {
    const top = u.valToPos(index + 1, 'y', true);
    const height = u.valToPos(index, 'y', true) - top;
    row.forEach((value, at) => {
      if (value > least) {
        const left = u.valToPos(times[at] - step, 'x', true);
        u.ctx.fillStyle = color(value);
        u.ctx.fillRect(left, top, u.valToPos(times[at], 'x', true) - left - ratio, height - ratio);
      }
    });
  });
}
