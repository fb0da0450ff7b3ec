/* Attention: two charts over the steps of an answer, never their sum, and where on the clip it falls. */

const CHART = {height: 92, gap: 30, left: 14, labels: 46, least_label_px: 11};
const CHARTS = [["direct", "even_direct", "directly on the clip"], ["via_latents", "even_via_latents", "by way of latents"]];
const GROUPS = {text: "words", window: "windows", latent: "latents"};
const MEAN = "mean";

/* Numbers packed by visualizers/attention.py; `at(...)` reads one. */
class Packed {
  constructor({shape, top, data}) {
    Object.assign(this, {shape, top});
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    this.numbers = new Uint16Array(bytes.buffer);
  }

  rows(...index) { // what stands at the first indices, flat, as shares
    const size = this.shape.slice(index.length).reduce((a, b) => a * b, 1);
    const first = index.reduce((sum, i, axis) => sum * this.shape[axis] + i, 0) * size;
    return Array.from(this.numbers.subarray(first, first + size), (n) => (n / 65535) * this.top);
  }
}

function mean(lists) { // element by element
  return lists[0].map((_, i) => lists.reduce((sum, list) => sum + list[i], 0) / lists.length);
}

class AttentionView extends LatentView {
  build() {
    Object.assign(this, {layer: MEAN, step: null, group: null});
    this.layers = el("select", "lv-select", {"aria-label": "layer"});
    this.layers.addEventListener("change", () => this.redrawWith({layer: this.layers.value}));
    this.readout = el("p", "lv-readout", {"aria-live": "polite"});
    this.plot = svg("svg", {class: "lv-chart", role: "slider", tabindex: 0, "aria-label": "step of the answer", "aria-valuemin": 1});
    this.charts = card("Attention, step by step", this.readout, this.plot);
    this.charts.header.append(this.layers, el("div", "li-legend lv-legend", {},
      el("span", "", {}, el("i", "lv-line"), "share of the step’s attention"), el("span", "", {}, el("i", "lv-line is-even"), "were it spread evenly")));
    this.groups = new Choice("steps", (group) => this.redrawWith({group}));
    this.film = el("div", "lv-film");
    this.lane = el("div", "lv-lane");
    this.scale = el("p", "li-note");
    this.heat = card("Where on the clip", this.film, this.lane, this.scale);
    this.heat.header.append(this.groups.node);
    this.body.append(this.charts.node, this.heat.node);
    offerExport(this.charts.node, "attention", () => this.rows());
    offerExport(this.heat.node, "attention-on-the-clip", () => this.heatRows());
    this.listen();
  }

  listen() {
    const stepAt = (event) => {
      const box = this.plot.getBoundingClientRect();
      const i = Math.floor(((event.clientX - box.left - CHART.left) / (box.width - CHART.left)) * this.value.steps.length);
      return Math.min(this.value.steps.length - 1, Math.max(0, i));
    };
    this.plot.addEventListener("pointermove", (event) => this.value && this.read(stepAt(event)));
    this.plot.addEventListener("pointerleave", () => this.value && this.read(this.step));
    this.plot.addEventListener("click", (event) => this.value && this.choose(stepAt(event)));
    this.plot.addEventListener("keydown", (event) => {
      const step = MAP_KEYS[event.key];
      if (!step || !this.value) return;
      event.preventDefault();
      const last = this.value.steps.length - 1;
      this.choose(Math.min(last, Math.max(0, this.step === null ? (step > 0 ? 0 : last) : this.step + step)));
    });
    const seek = (event) => {
      const at = event.target.closest("[data-seek]");
      if (at) this.seek(Number(at.dataset.seek));
    };
    this.heat.node.addEventListener("click", seek);
  }

  update(value) {
    if (value !== this.value) {
      this.packed = {frames: new Packed(value.frames), sounds: new Packed(value.sounds), cells: {}};
      for (const [group, values] of Object.entries(value.cells)) this.packed.cells[group] = new Packed(values);
      Object.assign(this, {step: null, group: null});
      if (this.layer !== MEAN && this.layer >= value.direct.length) this.layer = MEAN;
    }
    super.update(value);
  }

  redrawWith(changes) {
    Object.assign(this, changes);
    this.draw();
  }

  ofLayer(values) { // the chosen layer's, or the mean over all
    return this.layer === MEAN ? mean(values) : values[this.layer];
  }

  draw() {
    const {value} = this;
    const names = [[MEAN, "mean of layers"], ...value.direct.map((_, i) => [i, `layer ${i + 1}`])];
    this.layers.replaceChildren(...names.map(([key, text]) => el("option", "", {value: key, ...(String(key) === String(this.layer) ? {selected: ""} : {})}, text)));
    const here = Object.keys(GROUPS).filter((group) => value.steps.some((step) => step.group === group));
    const chosen = this.step === null ? [] : [["step", `step ${this.step + 1}`]];
    if (!here.includes(this.group) && !(this.group === "step" && chosen.length)) this.group = this.telling(here);
    this.groups.set([...here.map((group) => [group, GROUPS[group]]), ...chosen], this.group);
    this.drawCharts();
    this.read(this.step);
    this.drawHeat();
  }

