// A table of any length: only the rows in view are asked for and held. Cells are drawn as text, never as HTML.

const ROW = 22, HEAD = 26, AROUND = 20, LOST_MS = 6000;

function render({ model, el }) {
  const grid = document.createElement("div");
  grid.className = "wb wb-grid";
  grid.tabIndex = 0;
  grid.dataset.lmSuppressShortcuts = "true";  // JupyterLab would take the arrows for its own
  grid.setAttribute("role", "grid");
  const head = grid.appendChild(document.createElement("div"));
  head.className = "head";
  head.setAttribute("role", "row");
  const body = grid.appendChild(document.createElement("div"));
  body.style.position = "relative";
  el.appendChild(grid);
  let rows = new Map(), asked = 0, losing = 0;
  const template = () => model.get("columns").map((column) => column.width).join(" ");

  function paintHead() {
    const [by, falling] = model.get("sort");
    head.style.gridTemplateColumns = template();
    head.replaceChildren(...model.get("columns").map((column, at) => {
      const button = document.createElement("button");
      button.textContent = column.label + (at === by ? (falling ? " ▾" : " ▴") : "");
      button.title = `${column.label}: sort`;
      button.className = column.number ? "number" : "";
      button.setAttribute("role", "columnheader");
      button.addEventListener("click", () => model.send({ type: "sort", column: at }));
      return button;
    }));
  }

  function visible() {
    const first = Math.max(Math.floor(grid.scrollTop / ROW) - AROUND, 0);
    return [first, Math.min(Math.ceil((grid.scrollTop + grid.clientHeight) / ROW) + AROUND, model.get("total"))];
  }

  function ask() {
    const [first, last] = visible();
    let missing = false;
    for (let at = first; at < last && !missing; at++) missing = !rows.has(at);
    if (missing) {
      model.send({ type: "rows", id: ++asked, start: first, stop: last });
      clearTimeout(losing);
      losing = setTimeout(() => { if (!rows.size) say("The kernel does not answer."); }, LOST_MS);
    }
    paint();
  }

  function say(words) {
    const line = document.createElement("div");
    line.className = "empty";
    line.textContent = words;
    body.style.height = "34px";
    body.replaceChildren(line);
  }

  function paint() {
    const total = model.get("total"), selected = model.get("selected");
    if (!total) { say(model.get("empty")); return; }
    body.style.height = `${total * ROW}px`;
    const [first, last] = visible(), drawn = [];
    for (let at = first; at < last; at++) {
      const held = rows.get(at);
      if (!held) continue;
      const [id, ...cells] = held, row = document.createElement("div");
      row.className = "row";
      row.style.top = `${at * ROW}px`;
      row.style.gridTemplateColumns = template();
      row.setAttribute("role", "row");
      row.setAttribute("aria-selected", String(id === selected));
      row.setAttribute("aria-rowindex", String(at + 1));
      cells.forEach((cell, which) => {
        const place = row.appendChild(document.createElement("span"));
        place.textContent = cell;
        place.title = cell;
        place.setAttribute("role", "gridcell");
        if (model.get("columns")[which].number) place.className = "number";
      });
      row.addEventListener("click", () => model.send({ type: "select", id }));
      drawn.push(row);
    }
    body.replaceChildren(...drawn);
  }

  function reveal(at) {
    if (at < 0) return;
    const top = at * ROW, room = grid.clientHeight - HEAD;
    if (top < grid.scrollTop || top + ROW > grid.scrollTop + room) grid.scrollTop = Math.max(0, top - room / 2);
  }

  function receive(message) {
    if (message.type !== "rows" || message.id !== asked) return;
    clearTimeout(losing);
    rows = new Map(message.rows.map((row, at) => [message.start + at, row]));
    paint();
  }

  const renewed = () => { rows = new Map(); paintHead(); ask(); };
  const chosen = () => { reveal(model.get("selected_at")); ask(); };
  grid.addEventListener("scroll", ask);
  grid.addEventListener("keydown", (event) => {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Escape") model.send({ type: "select", id: null });
    else if (steps === undefined || event.target !== grid) return;
    else model.send({ type: "step", by: Math.max(-1e9, Math.min(1e9, steps)) });
    event.preventDefault();
    event.stopPropagation();
  });
  grid.style.height = `${model.get("height")}px`;
  model.on("msg:custom", receive);
  model.on("change:version", renewed);
  model.on("change:selected", chosen);
  model.on("change:selected_at", chosen);
  const watching = new ResizeObserver(ask);
  watching.observe(grid);
  renewed();
  chosen();
  return () => {
    watching.disconnect();
    clearTimeout(losing);
    model.off("msg:custom", receive);
    model.off("change:version", renewed);
    model.off("change:selected", chosen);
    model.off("change:selected_at", chosen);
  };
}

export default { render };
