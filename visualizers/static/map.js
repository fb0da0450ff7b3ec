/* The map: moments of the clip small, latents large and joined in the order in which they were computed. */

const MAP = {margin: 22, latent: 6.5, moment: 3, least: 280, most: 460, share: 0.62};
const MAP_KEYS = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity};
const PALETTE = 6; // colours of blocks and runs in views.css

class MapView extends LatentView {
  build() {
    this.colour = "modality";
    this.choice = new Choice("colour by", (key) => this.recolour(key));
    this.legend = el("div", "li-legend lv-legend");
    this.plot = svg("svg", {class: "lv-map", role: "group"});
    this.caption = el("p", "li-note");
    this.progress = el("p", "lv-progress", {role: "status", hidden: ""}, el("progress", "", {max: 1, "aria-label": "progress of the map"}), el("span"));
    this.card = card("Latents and moments in one plane", this.progress, this.plot, this.caption);
    this.card.header.append(el("span", "li-small li-muted", {"aria-hidden": "true"}, "colour by"), this.choice.node, this.legend);
    this.body.append(this.card.node);
    offerExport(this.card.node, "map", () => this.rows());
    this.listen();
  }

  listen() {
    const on = (name, handler) => this.plot.addEventListener(name, handler);
    const at = (event) => event.target.closest("[data-latent], [data-moment]");
    on("click", (event) => this.choose(at(event)));
    on("pointerover", (event) => this.light(at(event)));
    on("pointerleave", () => this.light(null));
    on("focusin", (event) => this.light(at(event)));
    on("focusout", () => this.light(null));
    on("keydown", (event) => this.onKey(event));
    const follow = ({target, detail}) => this.root.contains(target) || this.mark(detail);
    document.addEventListener("latent-select", follow);
    this.unlisten = () => document.removeEventListener("latent-select", follow);
  }

  update(value) {
    this.progress.hidden = !value.progress;
    if (value.progress) {
      this.progress.firstChild.value = value.progress.share;
      setText(this.progress.lastChild, value.progress.text);
    }
    const isSame = value.latents && JSON.stringify([value.runs, value.latents.length]) === this.runsDrawn;
    this.runsDrawn = value.latents && JSON.stringify([value.runs, value.latents.length]);
    if (!isSame) this.chosen = null;
    if (value.latents) super.update({...value, clip: value.clip ?? this.clip(value)});
  }

  clip({clips}) {
    const [key, clip] = Object.entries(clips)[0] ?? [];
    return key && {key, duration_s: clip.duration_s};
  }

  recolour(key) {
    this.colour = key;
    this.draw();
  }

  draw() {
    const {value, width} = this;
    const inner = width - 34;
    this.height = Math.min(MAP.most, Math.max(MAP.least, inner * MAP.share));
    this.place(inner);
    this.drawHead();
    const focused = this.plot.contains(document.activeElement);
    this.near = svg("path", {class: "lv-near"});
    this.dots = value.latents.map((latent, i) => this.dot(latent, i));
    this.plot.setAttribute("viewBox", `0 0 ${inner} ${this.height}`);
    this.plot.setAttribute("aria-label", `${value.latents.length} latents among ${value.moments.length} moments; arrow keys move, Enter goes to the moment`);
    this.plot.style.height = `${this.height}px`;
    this.plot.replaceChildren(...this.axes(inner), ...value.moments.map((moment, i) => this.moment(moment, i)), ...this.paths(), this.near, ...this.dots);
    this.rove(Math.min(this.at ?? 0, this.dots.length - 1));
    this.mark(this.chosen);
    if (focused) this.dots[this.at]?.focus();
  }

  place(inner) { // one scale for both axes, everything inside
    const all = [...this.value.moments, ...this.value.latents];
    const [xs, ys] = [all.map((p) => p.x), all.map((p) => p.y)];
    const ends = (values) => [Math.min(...values), Math.max(...values)];
    const [[x0, x1], [y0, y1]] = [ends(xs), ends(ys)];
    const room = (size, low, high) => (size - 2 * MAP.margin) / Math.max(high - low, 1e-9);
    const scale = Math.min(room(inner, x0, x1), room(this.height, y0, y1));
    this.x = (x) => inner / 2 + (x - (x0 + x1) / 2) * scale;
    this.y = (y) => this.height / 2 - (y - (y0 + y1) / 2) * scale;
  }