  telling(groups) { // the first group that sees the clip directly
    const sees = (group) => this.value.steps.some((step, i) => step.group === group && this.value.direct.some((layer) => layer[i] > 0));
    return groups.find(sees) ?? groups[0];
  }

  drawCharts() {
    const {steps} = this.value;
    const width = this.width - 34;
    const each = (width - CHART.left) / steps.length;
    const bottom = 2 * CHART.height + 2 * CHART.gap;
    const isLabelled = each >= CHART.least_label_px;
    const height = bottom + (isLabelled ? CHART.labels : 16);
    this.x = (i) => CHART.left + i * each;
    this.cursor = svg("rect", {class: "lv-cursor", y: CHART.gap - 4, height: bottom - CHART.gap + 4, width: each});
    this.plot.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.plot.style.height = `${height}px`;
    this.plot.setAttribute("aria-valuemax", steps.length);
    this.plot.replaceChildren(...this.bands(each, bottom), this.cursor, ...CHARTS.flatMap((chart, c) => this.chart(chart, c, width)),
      ...(isLabelled ? this.labels(each, bottom) : []));
  }

  bands(each, bottom) { // behind the steps of latent blocks
    const bands = [];
    this.value.steps.forEach(({group, block}, i, all) => {
      if (group === "text") return;
      const isFirst = all[i - 1]?.group !== group || all[i - 1]?.block !== block;
      if (isFirst) bands.push({group, block, from: i, to: i});
      bands.at(-1).to = i;
    });
    return bands.flatMap(({group, block, from, to}) => [
      svg("rect", {class: `lv-band is-${group}`, x: this.x(from), y: CHART.gap, width: (to - from + 1) * each, height: bottom - CHART.gap}),
      ...(group === "latent" && (to - from + 1) * each > 54 ? [svg("text", {class: "lv-small", "text-anchor": "middle", x: this.x((from + to + 1) / 2), y: bottom + 14}, `latents ${block + 1}`)] : []),
    ]);
  }

  chart([share, even, title], c, width) {
    const [values, evens] = [this.ofLayer(this.value[share]), this.value[even]];
    const top = Math.max(0.02, ...values, ...evens) * 1.08;
    const floor = (c + 1) * (CHART.height + CHART.gap);
    const y = (value) => floor - (value / top) * CHART.height;
    const line = (list) => list.map((v, i) => `${i ? "L" : "M"}${this.x(i).toFixed(1)} ${y(v).toFixed(1)}H${this.x(i + 1).toFixed(1)}`).join("");
    const text = (x, label, at, anchor = "start") => svg("text", {class: at ? "lv-small" : "lv-name", x, y: floor - CHART.height - (at ?? 10), "text-anchor": anchor}, label);
    return [
      svg("path", {class: "lv-axis", d: `M0 ${floor}H${width}`}),
      svg("path", {class: "lv-area", "data-share": share, d: `${line(values)}V${floor}H${CHART.left}Z`}),
      svg("path", {class: "lv-curve", "data-share": share, d: line(values)}),
      svg("path", {class: "lv-even", d: line(evens)}),
      text(0, title), text(width, `up to ${percent(Math.max(...values), 1)}`, 10, "end"),
    ];
  }

  labels(each, bottom) {
    return this.value.steps.map(({text, group}, i) => {
      if (group === "latent") return svg("g");
      const [x, y] = [this.x(i) + each / 2 + 3, bottom + 8];
      const shown = text.trim() || "·";
      return svg("text", {class: `lv-token is-${group}`, transform: `translate(${x} ${y}) rotate(-50)`, "text-anchor": "end"}, shown.length > 11 ? `${shown.slice(0, 10)}…` : shown);
    });
  }

  name(i) {
    const {text, group, block, slot} = this.value.steps[i];
    if (group === "latent") return `latent ${slot + 1} of block ${block + 1}`;
    return `${group === "window" ? `window of block ${block + 1}, ` : ""}“${text.trim() || "·"}”`;
  }

  read(i) { // the line above the charts, and the cursor
    const {value} = this;
    this.cursor.style.display = i === null ? "none" : "";
    if (i !== null) this.cursor.setAttribute("x", this.x(i));
    const said = (share, even) => `${percent(this.ofLayer(value[share])[i], 1)} (evenly ${percent(value[even][i], 1)})`;
    const line = i === null ? "Point at a step, or choose one, to read it." :
      `Step ${i + 1}, ${this.name(i)}: ${said("direct", "even_direct")} directly on the clip, ${said("via_latents", "even_via_latents")} by way of latents.`;
    setText(this.readout, line);
    this.plot.setAttribute("aria-valuenow", (i ?? 0) + 1);
    this.plot.setAttribute("aria-valuetext", line);
  }

