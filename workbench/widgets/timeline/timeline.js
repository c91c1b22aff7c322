// A timeline on a canvas. Python sends the marks of a window as columns; until they come, the ones at hand are moved
// and scaled, so that every gesture shows at once. Names come from others: they are drawn as text, never as HTML.

const LEAST_NS = 20;          // the narrowest view
const AHEAD = 0.25;           // of a view's length, fetched on either side for the next pan
const SETTLED_MS = 250;       // without a gesture, until tables follow the view
const LOST_MS = 6000;         // without an answer, until that is said

function render({ model, el }) {
  const root = document.createElement("div");
  root.className = "wb wb-timeline";
  root.tabIndex = 0;
  root.dataset.lmSuppressShortcuts = "true";  // JupyterLab would take the letters for its own
  root.setAttribute("role", "application");
  root.setAttribute("aria-label", "Timeline: W and S zoom, A and D pan, N and P go from mark to mark, J and K between " +
    "lanes, Home shows all, Escape unpicks");
  const canvas = root.appendChild(document.createElement("canvas"));
  const tip = root.appendChild(document.createElement("div"));
  tip.className = "wb-tip";
  tip.hidden = true;
  const status = root.appendChild(document.createElement("div"));
  status.className = "wb-status";
  status.setAttribute("aria-live", "polite");
  el.appendChild(root);
  const context = canvas.getContext("2d");

  let view = [...model.get("view")], marks = null, width = 0, laneHeight = 20;
  let asked = 0, open = null, again = false, since = null, fresh = null, frame = 0, settling = 0, losing = 0;
  let drag = null, cursor = null, theme = {};
  const lanes = () => model.get("lanes");
  const plot = () => Math.max(width - GUTTER, 1);
  const scale = () => plot() / (view[1] - view[0]);
  const timeAt = (x) => view[0] + (x - GUTTER) / scale();

  function readTheme() {
    const style = getComputedStyle(root), quiet = getComputedStyle(status).color;
    theme = { text: style.color, quiet, line: "rgba(128,128,128,.28)",
      band: "rgba(128,128,128,.07)", font: style.fontFamily };
    draw();
  }

  function resize() {
    width = root.clientWidth;
    if (!width) return;
    laneHeight = Math.min(24, Math.max(11, Math.floor(480 / Math.max(lanes().length, 1))));
    const height = TOP + laneHeight * Math.max(lanes().length, 1) + AXIS, ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.height = `${height}px`;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    readTheme();  // colours are known once the place is on the page
    paint();
    ask();
  }

  // asking for marks

  function ask() {
    if (open !== null) { again = true; return; }
    const ahead = (view[1] - view[0]) * AHEAD;
    open = ++asked;
    again = false;
    const shown = since;
    since = null;
    model.send({ type: "window", id: open, start: Math.floor(view[0] - ahead), end: Math.ceil(view[1] + ahead),
      pixels: Math.round(plot() * (1 + 2 * AHEAD)) });
    fresh = { event: shown, asked: performance.now() };
    clearTimeout(losing);
    losing = setTimeout(() => {
      open = null;
      status.textContent = "The kernel does not answer: what is drawn may be out of date.";
    }, LOST_MS);
  }

  function receive(message, buffers) {
    if (message.type === "refresh") { open = null; ask(); return; }
    if (message.type !== "marks" || message.id !== open) return;
    clearTimeout(losing);
    status.textContent = "";
    open = null;
    const types = [Float64Array, Float64Array, Uint16Array, Int32Array, Uint8Array, Int32Array, Float32Array, Uint8Array];
    const [start, end, lane, name, kind, count, busy, flags] = types.map((type, at) => column(buffers[at], type));
    marks = { start, end, lane, name, kind, count, busy, flags, names: message.names };
    const told = { ...fresh, arrived: performance.now(), marks: start.length };
    draw(told);
    if (again) ask();
  }

  function look(start, end, event) {
    const whole = model.get("span"), all = Math.max(whole[1] - whole[0], LEAST_NS);
    const length = Math.min(Math.max(end - start, LEAST_NS), 1.2 * all);
    const middle = Math.min(Math.max((start + end) / 2, whole[0] - length * 0.4), whole[1] + length * 0.4);
    view = [middle - length / 2, middle + length / 2];
    if (event) since ??= event.timeStamp;
    draw();
    ask();
    clearTimeout(settling);
    settling = setTimeout(() => {
      model.set("view", view.map(Math.round));
      model.save_changes();
    }, SETTLED_MS);
  }

  const zoom = (factor, at, event) => look(at - (at - view[0]) * factor, at + (view[1] - at) * factor, event);
  const pan = (part, event) => look(view[0] + part * (view[1] - view[0]), view[1] + part * (view[1] - view[0]), event);

  function whole(event) {
    const [start, end] = model.get("span");
    look(start - (end - start) * 0.01, end + (end - start) * 0.01, event);
  }

  // drawing

  let told = null;
  function draw(news) {
    told = news ?? told;
    if (!frame) frame = requestAnimationFrame(() => { frame = 0; paint(); });
  }

  function paint() {
    const height = TOP + laneHeight * lanes().length, place = { context, theme, view, width, laneHeight, height };
    context.clearRect(0, 0, width, height + AXIS);
    context.font = `11px ${theme.font}`;
    context.textBaseline = "middle";
    lanes().forEach((lane, at) => {
      const y = TOP + at * laneHeight;
      if (at % 2) { context.fillStyle = theme.band; context.fillRect(0, y, width, laneHeight); }
      context.fillStyle = theme.text;
      context.fillText(fitted(lane.label, GUTTER - 10), 2, y + laneHeight / 2);
    });
    paintAxis(place);
    if (marks) paintMarks(place, marks, cursor, model.get("kinds"), model.get("selecting"));
    if (told) {
      root.dispatchEvent(new CustomEvent("wb-drawn", { detail: { ...told, drawn: performance.now(), view: [...view] } }));
      told = null;
    }
  }

  // marks under the pointer, and from the keyboard

  function markAt(x, y) {
    const lane = Math.floor((y - TOP) / laneHeight), at = timeAt(x), near = 2 / scale();
    let found = null;
    for (let each = 0; marks && x > GUTTER && each < marks.start.length; each++) {
      if (marks.lane[each] !== lane || marks.start[each] > at + near || marks.end[each] < at - near) continue;
      if (found === null || marks.start[each] >= marks.start[found] || marks.end[found] < at) found = each;
    }
    return found;
  }

  function lines(at) {
    const length = marks.end[at] - marks.start[at], kind = model.get("kinds")[marks.kind[at]];
    const name = marks.names[marks.name[at]], place = `from ${duration(Math.max(marks.start[at], 0))}`;
    if (marks.flags[at] & SINGLE) return [name, `${duration(length)}, ${place}`, kind.label];
    const share = Number((100 * marks.busy[at]).toPrecision(3));
    return [`${marks.count[at].toLocaleString("en")} in ${duration(length)}, ${share} % of it covered`,
      `most of it: ${name}`, place, kind.label];
  }

  function tell(words, x, y) {
    tip.replaceChildren(...words.filter(Boolean).map((each) => {
      const line = document.createElement("div");
      line.textContent = each.length > 160 ? `${each.slice(0, 100)}…${each.slice(-58)}` : each;
      return line;
    }));
    tip.hidden = false;
    tip.style.left = `${Math.max(0, Math.min(x + 14, width - tip.offsetWidth - 4))}px`;
    tip.style.top = `${y + 18}px`;
  }

  function hover(event) {
    const x = event.offsetX, y = event.offsetY, lane = lanes()[Math.floor((y - TOP) / laneHeight)];
    if (x < GUTTER && lane) {
      tell([lane.label, `${lane.count.toLocaleString("en")} intervals, busy ${duration(lane.busy_ns)}`], x, y);
      return;
    }
    const at = markAt(x, y);
    if (at === null) tip.hidden = true; else tell(lines(at), x, y);
  }

  function pick(at) {
    cursor = null;
    if (at === null) { model.send({ type: "unpick" }); tip.hidden = true; draw(); return; }
    model.send({ type: "pick", lane: marks.lane[at], start: marks.start[at], end: marks.end[at],
      name: marks.names[marks.name[at]], single: Boolean(marks.flags[at] & SINGLE) });
  }

  function step(along, across, event) {
    if (!marks || !marks.start.length) return;
    const middle = (view[0] + view[1]) / 2;
    const from = cursor === null ? { lane: 0, start: view[0] - 1 } : { lane: marks.lane[cursor], start: marks.start[cursor] };
    const lane = Math.min(Math.max(from.lane + across, 0), lanes().length - 1);
    const inLane = [...marks.lane.keys()].filter((at) => marks.lane[at] === lane);
    const next = across || cursor === null ? inLane.find((at) => marks.end[at] >= (cursor === null ? view[0] : from.start))
      : inLane[inLane.indexOf(cursor) + along];
    if (next === undefined) { if (across) { cursor = inLane.at(-1) ?? cursor; draw(); } return; }
    pick(next);
    cursor = next;
    if (marks.start[next] < view[0] || marks.start[next] > view[1]) {
      look(view[0] + marks.start[next] - middle, view[1] + marks.start[next] - middle, event);
    }
    tell(lines(next), GUTTER + (marks.start[next] - view[0]) * scale(), TOP + lane * laneHeight);
    draw();
  }

  const middle = () => (view[0] + view[1]) / 2;
  const KEYS = {
    w: (e) => zoom(0.7, middle(), e), s: (e) => zoom(1 / 0.7, middle(), e), a: (e) => pan(-0.2, e), d: (e) => pan(0.2, e),
    ArrowUp: (e) => KEYS.w(e), ArrowDown: (e) => KEYS.s(e), ArrowLeft: (e) => KEYS.a(e), ArrowRight: (e) => KEYS.d(e),
    Home: whole, Escape: () => pick(null), n: (e) => step(1, 0, e), p: (e) => step(-1, 0, e),
    j: (e) => step(0, 1, e), k: (e) => step(0, -1, e),
  };

  root.addEventListener("keydown", (event) => {
    const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    act(event);
  });
  canvas.addEventListener("wheel", (event) => {
    // a page that scrolls past the timeline must not get stuck in it
    if (!event.ctrlKey && !event.metaKey && !root.contains(document.activeElement)) return;
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 16 : 1;
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) pan((event.deltaX * lines) / plot(), event);
    else zoom(Math.exp(event.deltaY * lines * 0.002), timeAt(Math.max(event.offsetX, GUTTER)), event);
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    root.focus({ preventScroll: true });
    drag = { x: event.offsetX, view: [...view], moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drag) { hover(event); return; }
    drag.moved ||= Math.abs(event.offsetX - drag.x) > 3;
    if (!drag.moved) return;
    tip.hidden = true;
    const by = (drag.x - event.offsetX) / plot() * (drag.view[1] - drag.view[0]);
    look(drag.view[0] + by, drag.view[1] + by, event);
  });
  canvas.addEventListener("pointerup", (event) => {
    if (drag && !drag.moved) pick(markAt(event.offsetX, event.offsetY));
    drag = null;
  });
  canvas.addEventListener("pointercancel", () => { drag = null; });
  canvas.addEventListener("dblclick", (event) => {
    const at = markAt(event.offsetX, event.offsetY);
    if (at === null) return;
    const margin = (marks.end[at] - marks.start[at]) * 0.1;
    look(marks.start[at] - margin, marks.end[at] + margin, event);
  });
  root.addEventListener("pointerleave", () => { tip.hidden = true; });

  model.on("msg:custom", receive);
  const moved = () => { const [start, end] = model.get("view"); if (start !== Math.round(view[0]) ||
    end !== Math.round(view[1])) { view = [start, end]; cursor = null; draw(); ask(); } };
  const changed = () => { view = [...model.get("view")]; marks = null; cursor = null; open = null; resize(); };
  model.on("change:view", moved);
  model.on("change:lanes", changed);
  model.on("change:selecting", () => draw());
  const watching = new ResizeObserver(resize);
  watching.observe(root);
  const themed = new MutationObserver(readTheme);
  themed.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "data-jp-theme-name", "class"] });
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", readTheme);
  resize();
  return () => {
    watching.disconnect();
    themed.disconnect();
    dark.removeEventListener("change", readTheme);
    clearTimeout(settling);
    clearTimeout(losing);
    cancelAnimationFrame(frame);
    model.off("msg:custom", receive);
    model.off("change:view", moved);
    model.off("change:lanes", changed);
  };
}

export default { render };
