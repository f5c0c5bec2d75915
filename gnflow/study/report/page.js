"use strict";
// Draws every figure from the tables of the page, and again when a button over it is pressed.
const page = JSON.parse(document.getElementById("charts").textContent);
const tables = Object.fromEntries(Object.entries(page.tables).map(([name, table]) => [
  name,
  table.rows.map(row => Object.fromEntries(table.columns.map((column, index) => [column, row[index]]))),
]));

const PANEL = 290, AXIS = 60, GAP = 22;  // pixels of a small chart, of the axis on the left, and between two

// Small charts: as many in a row as fit, each as wide as that leaves.
function fit(view, width) {
  if (!view.facet) return view;
  const columns = Math.max(1, Math.floor(width / PANEL));
  return {...view, columns, spec: {...view.spec, width: Math.floor((width - AXIS) / columns) - GAP}};
}

async function draw(figure) {
  const chart = page.charts[figure.id.slice("chart-".length)];
  const chosen = [...figure.querySelectorAll("input:checked")].map(input => input.value).join(" ");
  const datasets = Object.fromEntries(chart.tables.map(name => [name, tables[name]]));
  figure.view?.finalize();
  const live = figure.querySelector(".live");
  const view = fit(chart.views[chosen], live.clientWidth);
  const embedded = await vegaEmbed(live, {...view, datasets}, {renderer: "svg", actions: false});
  figure.view = embedded.view;
  figure.dataset.drawn = chosen;
  figure.classList.add("drawn");
}

async function drawWithin(part) {
  for (const figure of part.querySelectorAll("figure[id]:not(.drawn)")) {
    if (figure.closest("details:not([open])")) continue;  // it has no width before it is opened
    figure.addEventListener("change", () => draw(figure));
    try {
      await draw(figure);
    } catch (error) {  // the still stays in its place
      console.error(figure.id, error);
    }
  }
}

for (const section of document.querySelectorAll("details")) {
  section.addEventListener("toggle", () => section.open && drawWithin(section));
}

function unfold(hash) {
  const section = hash && document.getElementById(hash.slice(1));
  if (section instanceof HTMLDetailsElement) section.open = true;
}

for (const link of document.querySelectorAll("nav a")) link.addEventListener("click", () => unfold(link.hash));
addEventListener("hashchange", () => unfold(location.hash));
unfold(location.hash);

const closed = new Set();
addEventListener("beforeprint", () => {
  for (const section of document.querySelectorAll("details:not([open])")) {
    closed.add(section);
    section.open = true;
  }
});
addEventListener("afterprint", () => {
  for (const section of closed) section.open = false;
  closed.clear();
});
drawWithin(document).then(() => { document.documentElement.dataset.ready = ""; });
