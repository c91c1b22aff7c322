// Numbers, times and columns of the timeline. Python puts this before timeline.js: an anywidget is one module.

const UNITS = [["s", 1e9, 0], ["ms", 1e6, 0], ["µs", 1e3, 3], ["ns", 1, 6]];  // name, ns, decimals of a base in s

function column(view, Type) {
  // a copy: what the comm delivers need not lie on the boundary that a typed array asks for
  return new Type(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
}

function duration(ns) {
  const [name, size] = UNITS.find(([, each]) => ns >= each) ?? UNITS[3];
  return `${Number((ns / size).toPrecision(4)).toLocaleString("en")} ${name}`;
}

function ticks(start, end, most) {
  const rough = (end - start) / Math.max(most, 1), power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max([1, 2, 5, 10].find((each) => each * power >= rough) * power, 1);
  const [unit, size, digits] = UNITS.find(([, each]) => end - start >= each) ?? UNITS[3];
  const base = start / size >= 1000 ? Math.floor(start / (size * 1000)) * size * 1000 : 0;
  const places = [];
  for (let at = Math.ceil(start / step) * step; at <= end; at += step) places.push(at);
  const shown = Math.max(0, -Math.floor(Math.log10(step / size)));
  const text = places.map((at) => `${((at - base) / size).toFixed(shown)} ${unit}`);
  return { places, text, base: base ? `${(base / 1e9).toFixed(digits)} s +` : "" };
}
