// How long requests for lists took: the last, the median, and a line of the last forty.

const MOST = 40;
const SVG = "http://www.w3.org/2000/svg";
const times = [];

/** Note a time in milliseconds and show it. */
export function note(ms) {
  times.push(ms);
  if (times.length > MOST) times.shift();
  document.getElementById("latency").hidden = false;
  document.getElementById("last").textContent = `${spelled(ms)} ms`;
  document.getElementById("median").textContent = `median ${spelled(medianOf(times))} ms of ${times.length}`;
  draw(document.getElementById("spark"));
}

export const spelled = ms => (ms >= 100 ? ms.toFixed(0) : ms.toFixed(1));

export function medianOf(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function draw(svg) {
  const { width, height } = svg.viewBox.baseVal;
  const highest = Math.max(...times);
  const points = times.map((ms, at) => [
    width - 4 - ((times.length - 1 - at) * (width - 8)) / (MOST - 1),
    height - 3 - ((height - 6) * ms) / highest,
  ]);
  const line = document.createElementNS(SVG, "polyline");
  line.setAttribute("points", points.map(point => point.join()).join(" "));
  const dot = document.createElementNS(SVG, "circle");
  for (const [name, value] of [
    ["cx", points.at(-1)[0]],
    ["cy", points.at(-1)[1]],
    ["r", 2.6],
  ])
    dot.setAttribute(name, value);
  svg.replaceChildren(line, dot);
  svg.setAttribute("aria-label", `Latency of the last ${times.length} requests, up to ${spelled(highest)} ms`);
}