  axes(inner) {
    const [x, y] = [this.x(0), this.y(0)];
    return [svg("path", {class: "lv-axis", d: `M0 ${y}H${inner}M${x} 0V${this.height}`})];
  }

  tone(point) { // the colour of a point as a style
    if (this.colour === "modality") return `--tone:var(--li-${point.modality})`;
    if (this.colour === "time") return `--tone:color-mix(in oklch, var(--lv-late) ${(100 * point.time_s) / this.duration(point)}%, var(--lv-early))`;
    const number = this.colour === "block" ? point.block : point.run;
    return number === undefined || (this.colour === "run" && point.slot === undefined) ? "--tone:var(--li-none)" : `--tone:var(--lv-${number % PALETTE})`;
  }

  duration({run}) {
    return this.value.clips[this.value.runs[run].clip].duration_s;
  }

  shape(point, size, attributes) {
    const [x, y] = [this.x(point.x), this.y(point.y)];
    const style = this.tone(point);
    if (point.modality === "audio") return svg("circle", {cx: x, cy: y, r: size, style, ...attributes});
    return svg("rect", {x: x - size * 0.9, y: y - size * 0.9, width: 1.8 * size, height: 1.8 * size, rx: size * 0.3, style, ...attributes});
  }

  moment(point, i) {
    return this.shape(point, MAP.moment, {class: "lv-moment", "data-moment": i});
  }

  dot(latent, i) {
    const none = latent.evidence === false || !latent.span_s ? " is-none" : "";
    return this.shape(latent, MAP.latent, {class: `lv-dot${none}`, "data-latent": i, role: "button", tabindex: -1, "aria-label": this.lines(latent).join(", ")});
  }

  paths() { // one line a run
    return this.value.runs.map((_, run) => {
      const steps = this.value.latents.filter((z) => z.run === run).map((z) => `${this.x(z.x).toFixed(1)} ${this.y(z.y).toFixed(1)}`);
      return svg("path", {class: "lv-path", d: steps.length ? `M${steps.join("L")}` : ""});
    });
  }

  drawHead() {
    const {runs, latents, method, explained} = this.value;
    const blocks = new Set(latents.map((z) => z.block));
    const options = [["modality", "modality"], ["time", "time"], ...(blocks.size > 1 ? [["block", "block"]] : []), ...(runs.length > 1 ? [["run", "run"]] : [])];
    if (!options.some(([key]) => key === this.colour)) this.colour = "modality";
    this.choice.set(options, this.colour);
    this.legend.replaceChildren(...this.keys(blocks));
    const pca = () => `PCA: the axes hold ${percent(explained[0])} and ${percent(explained[1])} of the variance. Near means similar by features; the rest of the variance is not seen.`;
    setText(this.caption, method === "pca" ? pca() : "UMAP: neighbours stay neighbours; distances between groups mean nothing.");
  }

  keys(blocks) {
    const key = (text, style = "", kind = "") => el("span", "", {}, el("i", `li-key ${kind}`, {style}), text);
    const last = key("moments of the clip", "transform:scale(.6);opacity:.5");
    if (this.colour === "time") {
      const end = Math.max(...Object.values(this.value.clips).map((clip) => clip.duration_s));
      return [el("span", "", {}, "0 s", el("i", "lv-ramp"), clock(end)), last];
    }
    const fill = (number) => `background:var(--lv-${number % PALETTE})`;
    if (this.colour === "block") return [...[...blocks].sort((a, b) => a - b).map((b) => key(`block ${b + 1}`, fill(b))), last];
    if (this.colour === "run") return [...this.value.runs.map((run, r) => key(this.name(r), fill(r))), last];
    const audio = key("audio latent");
    audio.firstChild.dataset.modality = "audio";
    return [key("visual latent"), audio, key("no evidence", "", "is-none"), last];
  }

