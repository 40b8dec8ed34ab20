// A dashboard's variables and queries, asked of a real Prometheus as Grafana's datasource would ask. Nothing is drawn here.
import { FieldType, createDataFrame } from '@grafana/data';

const SCRAPES_OF_A_RATE = 4; // at least, as Grafana has it

/** Where and when to look. */
export class Source {
  constructor(address, from, to, scrapeSeconds) {
    Object.assign(this, { address, from, to, scrapeSeconds });
  }

  async ask(path, query) {
    const text = new URLSearchParams(query);
    const reply = await fetch(`${this.address}/api/v1/${path}?${text}`);
    const answer = await reply.json();
    if (answer.status !== 'success') {
      throw new Error(`${path} ${text}: ${answer.error}`);
    }
    return answer.data;
  }

  /** The time between two points of a graph so wide, in seconds. */
  step(width) {
    return Math.max(this.scrapeSeconds, Math.ceil((this.to - this.from) / width));
  }

  /** An expression with Grafana's own variables and the dashboard's filled in. */
  filled(expression, values, step) {
    const rate = Math.max(step + this.scrapeSeconds, SCRAPES_OF_A_RATE * this.scrapeSeconds);
    const all = { __rate_interval: `${rate}s`, __interval: `${step}s`, __range: `${this.to - this.from}s`, ...values };
    return replaced(expression, all);
  }
}

/** A text with each $name replaced. */
export function replaced(text, values) {
  return text.replace(/\$(\w+)/g, (whole, name) => (name in values ? queryValue(values[name]) : whole));
}

function queryValue(value) {
  return Array.isArray(value) ? (value.length === 1 ? value[0] : `(${value.join('|')})`) : value;
}

/** The chosen values of each variable of a dashboard, and all that it could have. */
export async function variables(dashboard, source, chosen) {
  const values = {};
  const options = {};
  for (const variable of dashboard.templating.list) {
    if (variable.type !== 'query') {
      continue;
    }
    const [, selector, label] = variable.query.match(/^label_values\((.*), (\w+)\)$/);
    const query = { 'match[]': replaced(selector, values), start: source.from, end: source.to };
    const found = await source.ask(`label/${label}/values`, query);
    found.sort((one, other) => Number(one) - Number(other) || one.localeCompare(other));
    const wanted = chosen[variable.name]?.split(',');
    options[variable.name] = wanted ?? found;
    values[variable.name] = wanted ?? (variable.includeAll ? variable.allValue : found[0]);
  }
  return { values, options };
}

/** What a panel's queries give, as Grafana's data frames. */
export async function frames(panel, source, values, width) {
  const results = panel.targets.map((target) => answer(target, source, values, width));
  return (await Promise.all(results)).flat();
}

async function answer(target, source, values, width) {
  const step = source.step(width);
  const expr = source.filled(target.expr, values, step);
  if (target.instant) {
    const { result } = await source.ask('query', { query: expr, time: source.to });
    return result.length ? [table(result)] : [];
  }
  const from = Math.ceil(source.from / step) * step;
  const { result } = await source.ask('query_range', { query: expr, start: from, end: source.to, step });
  const times = [];
  for (let time = from; time <= source.to; time += step) {
    times.push(time);
  }
  return result.map((series) => line(series, times, target.legendFormat));
}

/** One series; null where it has no value. */
function line({ metric, values }, times, legend) {
  const known = new Map(values.map(([time, value]) => [Math.round(time), Number(value)]));
  const all = times.map((time) => known.get(time) ?? null);
  return createDataFrame({
    fields: [
      { name: 'Time', type: FieldType.time, values: times.map((time) => time * 1000) },
      { name: 'Value', type: FieldType.number, labels: metric, values: all, config: { displayNameFromDS: named(legend, metric) } },
    ],
  });
}

/** The latest values with their labels, one row each. */
function table(result) {
  const labels = [...new Set(result.flatMap(({ metric }) => Object.keys(metric)))];
  return createDataFrame({
    fields: [
      { name: 'Time', type: FieldType.time, values: result.map(({ value }) => value[0] * 1000) },
      ...labels.map((name) => ({ name, type: FieldType.string, values: result.map(({ metric }) => metric[name] ?? '') })),
      { name: 'Value', type: FieldType.number, values: result.map(({ value }) => Number(value[1])) },
    ],
  });
}

function named(format, metric) {
  return format ? format.replace(/{{\s*(\w+)\s*}}/g, (_, name) => metric[name] ?? '') : JSON.stringify(metric);
}

/** The marks of a dashboard: spans of time, in milliseconds, with a colour. */
export async function marks(dashboard, source, values) {
  const found = [];
  for (const mark of dashboard.annotations?.list ?? []) {
    const step = Math.max(parseInt(mark.step, 10), source.scrapeSeconds);
    const expr = source.filled(mark.expr, values, step);
    const from = Math.ceil(source.from / step) * step;
    const { result } = await source.ask('query_range', { query: expr, start: from, end: source.to, step });
    for (const { values: points } of result) {
      found.push(...spans(points, step).map((span) => ({ ...span, color: mark.iconColor })));
    }
  }
  return found;
}

function spans(points, step) {
  const found = [];
  for (const [time, value] of points) {
    const last = found.at(-1);
    if (Number(value) <= 0) {
      continue;
    }
    if (last && time * 1000 - last.to <= step * 1000) {
      last.to = time * 1000;
    } else {
      found.push({ from: time * 1000, to: time * 1000 });
    }
  }
  return found;
}
