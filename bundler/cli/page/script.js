
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

// A row stays if its text, or its artifact's, has the words, and its health is the chosen one.
const filter = document.getElementById("filter");
const health = document.getElementById("health");
const matches = (element, chosen) =>
  chosen === "any" || (element.dataset.health ?? "").split("|").includes(chosen);
const apply = () => {
  const wanted = filter.value.toLowerCase();
  const has = (text) => text.toLowerCase().includes(wanted);
  const active = wanted !== "" || health.value !== "any";
  let [shown, total] = [0, 0];
  for (const card of document.querySelectorAll(".holder")) {
    const named = has(card.dataset.name) || has(card.querySelector(".facts").textContent);
    let left = 0;
    for (const row of card.querySelectorAll("table.keys tbody tr")) {
      const chosen = matches(row, health.value) || (health.value !== "any" && matches(card, health.value));
      row.hidden = !(chosen && (named || has(row.textContent)));
      left += !row.hidden;
      total += 1;
    }
    shown += left;
    card.hidden = !left && !(named && matches(card, health.value));
    const details = card.querySelector("details");
    if (active && details && !card.hidden) details.open = true;
    const link = document.querySelector(`table.fleet a[href="#${card.id}"]`);
    if (link) link.closest("tr").hidden = card.hidden;
  }
  for (const row of document.querySelectorAll("table.history tbody tr")) {
    row.hidden = !has(row.querySelector("td").textContent);
  }
  document.getElementById("shown").value = active ? `${shown} of ${total} keys` : "";
};
for (const control of [filter, health]) control.addEventListener("input", apply);
filter.form.addEventListener("submit", (event) => event.preventDefault());

const ago = (seconds) => {
  if (seconds < -300) return "in the future";
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
