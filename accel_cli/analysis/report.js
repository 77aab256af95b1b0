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

for (const chart of document.querySelectorAll("svg.chart")) {
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
