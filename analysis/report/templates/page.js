// Draws every chart from the JSON beside it, and makes the tables sortable. Without JavaScript the
// tables stay as they are written: complete, in the report's order.
"use strict";
const settings = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["lasso2d", "select2d"] };
const drawn = [...document.querySelectorAll("script[data-chart]")].map((source) => {
  const figure = JSON.parse(source.textContent);
  return Plotly.newPlot(source.dataset.chart, figure.data, figure.layout, settings);
});
const bundle = new Blob([document.getElementById("datatables").textContent], { type: "text/javascript" });
const address = URL.createObjectURL(bundle);
const sorted = import(address).then((module) => {
  URL.revokeObjectURL(address);
  for (const table of document.querySelectorAll("table.sortable")) {
    // a cell's data-order is its value in full precision; order: [] keeps the written order at first
    new module.default(table, { paging: false, searching: false, info: false, order: [], autoWidth: false,
      columnDefs: [{ targets: "number", type: "num" }] });
  }
});
Promise.all([...drawn, sorted]).then(() => { document.body.dataset.ready = "yes"; });
// Paper is narrower than the window, and plotly's own resizing comes too late for it.
const charts = [...document.querySelectorAll(".chart")];
window.addEventListener("beforeprint", () => charts.forEach((chart) => Plotly.relayout(chart, { width: 690 })));
window.addEventListener("afterprint", () => charts.forEach((chart) => Plotly.relayout(chart, { width: null, autosize: true })));
