// The picture: lanes, time axis and marks on a canvas. `place` says where: its context, theme, view and sizes.

const GUTTER = 172, AXIS = 26, TOP = 4;
const LIT = 1, SINGLE = 2;

function fitted(text, room) {
  const letters = Math.floor(room / 5.9);
  return text.length <= letters ? text : letters < 4 ? "" : `${text.slice(0, letters - 1)}…`;
}

function paintAxis({ context, theme, view, width, height }) {
  const perNs = (width - GUTTER) / (view[1] - view[0]);
  const { places, text, base } = ticks(view[0], view[1], (width - GUTTER) / 110);
  context.textAlign = "center";
  places.forEach((at, which) => {
    const x = Math.round(GUTTER + (at - view[0]) * perNs) + 0.5;
    context.fillStyle = theme.line;
    context.fillRect(x, TOP, 1, height - TOP);
    context.fillStyle = theme.quiet;
    if (x < width - 18 && x > GUTTER + 18) context.fillText(text[which], x, height + AXIS / 2);
  });
  context.textAlign = "left";
  context.fillStyle = theme.quiet;
  context.fillText(base || "time since the first call", 2, height + AXIS / 2);
}

function paintMarks({ context, theme, view, width, laneHeight, height }, marks, cursor, kinds, selecting) {
  const perNs = (width - GUTTER) / (view[1] - view[0]), high = laneHeight - 4;
  context.save();
  context.beginPath();
  context.rect(GUTTER, 0, width - GUTTER, height);
  context.clip();
  for (let at = 0; at < marks.start.length; at++) {
    if (marks.end[at] < view[0] || marks.start[at] > view[1]) continue;
    const left = Math.max(GUTTER + (marks.start[at] - view[0]) * perNs, GUTTER - 2);
    const right = Math.min(GUTTER + (marks.end[at] - view[0]) * perNs, width + 2);
    const wide = Math.max(right - left - (right - left > 5 ? 1 : 0), 1);
    const y = TOP + marks.lane[at] * laneHeight + 2, kind = kinds[marks.kind[at]];
    const lit = !selecting || marks.flags[at] & LIT;
    // several intervals in one mark: the paler, the less of it they cover
    context.globalAlpha = (marks.flags[at] & SINGLE ? 1 : 0.35 + 0.65 * marks.busy[at]) * (lit ? 1 : 0.16);
    context.fillStyle = kind.colour;
    context.fillRect(left, y, wide, high);
    if (selecting && lit && wide > 3) {
      context.strokeStyle = theme.text;
      context.strokeRect(left + 0.5, y + 0.5, wide - 1, high - 1);
    }
    if (wide > 46 && high >= 11) {
      context.fillStyle = kind.on;
      context.fillText(fitted(marks.names[marks.name[at]], wide - 8), left + 4, y + high / 2);
    }
  }
  context.globalAlpha = 1;
  if (cursor !== null && cursor < marks.start.length) {
    const left = GUTTER + (marks.start[cursor] - view[0]) * perNs;
    context.strokeStyle = theme.text;
    context.lineWidth = 2;
    context.strokeRect(left - 1, TOP + marks.lane[cursor] * laneHeight + 1,
      Math.max((marks.end[cursor] - marks.start[cursor]) * perNs, 1) + 2, laneHeight - 2);
  }
  context.restore();
}