  choose(i) {
    const isAgain = this.step === i && this.group === "step";
    Object.assign(this, isAgain ? {step: null, group: null} : {step: i, group: "step"});
    this.draw();
    const {block, slot, start_s} = this.value.steps[i];
    if (!isAgain && start_s !== null) this.send("latent-select", {block, slot, start_s});
  }

  /* Means over the steps of the chosen group, or the chosen step: per patch and cell, and per half second. */
  fallen() {
    const {steps, direct} = this.value;
    const layers = this.layer === MEAN ? direct.map((_, i) => i) : [Number(this.layer)];
    const chosen = this.group === "step" ? [this.step] : steps.flatMap(({group}, i) => (group === this.group ? [i] : []));
    const over = (packed) => mean(layers.flatMap((l) => chosen.map((q) => packed.rows(l, q))));
    const cells = this.packed.cells[this.group];
    const [rows, columns] = cells ? cells.shape.slice(2) : [1, 1];
    const pictures = cells ? mean(layers.map((l) => cells.rows(l))) : over(this.packed.frames);
    return {pictures, rows, columns, sounds: over(this.packed.sounds)};
  }

  drawHeat() {
    const {frame_spans_s: frames, sound_spans_s: halves} = this.value;
    const {pictures, rows, columns, sounds} = this.fallen();
    const tops = [Math.max(0, ...pictures), Math.max(0, ...sounds)];
    const size = rows * columns;
    this.film.replaceChildren(...frames.map((at, p) => this.frame(at, pictures.slice(p * size, (p + 1) * size), columns, tops[0])));
    this.lane.replaceChildren(...halves.map((at, s) => this.half(at, sounds[s], tops[1])), ...(halves.length && this.media ? [this.wave()] : []));
    const brightest = [["cell of a picture", frames.length && tops[0]], ["half second of sound", halves.length && tops[1]]];
    const said = brightest.filter(([, top]) => top).map(([name, top]) => `the strongest ${name} has ${percent(top, 1)}`).join(", ");
    setText(this.scale, said ? `Of a step’s attention, ${said}. Colour is relative to that.` : "None of it falls on the clip directly: under this attention flow only latents and windows see the clip.");
  }

  frame([start, end], shares, columns, top) {
    const cells = shares.map((share) => el("i", "", {style: `--heat:${top ? share / top : 0}`}));
    const sum = shares.reduce((a, b) => a + b, 0);
    const picture = el("span", "lv-cells", {style: `grid-template-columns:repeat(${columns},1fr);aspect-ratio:${this.media?.aspect ?? 16 / 9}`},
      ...(this.media ? [this.media.image((start + end) / 2 - 1e-3)] : []), ...cells);
    const label = `picture ${span(start, end)}, ${percent(sum, 1)} of a step’s attention; go there`;
    return el("button", "lv-frame", {type: "button", "data-seek": start, "aria-label": label, title: label.split(";")[0]},
      picture, el("small", "", {}, `${clock(start)}`, el("b", "", {}, percent(sum, 1))));
  }

  half([start, end], share, top) {
    const label = `sound ${span(start, end)}, ${percent(share, 1)} of a step’s attention; go there`;
    return el("button", "lv-half", {type: "button", "data-seek": start, "aria-label": label, title: label.split(";")[0], style: `--heat:${top ? share / top : 0}`});
  }

  wave() {
    const {duration_s: duration} = this.value.clip;
    const count = Math.floor((this.width - 34) / 3);
    const shapes = Array.from({length: count}, (_, i) => [3 * i, 2, Math.max(1, 44 * this.media.loudness((i / count) * duration, ((i + 1) / count) * duration))]);
    return svg("svg", {viewBox: `0 0 ${3 * count} 100`, preserveAspectRatio: "none", "aria-hidden": "true"}, svg("path", {d: bars(shapes)}));
  }

  rows() {
    const {steps, even_direct: direct, even_via_latents: via} = this.value;
    const [own, latents] = CHARTS.map(([share]) => this.ofLayer(this.value[share]));
    const lines = steps.map(({text, group, block, slot}, i) => [i + 1, text, group, block + 1 || "", slot === null ? "" : slot + 1, own[i], direct[i], latents[i], via[i]]);
    return [["step", "token", "kind", "block", "latent", "direct", "even_direct", "via_latents", "even_via_latents"], ...lines];
  }

  heatRows() {
    const {pictures, rows, columns, sounds} = this.fallen();
    const cell = (share, i) => {
      const [patch, rest] = [Math.floor(i / (rows * columns)), i % (rows * columns)];
      return ["picture", ...this.value.frame_spans_s[patch], Math.floor(rest / columns) + 1, (rest % columns) + 1, share];
    };
    return [["kind", "start_s", "end_s", "row", "column", "share"], ...pictures.map(cell), ...sounds.map((share, s) => ["sound", ...this.value.sound_spans_s[s], "", "", share])];
  }
}

VIEWS.attention = AttentionView;