  name(run) {
    return `${this.value.runs[run].name ?? this.value.runs[run].mode}${this.value.runs.length > 1 ? ` (run ${run + 1})` : ""}`;
  }

  lines(point) {
    const near = point.span_s ? `${span(...point.span_s)}` : "";
    if (point.slot === undefined) return [`${point.modality === "visual" ? "Picture" : "Sound"} of ${near}`];
    const certainty = point.p === null ? "no null: ranks only" : `p ${point.p}${point.evidence ? "" : ", no evidence"}`;
    const run = this.value.runs.length > 1 ? [this.name(point.run)] : [];
    return [near ? `Most similar to ${near}` : "The clip has nothing of this kind", certainty,
      `block ${point.block + 1}, ${point.modality} latent ${point.slot + 1}`, `stated at ${clock(point.time_s)}`, ...run];
  }

  light(node) {
    const {latent, moment} = node?.dataset ?? {};
    const point = latent === undefined ? this.value?.moments[moment] : this.value.latents[latent];
    this.near?.setAttribute("d", "");
    if (!point) return this.describe(null);
    const other = this.value.moments[point.near];
    if (other) this.near.setAttribute("d", `M${this.x(point.x)} ${this.y(point.y)}L${this.x(other.x)} ${this.y(other.y)}`);
    const isSeen = this.media && point.span_s && this.value.runs[point.run].clip === this.key;
    const match = isSeen && {start_s: point.span_s[0], end_s: point.span_s[1], box: point.box ?? [0, 0, 1, 1]};
    const picture = match && el("div", "li-view", {"data-modality": point.modality}, ...this.media.moment(point.modality, match));
    if (picture && point.modality === "visual") picture.style.aspectRatio = this.media.aspect;
    this.describe(node, this.lines(point), picture);
  }

  choose(node) {
    const {latent, moment} = node?.dataset ?? {};
    if (moment !== undefined) this.seek(this.value.moments[moment].span_s[0]);
    if (latent === undefined) return;
    const {block, slot, run, span_s, time_s} = this.value.latents[latent];
    this.rove(Number(latent));
    this.mark({block, slot, run});
    this.send("latent-select", {block, slot, run, start_s: span_s ? span_s[0] : time_s});
  }

  onKey(event) {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      return this.choose(event.target);
    }
    const step = MAP_KEYS[event.key];
    if (!step || !this.dots.length) return;
    event.preventDefault();
    this.rove(Math.min(this.dots.length - 1, Math.max(0, this.at + step)));
    this.dots[this.at].focus();
  }

  rove(i) { // one latent is reached by Tab; the arrow keys move on from there
    this.dots[this.at]?.setAttribute("tabindex", -1);
    this.at = Math.max(0, i);
    this.dots[this.at]?.setAttribute("tabindex", 0);
  }

  mark(chosen) { // {block, slot, run}, of the first run where none is named
    this.chosen = chosen ?? null;
    this.dots?.forEach((node, i) => {
      const {block, slot, run} = this.value.latents[i];
      const isChosen = chosen && block === chosen.block && slot === chosen.slot && run === (chosen.run ?? 0);
      node.classList.toggle("is-lit", Boolean(isChosen));
      node.setAttribute("aria-pressed", Boolean(isChosen));
    });
  }

  rows() {
    const row = (p) => [p.slot === undefined ? "moment" : "latent", p.modality, p.run + 1, (p.block ?? -1) + 1 || "", (p.slot ?? -1) + 1 || "", p.time_s, ...(p.span_s ?? ["", ""]), p.p ?? "", p.x, p.y];
    const head = ["kind", "modality", "run", "block", "latent", "time_s", "similar_start_s", "similar_end_s", "p", "x", "y"];
    return [head, ...[...(this.value?.moments ?? []), ...(this.value?.latents ?? [])].map(row)];
  }
}

VIEWS.map = MapView;
