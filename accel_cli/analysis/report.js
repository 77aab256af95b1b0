// Values under the pointer. The page is whole without it.
const readout = document.getElementById("readout");

function nearest(points, x) {
  return points.reduce((best, point) => (Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best));
}

function line(text, colour) {
  const row = document.createElement("div");
  if (colour !== undefined) {
    const key = document.createElement("i");
    key.className = `key run-${colour}`;
    row.append(key);
  }
  row.append(text);
  return row;
}

for (const chart of document.querySelectorAll("svg.chart[data-series]")) {
  const series = JSON.parse(chart.dataset.series).filter((one) => one.points.length);
  const box = chart.viewBox.baseVal;
  const cursor = document.createElementNS(chart.namespaceURI, "line");
  cursor.setAttribute("class", "cursor");

  chart.addEventListener("pointermove", (event) => {
    const place = chart.getBoundingClientRect();
    const x = ((event.clientX - place.left) / place.width) * box.width;
    const reaching = series.filter((one) => Math.max(...one.points.map((point) => point[0])) >= x - 12);
    const shown = (reaching.length ? reaching : series).map((one) => ({ ...one, point: nearest(one.points, x) }));
    const at = nearest(shown.map((one) => one.point), x);
    for (const [name, value] of [["x1", at[0]], ["x2", at[0]], ["y1", 12], ["y2", box.height - 44]]) {
      cursor.setAttribute(name, value);
    }
    chart.append(cursor);
    const rows = shown.map((one) => line(`${one.point[3]}${series.length > 1 ? `  ${one.label}` : ""}`, one.colour));
    readout.replaceChildren(line(`${at[2].toLocaleString("en")} ${chart.dataset.x}`), ...rows);
    readout.hidden = false;
    const left = Math.min(event.pageX + 16, document.documentElement.clientWidth - readout.offsetWidth - 8);
    readout.style.left = `${Math.max(8, left)}px`;
    readout.style.top = `${event.pageY + 16}px`;
  });
  chart.addEventListener("pointerleave", () => {
    cursor.remove();
    readout.hidden = true;
  });
}

// The head of a table that can be sorted: once upwards, once downwards; what has no value stays below.
for (const table of document.querySelectorAll("table.sortable")) {
  const value = (row, place) => {
    const cell = row.cells[place];
    return cell.dataset.order === undefined ? cell.textContent : Number(cell.dataset.order);
  };
  const empty = (one) => one === "" || one === "–";
  const before = (one, other) =>
    typeof one === "number" && typeof other === "number" ? one - other : String(one).localeCompare(String(other));

  for (const [place, head] of [...table.tHead.rows[0].cells].entries()) {
    head.querySelector("button")?.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [one, other] = [value(a, place), value(b, place)];
        if (empty(one) || empty(other)) return empty(one) - empty(other);
        return up ? before(one, other) : before(other, one);
      });
      table.tBodies[0].append(...rows);
    });
  }
}
