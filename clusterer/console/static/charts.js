// Draws the charts of a node's last hour with uPlot, from the samples that the page names. A module:
// its names are its own.

const charts = document.getElementById("charts");
const CHARTS = [
  { title: "Packets per second", series: [["In", "sent_to_per_s", "--chart-1", []], ["Out", "sent_by_per_s", "--chart-2", [6, 3]]] },
  { title: "Skipped and lost per second", series: [["Skipped", "skipped_per_s", "--chart-3", []], ["Lost", "lost_per_s", "--chart-4", [6, 3]]] },
  { title: "Backlog in packets", series: [["Backlog", "backlog", "--chart-1", []]] },
];
const GAP = 3; // intervals without a sample from which on the line has a gap
let plots = [];

const colour = (name) => getComputedStyle(charts).getPropertyValue(name).trim();

function columns(samples, names) {
  const interval = Number(charts.dataset.interval) || 10;
  const rows = [];
  for (const each of samples) {
    const last = rows.at(-1);
    if (last && each.at - last.at > GAP * interval) rows.push({ at: last.at + interval });
    rows.push(each);
  }
  return [rows.map((row) => row.at), ...names.map((name) => rows.map((row) => row[name] ?? null))];
}

function options(chart, width) {
  const axis = { stroke: colour("--text-2"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } };
  return {
    title: chart.title,
    width,
    height: 180,
    scales: { y: { range: (_plot, _low, high) => [0, Math.max(1, high * 1.1)] } },
    axes: [{ ...axis, values: "{HH}:{mm}", incrs: [60, 120, 300, 600, 900, 1800, 3600] }, { ...axis, size: 56 }],
    series: [{ value: "{HH}:{mm}:{ss}" }, ...chart.series.map(([label, , name, dash]) => ({
      label, stroke: colour(name), width: 2, dash, points: { show: false },
    }))],
  };
}

function draw(samples) {
  plots.forEach((plot) => plot.destroy());
  charts.replaceChildren();
  const room = charts.clientWidth;
  const width = room < 700 ? room : Math.floor((room - 24) / 2);
  plots = CHARTS.map((chart) => {
    const holder = document.createElement("figure");
    holder.setAttribute("aria-label", chart.title);
    charts.append(holder);
    return new uPlot(options(chart, width), columns(samples, chart.series.map((each) => each[1])), holder);
  });
}

function say(text) {
  const note = document.createElement("p");
  note.className = "muted";
  note.textContent = text;
  charts.replaceChildren(note);
  plots = [];
}

let shown = [];

async function refresh() {
  if (document.hidden) return;
  try {
    const answer = await fetch(charts.dataset.samples, { headers: { Accept: "application/json" } });
    if (!answer.ok) return;
    shown = (await answer.json()).samples;
  } catch {
    return; // the line at the top of the page says that there is no connection
  }
  if (shown.length < 2) say("No samples yet.");
  else if (plots.length) CHARTS.forEach((chart, at) => plots[at].setData(columns(shown, chart.series.map((each) => each[1]))));
  else draw(shown);
}

function again() {
  if (shown.length > 1) draw(shown);
}

if (charts) {
  refresh();
  setInterval(refresh, 1000 * Math.max(5, Number(charts.dataset.interval) || 10));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  let timer = 0;
  addEventListener("resize", () => { clearTimeout(timer); timer = setTimeout(again, 200); });
}
