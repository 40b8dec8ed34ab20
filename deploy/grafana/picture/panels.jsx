// Each type of panel by Grafana's own components, within Grafana's frame of a panel.
import {
  VizOrientation, getDisplayValueAlignmentFactors, getFieldDisplayValues, standardTransformers,
} from '@grafana/data';
import { BarGauge, BigValue, PanelChrome, TimeSeries, VizRepeater, useTheme2 } from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';
import { of } from 'rxjs';
import { Heatmap, Marks, StateTimeline } from './canvas.jsx';
import { dressed } from './fields.js';

/** A panel with its data. */
export function Panel({ panel, title, data, range, marks, width, height }) {
  const theme = useTheme2();
  const fields = dressed(panel, transformed(panel, data), theme);
  const Body = data.length ? BODIES[panel.type] : Nothing;
  return (
    <PanelChrome title={title} description={panel.description} width={width} height={height} padding={panel.type === 'table' ? 'none' : 'md'}>
      {(inner, high) => <Body {...{ panel, data: fields, range, marks, theme }} width={inner} height={high} />}
    </PanelChrome>
  );
}

function transformed(panel, data) {
  let result = data;
  for (const { id, options } of panel.transformations ?? []) {
    const transformer = Object.values(standardTransformers).find((each) => each.id === id);
    of(result).pipe(transformer.operator({ ...transformer.defaultOptions, ...options }, { interpolate: (text) => text })).subscribe((done) => { result = done; });
  }
  return result;
}

function Nothing({ panel, width, height }) {
  const text = panel.fieldConfig.defaults.noValue ?? 'No data';
  return <div style={{ width, height, display: 'grid', placeItems: 'center', fontSize: 18 }}>{text}</div>;
}

function Lines({ panel, data, range, marks, width, height }) {
  const finite = data.map((frame) => ({ ...frame, fields: frame.fields.map(withoutNaN) }));
  return (
    <TimeSeries frames={finite} timeRange={range} timeZone="utc" width={width} height={height} legend={panel.options.legend} structureRev={1}>
      {(config) => <Marks config={config} marks={marks} />}
    </TimeSeries>
  );
}

/** As Grafana's panel does: NaN, such as the quantile of no observations, is a gap. */
function withoutNaN(field) {
  return { ...field, values: field.values.map((value) => (Number.isFinite(value) ? value : null)) };
}

function values({ panel, data, theme }, sparkline) {
  return getFieldDisplayValues({
    fieldConfig: panel.fieldConfig, reduceOptions: panel.options.reduceOptions, replaceVariables: (text) => text,
    theme, data, sparkline, timeZone: 'utc',
  });
}

function Bars(props) {
  const { panel, data, theme, width, height } = props;
  const bar = ({ value, width: wide, height: high, alignmentFactors }) => (
    <BarGauge
      value={value.display} field={value.field} width={wide} height={high} theme={theme} alignmentFactors={alignmentFactors}
      orientation={VizOrientation.Horizontal} displayMode={panel.options.displayMode} showUnfilled={panel.options.showUnfilled}
      valueDisplayMode={panel.options.valueMode} namePlacement={panel.options.namePlacement ?? 'auto'} itemSpacing={10} lcdCellWidth={12}
      display={value.view?.getFieldDisplayProcessor(value.colIndex)} text={panel.options.text}
    />
  );
  return (
    <VizRepeater
      source={data} renderCounter={0} width={width} height={height} itemSpacing={10} orientation={VizOrientation.Horizontal}
      minVizHeight={panel.options.minVizHeight} minVizWidth={panel.options.minVizWidth} maxVizHeight={panel.options.maxVizHeight ?? 300}
      getValues={() => values(props, false)} renderValue={bar}
      getAlignmentFactors={(all) => getDisplayValueAlignmentFactors(all)}
    />
  );
}

function Numbers(props) {
  const { panel, data, theme, width, height } = props;
  const { colorMode, graphMode, justifyMode, textMode } = panel.options;
  const number = ({ value, width: wide, height: high, count }) => (
    <BigValue
      value={value.display} count={count} sparkline={value.sparkline} width={wide} height={high} theme={theme}
      colorMode={colorMode} graphMode={graphMode} justifyMode={justifyMode} textMode={textMode}
    />
  );
  return (
    <VizRepeater
      source={data} renderCounter={0} width={width} height={height} autoGrid orientation={VizOrientation.Auto}
      getValues={() => values(props, graphMode !== 'none')} renderValue={number}
    />
  );
}

function Rows({ panel, data, width, height }) {
  return (
    <TableNG
      data={data[0]} width={width} height={height} cellHeight={panel.options.cellHeight} noHeader={!panel.options.showHeader}
      fieldConfig={panel.fieldConfig} structureRev={1} getActions={() => []}
    />
  );
}

const BODIES = { timeseries: Lines, stat: Numbers, bargauge: Bars, 'state-timeline': StateTimeline, heatmap: Heatmap, table: Rows };
