/* Elements, times as text, and what a moment of the clip looks or sounds like. No data is ever parsed as HTML. */

const SLICE = {near_s: 1, bars: 40}; // seconds of sound around a moment, bars that draw them
const LEAST_NOW_S = 0.2; // a shorter moment counts as this long when one asks what lies under the playhead
const PITCH_COLOURS = [[10, 12, 24], [60, 28, 92], [150, 44, 92], [232, 106, 44], [255, 226, 140]]; // silent to loud

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
  const digits = end - start < 0.15 ? 2 : 1; // an audio token lasts 0.04 s
  if (end < 60) return `${start.toFixed(digits)}–${end.toFixed(digits)} s`;
  if (end - start >= 1) return `${clock(start)}–${clock(end)}`;
  const exact = (seconds) => `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(digits).padStart(digits + 3, "0")}`;
  return `${exact(start)}–${exact(end)}`;
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

function isNow({evidence, matches: [best]}, seconds) { // the playhead stands in the moment it is most similar to
  if (!best || evidence === false) return false;
  const slack = Math.max(0, LEAST_NOW_S - (best.end_s - best.start_s)) / 2;
  return best.start_s - slack - 1e-3 <= seconds && seconds < best.end_s + slack - 1e-3;
}

function bytes(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

function decode({range: [low, high], codes}) { // numbers, null where there is none
  return Array.from(bytes(codes), (code) => (code ? low + ((high - low) * (code - 1)) / 254 : null));
}

function latentRows(view, b) { // the latents of a block as a table, for both the strip and the timeline
  const header = ["block", "slot", "modality", "row", "column", "stated_s", "start_s", "end_s", "score", "p", "evidence"];
  return [header, ...view.blocks[b].latents.map((z, slot) => {
    const best = z.matches[0] ?? {};
    const place = z.cell ? z.cell.map((n) => n + 1) : [null, null];
    return [b + 1, slot + 1, z.modality, ...place, z.time_s, best.start_s, best.end_s, best.score, z.p, z.evidence];
  })];
}

function box([top, left, bottom, right]) { // shares of the frame as a style
  const percent = (share) => `${(100 * share).toFixed(2)}%`;
  return `top:${percent(top)};left:${percent(left)};width:${percent(right - left)};height:${percent(bottom - top)}`;
}

/* The pictures and the sound of one clip. */
class ClipMedia {
  constructor(media, duration) {
    this.thumbnails = media.thumbnails;
    this.times = media.thumbnail_times_s;
    this.aspect = media.aspect;
    this.envelope = bytes(media.envelope);
    this.hz = media.envelope_hz;
    this.spectrogram = media.spectrogram ? {...media.spectrogram, levels: bytes(media.spectrogram.levels)} : null;
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

  pitches(start, end) { // the spectrogram of a stretch as a picture, dark outside the clip; null without one
    if (!this.spectrogram) return null;
    const {levels, hz, edges_hz: edges} = this.spectrogram;
    const bands = edges.length - 1;
    const first = Math.round(start * hz);
    const width = Math.max(1, Math.round(end * hz) - first);
    const canvas = el("canvas", "", {width, height: bands});
    const context = canvas.getContext("2d");
    const picture = context.createImageData(width, bands);
    for (let x = 0; x < width; x++) {
      for (let band = 0; band < bands; band++) {
        const level = first + x < 0 ? 0 : (levels[(first + x) * bands + band] ?? 0);
        picture.data.set([...pitchColour(level / 255), 255], 4 * ((bands - 1 - band) * width + x));
      }
    }
    context.putImageData(picture, 0, 0);
    const image = el("img", "", {alt: "spectrogram of the sound around the moment", draggable: "false"});
    image.src = canvas.toDataURL();
    return image;
  }
}

function pitchColour(share) {
  const place = share * (PITCH_COLOURS.length - 1);
  const i = Math.min(PITCH_COLOURS.length - 2, Math.floor(place));
  return PITCH_COLOURS[i].map((channel, k) => channel + (PITCH_COLOURS[i + 1][k] - channel) * (place - i));
}
