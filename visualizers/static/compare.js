/* Compare: runs about one clip beside each other, on the clip's one clock, and the first against each other one. */

const LANE = {film: 44, wave: 30, run: 46, gap: 8, dot: 7, ticks: 20};
const SAID_WINDOW = /\[\d+\.\d-\d+\.\d s\]/g;
const NO_WINDOWS = "states no window";

class CompareView extends LatentView {
  build() {
    this.columns = el("div", "lv-columns");
    this.labels = el("div", "lv-lane-labels", {"aria-hidden": "true"});
    this.track = el("div", "lv-track");
    this.legend = el("div", "li-legend lv-legend");
    this.clockCard = card("On one clock", el("div", "lv-clock", {}, this.labels, this.track));
    this.clockCard.header.append(this.legend);
    this.differences = el("div", "lv-differences");
    this.body.append(this.columns, this.clockCard.node, this.differences);
    offerExport(this.clockCard.node, "compare", () => this.rows());
    this.track.addEventListener("click", (event) => this.onClick(event));
    this.track.addEventListener("pointerover", (event) => this.light(event.target.closest("[data-run]")));
    this.track.addEventListener("pointerleave", () => this.light(null));
    this.track.addEventListener("focusin", (event) => this.light(event.target.closest("[data-run]")));
    this.track.addEventListener("focusout", () => this.light(null));
    this.track.addEventListener("keydown", (event) => this.onKey(event));
  }

  draw() {
    const {runs} = this.value;
    this.columns.style.setProperty("--columns", runs.length);
    this.columns.replaceChildren(...runs.map((run) => this.column(run)));
    this.drawClock();
    this.differences.replaceChildren(...this.value.differences.map((difference) => this.difference(difference)));
  }

  column(run) {
    const fact = (name, text) => el("div", "", {}, el("dt", "", {}, name), el("dd", "", {}, text));
    const facts = [["tokens", run.tokens], ["latents", run.latents], ["first word", run.first_token_s === null ? "–" : `${run.first_token_s.toFixed(2)} s`], ["in all", `${run.seconds.toFixed(2)} s`]];
    const text = el("p", `lv-answer${run.running ? " li-running" : ""}`, {}, ...this.said(run.text || run.answer));
    return el("section", "li-card lv-column", {"aria-label": run.name}, el("h3", "", {}, run.name), text,
      el("dl", "lv-facts", {}, ...facts.map(([name, value]) => fact(name, String(value)))));
  }

  said(text) { // windows that the text names stand out
    const parts = [];
    let from = 0;
    for (const found of text.matchAll(SAID_WINDOW)) {
      parts.push(text.slice(from, found.index), el("mark", "", {}, found[0].slice(1, -1).replace("-", "–")));
      from = found.index + found[0].length;
    }
    return [...parts, text.slice(from)];
  }

  /* ---- the clock ---- */
  share(seconds) {
    return `${(100 * Math.min(1, Math.max(0, seconds / this.value.clip.duration_s))).toFixed(3)}%`;
  }

  drawClock() {
    const {clip, runs} = this.value;
    const film = clip.has_picture && this.media ? LANE.film + LANE.gap : 0;
    const wave = clip.has_sound && this.media ? LANE.wave + LANE.gap : 0;
    const top = (r) => film + wave + r * (LANE.run + LANE.gap);
    const height = top(runs.length) + LANE.ticks - LANE.gap;
    const label = (text, middle) => el("span", "", {style: `top:${middle}px`}, text);
    this.track.style.height = `${height}px`;
    this.labels.style.height = `${height}px`;
    this.labels.replaceChildren(...(film ? [label("frames", LANE.film / 2)] : []), ...(wave ? [label("sound", film + LANE.wave / 2)] : []),
      ...runs.map((run, r) => label(run.name, top(r) + LANE.run / 2)));
    this.track.replaceChildren(...(film ? [this.film()] : []), ...(wave ? [this.wave(film)] : []),
      ...runs.map((run, r) => this.lane(run, r, top(r))), this.ticks(height - LANE.ticks + 3));
    const keys = [["visual", "", "visual latents"], ["audio", "", "audio latents"], ["", "is-window", "stated window"]];
    if (runs.some((run) => run.has_null)) keys.push(["", "is-none", "no evidence"]);
    this.legend.replaceChildren(...keys.map(([modality, kind, text]) => el("span", "", {}, el("i", `li-key ${kind}`, {"data-modality": modality}), text)));
  }

