"use strict";
// Draws every figure from the tables of the page, and again when a button over it is pressed.
const page = JSON.parse(document.getElementById("charts").textContent);
const tables = Object.fromEntries(Object.entries(page.tables).map(([name, table]) => [
  name,
  table.rows.map(row => Object.fromEntries(table.columns.map((column, index) => [column, row[index]]))),
]));

async function draw(figure) {
  const chart = page.charts[figure.id.slice("chart-".length)];
  const chosen = [...figure.querySelectorAll("input:checked")].map(input => input.value).join(" ");
  const datasets = Object.fromEntries(chart.tables.map(name => [name, tables[name]]));
  figure.view?.finalize();
  const live = figure.querySelector(".live");
  const embedded = await vegaEmbed(live, {...chart.views[chosen], datasets}, {renderer: "svg", actions: false});
  figure.view = embedded.view;
  figure.dataset.drawn = chosen;
  figure.classList.add("drawn");
}

async function drawAll() {
  for (const figure of document.querySelectorAll("figure[id]")) {
    figure.addEventListener("change", () => draw(figure));
    try {
      await draw(figure);
    } catch (error) {  // the still stays in its place
      console.error(figure.id, error);
    }
  }
  document.documentElement.dataset.ready = "";
}

drawAll();
