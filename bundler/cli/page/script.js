
"use strict";
// Without this script everything can be read; with it tables sort and filter, and ages are of now.
const order = (row, column) => row.cells[column].dataset.order;
const compare = (a, b) => {
  const [x, y] = [Number(a), Number(b)];
  return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
};

for (const head of document.querySelectorAll("th")) {
  head.firstChild.addEventListener("click", () => {
    const table = head.closest("table");
    const falling = head.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => compare(order(a, head.cellIndex), order(b, head.cellIndex)));
    table.tBodies[0].append(...(falling ? rows.reverse() : rows));
  });
}

const filter = document.getElementById("filter");
filter?.addEventListener("input", () => {
  const wanted = filter.value.toLowerCase();
  for (const row of document.querySelector("table.fleet").tBodies[0].rows) {
    row.hidden = !row.textContent.toLowerCase().includes(wanted);
  }
});

const ago = (seconds) => {
  for (const [unit, length] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= 2 * length) return `${Math.round(seconds / length)} ${unit} ago`;
  }
  return `${Math.round(Math.max(0, seconds))} s ago`;
};
const refresh = () => {
  for (const time of document.querySelectorAll("time")) {
    time.textContent = ago((Date.now() - Date.parse(time.dateTime)) / 1000);
  }
};
refresh();
setInterval(refresh, 30000);

// A link from the fleet's table opens what it leads to.
const unfold = () => {
  const details = document.querySelector(`${location.hash || "#none"} > details`);
  if (details) details.open = true;
};
addEventListener("hashchange", unfold);
unfold();
