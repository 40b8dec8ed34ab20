// A committed dashboard as one page, for a picture: `?dashboard=NAME&prometheus=URL&from=&to=&scrape=` and `&var-NAME=`.
import '@fontsource/inter/400.css';
import '@fontsource/inter/500.css';
import { createRoot } from 'react-dom/client';
import { createTheme, dateTime, setTimeZoneResolver } from '@grafana/data';
import { GlobalStyles, ThemeContext } from '@grafana/ui';
import { Panel } from './panels.jsx';
import { Source, frames, marks, replaced, variables } from './queries.js';

const COLUMNS = 24;
const ROW = 30;
const GAP = 8;

/** The panels where they belong, repeated for each value of their variable. */
function laidOut(dashboard, { values, options }) {
  const found = [];
  let down = 0;
  let queue = [];
  const close = () => {
    const repeats = queue[0]?.repeat ? options[queue[0].repeat] : [null];
    const end = Math.max(...queue.map(({ gridPos: at }) => at.y + at.h));
    const height = queue.length ? end - queue[0].gridPos.y : 0;
    repeats.forEach((value, index) => {
      const scoped = value === null ? values : { ...values, [queue[0].repeat]: value };
      queue.forEach((panel) => found.push(...placed(panel, scoped, options, down + index * height)));
    });
    down += Math.max(repeats.length - 1, 0) * height;
    queue = [];
  };
  for (const panel of dashboard.panels) {
    if (panel.type === 'row') {
      close();
    }
    queue.push(panel);
    if (panel.type === 'row') {
      queue.push(...panel.panels);
    }
  }
  close();
  return found;
}

function placed(panel, values, options, down) {
  const copies = panel.repeat && panel.type !== 'row' ? options[panel.repeat] : [null];
  return copies.map((value, index) => {
    const wide = panel.gridPos.w / copies.length;
    const scoped = value === null ? values : { ...values, [panel.repeat]: value };
    const at = { ...panel.gridPos, x: panel.gridPos.x + index * wide, w: wide, y: panel.gridPos.y + down };
    return { panel, values: scoped, at, title: replaced(panel.title, scoped) };
  });
}

function Dashboard({ dashboard, options, range, ready, spans, width, theme }) {
  const column = (width + GAP) / COLUMNS;
  const bottom = Math.max(...ready.map(({ at }) => at.y + at.h));
  const chosen = Object.entries(options).map(([name, all]) => `${name}: ${all.join(', ')}`);
  return (
    <div style={{ width, padding: 16, boxSizing: 'content-box', color: theme.colors.text.primary }}>
      <div style={{ fontSize: 18, fontWeight: 500 }}>{dashboard.title}</div>
      <div style={{ color: theme.colors.text.secondary, margin: '4px 0 12px' }}>
        {chosen.join(' · ')} · {range.from.utc().format('HH:mm:ss')} to {range.to.utc().format('HH:mm:ss')} UTC
      </div>
      <div style={{ position: 'relative', height: bottom * (ROW + GAP) }}>
        {ready.map(({ panel, at, title, data }, index) => {
          const size = { width: at.w * column - GAP, height: at.h * (ROW + GAP) - GAP };
          return (
            <div key={index} style={{ position: 'absolute', left: at.x * column, top: at.y * (ROW + GAP), ...size }}>
              {panel.type === 'row' ? <div style={{ fontSize: 16, fontWeight: 500, paddingTop: 4 }}>⌄ {title}</div>
                : <Panel {...{ panel, title, data, range, ...size }} marks={spans} />}
            </div>
          );
        })}
      </div>
    </div>
  );
}

async function main() {
  const query = Object.fromEntries(new URLSearchParams(location.search));
  const [from, to] = [Number(query.from), Number(query.to)];
  const source = new Source(query.prometheus, from, to, Number(query.scrape));
  const dashboard = await (await fetch(`dashboards/${query.dashboard}.json`)).json();
  const chosen = Object.fromEntries(
    Object.entries(query).filter(([name]) => name.startsWith('var-')).map(([name, value]) => [name.slice(4), value])
  );
  const found = await variables(dashboard, source, chosen);
  const width = Number(query.width);
  const wanted = laidOut(dashboard, found).filter(({ panel }) => !query.without?.split(',').includes(panel.title));
  const ready = await Promise.all(
    wanted.map(async (each) => ({
      ...each,
      data: each.panel.targets ? await frames(each.panel, source, each.values, Math.ceil((each.at.w * width) / COLUMNS)) : [],
    }))
  );
  const spans = await marks(dashboard, source, found.values);
  const range = { from: dateTime(from * 1000).utc(), to: dateTime(to * 1000).utc() };
  range.raw = { from: range.from, to: range.to };
  const theme = createTheme({ colors: { mode: query.theme ?? 'dark' } });
  const root = document.createElement('div');
  document.body.append(root);
  createRoot(root).render(
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <Dashboard {...{ dashboard, options: found.options, range, ready, spans, width, theme }} />
    </ThemeContext.Provider>
  );
  window.empty = ready.filter(({ panel, data }) => panel.targets && !data.length).map(({ title }) => title);
}

setTimeZoneResolver(() => 'utc');
window.failed = '';
window.addEventListener('unhandledrejection', (event) => { window.failed = String(event.reason?.stack ?? event.reason); });
main().catch((error) => { window.failed = error.stack; });
