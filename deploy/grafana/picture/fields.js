// What Grafana's panels take for granted where a dashboard is silent, and the data with everything applied to it.
import { Registry, applyFieldOverrides, cacheFieldDisplayNames } from '@grafana/data';

const STANDARD = ['unit', 'min', 'max', 'decimals', 'displayName', 'color', 'thresholds', 'mappings', 'noValue'];
const THRESHOLDS = { mode: 'absolute', steps: [{ value: -Infinity, color: 'green' }, { value: 80, color: 'red' }] };

// Of each type of panel: fields of its own, and defaults other than those of all.
const TYPES = {
  timeseries: {
    color: { mode: 'palette-classic' },
    custom: {
      drawStyle: 'line', lineInterpolation: 'linear', lineWidth: 1, fillOpacity: 0, gradientMode: 'none', showPoints: 'auto',
      pointSize: 5, spanNulls: false, stacking: { mode: 'none', group: 'A' }, scaleDistribution: { type: 'linear' },
      axisPlacement: 'auto', axisLabel: '', thresholdsStyle: { mode: 'off' }, axisColorMode: 'text', axisBorderShow: false,
      axisCenteredZero: false, barAlignment: 0, lineStyle: { fill: 'solid' }, hideFrom: { viz: false, legend: false, tooltip: false },
      axisGridShow: true,
    },
  },
  stat: { color: { mode: 'thresholds' }, custom: {} },
  bargauge: { color: { mode: 'thresholds' }, custom: {} },
  'state-timeline': { color: { mode: 'thresholds' }, custom: { lineWidth: 0, fillOpacity: 70 } },
  heatmap: { color: { mode: 'thresholds' }, custom: {} },
  table: { color: { mode: 'thresholds' }, custom: { minWidth: 150, align: 'auto', cellOptions: { type: 'auto' }, inspect: false } },
};

/** The types of panel that can be drawn. */
export const KNOWN = Object.keys(TYPES);

/** Frames as a panel gets them: units, colours, names, limits. */
export function dressed(panel, data, theme) {
  const type = TYPES[panel.type];
  const given = panel.fieldConfig?.defaults ?? {};
  const defaults = { thresholds: THRESHOLDS, mappings: [], ...given, color: given.color ?? type.color };
  defaults.thresholds = {
    ...defaults.thresholds,
    steps: defaults.thresholds.steps.map((step) => ({ ...step, value: step.value ?? -Infinity })),
  };
  defaults.custom = { ...type.custom, ...given.custom };
  const items = [
    ...STANDARD.map((path) => property(path, false)),
    ...Object.keys({ ...type.custom, ...given.custom }).map((path) => property(path, true)),
  ];
  const result = applyFieldOverrides({
    data,
    fieldConfig: { defaults, overrides: panel.fieldConfig?.overrides ?? [] },
    fieldConfigRegistry: new Registry(() => items),
    replaceVariables: (text) => text,
    theme,
    timeZone: 'utc',
  });
  cacheFieldDisplayNames(result);
  return result;
}

function property(path, isCustom) {
  const id = isCustom ? `custom.${path}` : path;
  return { id, path, name: id, isCustom, process: (value) => value, shouldApply: () => true, override: null, editor: null };
}