  film() {
    const {clip} = this.value;
    const count = Math.max(1, Math.round(this.trackWidth / (LANE.film * this.media.aspect)));
    const images = Array.from({length: count}, (_, i) => this.media.image(((i + 0.5) / count) * clip.duration_s));
    return el("div", "li-film", {style: `height:${LANE.film}px`}, ...images);
  }

  get trackWidth() {
    return this.track.clientWidth || this.width;
  }

  wave(top) {
    const count = Math.floor(this.trackWidth / 3);
    const {duration_s: duration} = this.value.clip;
    const shapes = Array.from({length: count}, (_, i) => [3 * i, 2, Math.max(1, 46 * this.media.loudness((i / count) * duration, ((i + 1) / count) * duration))]);
    return el("div", "li-lane", {style: `top:${top}px;height:${LANE.wave}px`}, svg("svg", {viewBox: `0 0 ${3 * count} 100`, preserveAspectRatio: "none", "aria-hidden": "true"}, svg("path", {class: "li-wave", d: bars(shapes)})));
  }

  lane(run, r, top) {
    const windows = run.windows.map(([start, end]) => el("div", "li-window is-active", {style: `left:${this.share(start)};width:calc(${this.share(end)} - ${this.share(start)});top:0;height:100%`}));
    const nothing = run.windows.length ? [] : [el("span", "li-nothing", {}, run.running ? "…" : NO_WINDOWS)];
    return el("div", "li-lane lv-run", {style: `top:${top}px;height:${LANE.run}px`, "aria-label": `${run.name}: ${run.windows.map((w) => `window ${span(...w)}`).join(", ") || NO_WINDOWS}`, role: "group"},
      ...windows, ...nothing, ...this.dots(run, r));
  }

  dots(run, r) { // stacks of latents at the moments they are most similar to: pictures above, sounds below
    const counts = new Map();
    return run.blocks.flatMap(({latents}, block) => latents.flatMap((latent, slot) => {
      const best = latent.matches[0];
      if (!best) return [];
      const key = `${latent.modality} ${best.start_s} ${best.end_s}`;
      const n = counts.get(key) ?? 0;
      counts.set(key, n + 1);
      const [rows, above] = latent.modality === "visual" ? [3, 6] : [2, 29];
      const shift = Math.floor(n / rows) * (LANE.dot + 1);
      const none = latent.evidence === false ? " is-none" : "";
      const style = `left:calc(${this.share((best.start_s + best.end_s) / 2)} + ${shift}px);top:${above + (n % rows) * (LANE.dot + 1)}px`;
      const reach = {role: "button", tabindex: block || slot ? -1 : 0, "aria-label": describe(latent, slot, run.blocks[block]).join(", ")};
      return [el("i", `li-dot lv-mini${none}`, {"data-run": r, "data-block": block, "data-slot": slot, "data-modality": latent.modality, style, ...reach})];
    }));
  }

  ticks(top) {
    const {duration_s: duration} = this.value.clip;
    const step = TICK_STEPS_S.find((s) => (s / duration) * this.trackWidth >= 52) ?? 7200;
    const times = Array.from({length: Math.floor(duration / step + 1e-6) + 1}, (_, i) => i * step).filter((s) => s / duration < 0.98);
    return el("div", "li-ticks", {style: `top:${top}px`, "aria-hidden": "true"}, ...times.map((s) => el("span", "", {style: `left:${this.share(s)}`}, step >= 1 && s < 60 ? `${s} s` : clock(s))));
  }

  onKey(event) { // one latent of a lane is reached by Tab, the arrow keys move on, Enter chooses
    const dot = event.target.closest("[data-run]");
    const dots = dot ? [...dot.parentNode.querySelectorAll("[data-run]")] : [];
    const next = dots[Math.min(dots.length - 1, Math.max(0, dots.indexOf(dot) + (MAP_KEYS[event.key] ?? 0)))];
    if (!dot || (next === dot && event.key !== "Enter" && event.key !== " ")) return;
    event.preventDefault();
    if (next === dot) return this.choose(dot);
    dot.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }

  onClick(event) {
    const dot = event.target.closest("[data-run]");
    const box = this.track.getBoundingClientRect();
    if (dot) this.choose(dot);
    else this.seek(((event.clientX - box.left) / box.width) * this.value.clip.duration_s);
  }

  choose(dot) {
    const [run, block, slot] = ["run", "block", "slot"].map((name) => Number(dot.dataset[name]));
    const {start_s} = this.value.runs[run].blocks[block].latents[slot].matches[0];
    this.seek(start_s);
    this.send("latent-select", {run, block, slot, start_s});
  }

  light(node) {
    const run = node && this.value.runs[node.dataset.run];
    if (!run) return this.describe(null);
    const [block, slot] = [run.blocks[node.dataset.block], Number(node.dataset.slot)];
    const latent = block.latents[slot];
    const picture = this.media && el("div", "li-view", {"data-modality": latent.modality}, ...this.media.moment(latent.modality, latent.matches[0]));
    if (picture && latent.modality === "visual") picture.style.aspectRatio = this.media.aspect;
    this.describe(node, [run.name, ...describe(latent, slot, block)], picture);
  }

  /* ---- differences ---- */
  difference({a, b, same_answer: isSame, same_ending: endsAlike, iou, windows, same_moment: moment, cosine, moments}) {
    const fact = (name, text) => el("div", "", {}, el("dt", "", {}, name), el("dd", "", {}, text));
    const name = (window) => (window ? span(...window) : "none");
    const shown = windows.map(([one, other]) => (name(one) === name(other) ? name(one) : `${name(one)} / ${name(other)}`)).join(", ");
    const facts = el("dl", "lv-facts", {}, fact("text", isSame ? "the same" : "differs"),
      ...(isSame ? [] : [fact("last sentence", endsAlike ? "the same" : "differs")]), fact("windows", shown || "none"),
      ...(iou.length ? [fact("overlap of windows (IoU)", iou.map((v) => v.toFixed(2)).join(", "))] : []),
      ...(moment === null ? [] : [fact("latents most similar to the same moment", percent(moment))]));
    const grid = cosine.map((row, s) => el("div", "lv-cosines", {role: "img", "aria-label": `block ${s + 1}: cosines ${row.map((v) => v ?? "none").join(", ")}`},
      el("span", "li-small li-muted", {}, `block ${s + 1}`), ...row.map((v, k) => this.cosine(v, k, moments[s][k]))));
    const note = el("p", "li-note", {}, "Each cell is a latent: the cosine of the two runs’ vectors, slot by slot.");
    const made = card(`${a} and ${b}`, facts, ...(grid.length ? [...grid, note] : []));
    const rows = () => [["block", "latent", "cosine", "start_a_s", "start_b_s"], ...cosine.flatMap((row, s) => row.map((v, k) => [s + 1, k + 1, v ?? "", ...moments[s][k].map((t) => t ?? "")]))];
    offerExport(made.node, "difference", rows);
    return made.node;
  }

  cosine(value, slot, [one, other]) {
    const at = (seconds) => (seconds === null ? "no moment" : clock(seconds));
    const title = value === null ? "only one run has this latent" : `latent ${slot + 1}: cosine ${value.toFixed(2)}, most similar to ${at(one)} / ${at(other)}`;
    return el("i", "lv-cosine", {style: `--heat:${Math.max(0, value ?? 0)}`, title}, value === null ? "–" : value.toFixed(2));
  }

  rows() {
    const lines = this.value.runs.flatMap((run) => run.blocks.flatMap(({window, latents}, b) => latents.map((z, k) =>
      [run.name, b + 1, k + 1, z.modality, ...window, z.matches[0]?.start_s ?? "", z.matches[0]?.end_s ?? "", z.p ?? ""])));
    return [["run", "block", "latent", "modality", "window_start_s", "window_end_s", "similar_start_s", "similar_end_s", "p"], ...lines];
  }
}

VIEWS.compare = CompareView;
