/* Elements, times as text, and what a moment of the clip looks or sounds like. No data is ever parsed as HTML. */

const SLICE = {near_s: 1, bars: 40}; // seconds of sound around a moment, bars that draw them

function el(tag, className = "", attributes = {}, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function clock(seconds) {
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
}

function span(start, end) {
  return end < 60 ? `${start.toFixed(1)}–${end.toFixed(1)} s` : `${clock(start)}–${clock(end)}`;
}

/* Bars around the middle of a box of height 100: [left, width, half height] each. */
function bars(shapes) {
  return shapes.map(([x, w, h]) => `M${x} ${50 - h}h${w}v${2 * h}h${-w}z`).join("");
}

function certainty(latent, closed) {
  if (!latent.matches.length) return "the clip has nothing of this kind";
  if (latent.p === null) return "no null: ranks only";
  return `p ${latent.p}${closed ? "" : " so far"}${latent.evidence ? "" : ", no evidence"}`;
}

function describe(latent, slot, block) {
  const best = latent.matches[0];
  const place = latent.cell ? `, row ${latent.cell[0] + 1}, column ${latent.cell[1] + 1}` : "";
  return [
    ...(best ? [`Most similar to ${span(best.start_s, best.end_s)}`, `rank 1, score ${best.score.toFixed(2)}`] : []),
    certainty(latent, block.closed),
    `${latent.modality} latent ${slot + 1}${place}`,
    `stated at ${clock(latent.time_s)}`,
  ];
}

function box([top, left, bottom, right]) { // shares of the frame as a style
  const percent = (share) => `${(100 * share).toFixed(2)}%`;
  return `top:${percent(top)};left:${percent(left)};width:${percent(right - left)};height:${percent(bottom - top)}`;
}

/* The pictures and the sound curve of one clip. */
class ClipMedia {
  constructor(media, duration) {
    this.thumbnails = media.thumbnails;
    this.times = media.thumbnail_times_s;
    this.aspect = media.aspect;
    this.envelope = Uint8Array.from(atob(media.envelope), (c) => c.charCodeAt(0));
    this.hz = media.envelope_hz;
    this.duration = duration;
  }

  frameAt(seconds) {
    let i = this.times.length - 1;
    while (i > 0 && this.times[i] > seconds) i--;
    return this.thumbnails[i] ?? "";
  }

  loudness(start, end) { // peak, 0 to 1
    const first = Math.max(0, Math.floor(start * this.hz));
    const last = Math.min(this.envelope.length, Math.max(first + 1, Math.ceil(end * this.hz)));
    let peak = 0;
    for (let i = first; i < last; i++) peak = Math.max(peak, this.envelope[i]);
    return peak / 255;
  }

  image(seconds) {
    const image = el("img", "", {alt: "", draggable: "false"});
    image.src = this.frameAt(seconds);
    return image;
  }

  moment(modality, match) {
    return modality === "visual" ? this.region(match) : [this.slice(match)];
  }

  sign(modality, match) { // a small picture of where in the frame, or in the sound, a moment lies
    const inside = modality === "visual" ? el("i", "", {style: box(match.box)}) : this.slice(match);
    return el("span", "li-where", {"aria-hidden": "true"}, inside);
  }

  region(match) { // the frame, all but the matched cell dimmed
    const [top, left, bottom, right] = match.box;
    const isWhole = bottom - top > 0.99 && right - left > 0.99;
    const image = this.image((match.start_s + match.end_s) / 2 - 1e-3);
    return [image, el("span", isWhole ? "" : "li-box", {style: box(match.box)})];
  }

  slice({start_s, end_s}) { // the sound around the moment, the moment itself in full colour
    const half = Math.max(SLICE.near_s, (end_s - start_s) * 0.75);
    const from = (start_s + end_s) / 2 - half;
    const [around, inside] = [[], []];
    for (let i = 0; i < SLICE.bars; i++) {
      const [a, b] = [i, i + 1].map((edge) => from + (2 * half * edge) / SLICE.bars);
      if (b <= 0 || a >= this.duration) continue;
      const bar = [(i * 100) / SLICE.bars, 70 / SLICE.bars, Math.max(3, 50 * this.loudness(a, b))];
      (a >= start_s - 1e-6 && b <= end_s + 1e-6 ? inside : around).push(bar);
    }
    return svg("svg", {viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": "true"},
      svg("path", {class: "li-slice is-around", d: bars(around)}), svg("path", {class: "li-slice", d: bars(inside)}));
  }
}
