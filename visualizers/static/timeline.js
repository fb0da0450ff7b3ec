/* The clip's clock: frames, sound, stated windows, each latent's stated time joined to the time of its evidence, and
   the gap between the evidence of the pictures and of the sounds of each instant. */

const TRACK = {film: 52, wave: 40, gap: 8, dots: 76, links: 34, ticks: 20, dot: 10, sync: 12};
const SEEK_STEPS_S = {ArrowLeft: -0.5, ArrowDown: -0.5, ArrowRight: 0.5, ArrowUp: 0.5, Home: -Infinity, End: Infinity};
const UNDER_PX = 38; // a tick so near to the playhead's own time is hidden under it
const TICK_STEPS_S = [0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 3600];

class Timeline {
  constructor(onSeek, onPick) {
    this.film = el("div", "li-film", {title: "Click to go there, Shift and click to choose the nearest latent"});
    this.lanes = {wave: el("div", "li-lane"), stated: el("div", "li-lane"), evidence: el("div", "li-lane"), sync: el("div", "li-lane")};
    this.wave = this.lanes.wave;
    this.windows = el("div");
    this.links = svg("svg", {class: "li-links", "aria-hidden": "true"});
    this.sync = svg("svg", {class: "li-links li-sync", "aria-hidden": "true"});
    this.marks = el("div", "", {"aria-hidden": "true"});
    this.ticks = el("div", "li-ticks", {"aria-hidden": "true"});
    this.output = el("output");
    this.playhead = el("div", "li-playhead", {role: "slider", tabindex: "0", "aria-valuemin": "0", "aria-valuenow": "0",
      "aria-label": "position in the clip; arrow keys move, Enter chooses the nearest latent"}, this.output);
    this.track = el("div", "li-track", {}, this.film, ...Object.values(this.lanes), this.windows, this.links, this.sync,
      this.marks, this.ticks, this.playhead);
    this.labels = el("div", "li-labels", {"aria-hidden": "true"});
    this.legend = el("div", "li-legend");
    this.said = el("p", "li-said-sync li-small li-muted");
    this.node = el("section", "li-card li-timeline", {"aria-label": "timeline"},
      el("header", "", {}, el("h3", "", {}, "On the clip’s clock"), this.legend), this.labels, this.track, this.said);
    this.node.append(exportMenu(this.node, () => `timeline-block-${this.block + 1}`, () => this.rows()));
    this.time = 0;
    this.times = [];
    this.dots = [];
    this.listen(onSeek, onPick);
  }

  layout(instants) { // places of the lanes; the same throughout a run
    if (instants === this.instants) return;
    this.instants = instants;
    const {film, wave, gap, dots, links, ticks, sync} = TRACK;
    const heights = {wave, stated: dots, evidence: dots, sync: instants * sync + gap};
    const stated = film + wave + 2 * gap;
    const evidence = stated + dots + links;
    this.tops = {wave: film + gap, stated, evidence, sync: evidence + dots + gap};
    this.tops.ticks = this.tops.sync + heights.sync + 2;
    this.film.style.height = `${film}px`;
    for (const [name, lane] of Object.entries(this.lanes)) {
      lane.style.cssText = `top:${this.tops[name]}px;height:${heights[name]}px`;
    }
    this.ticks.style.top = `${this.tops.ticks}px`;
    this.playhead.style.height = `${this.tops.ticks + 2}px`;
    this.track.style.height = `${this.tops.ticks + ticks}px`;
    const label = (text, middle) => el("span", "", {style: `top:${middle}px`}, text);
    this.labels.replaceChildren(label("frames", film / 2), ...Object.entries({wave: "sound", stated: "stated time",
      evidence: "most similar", sync: "sync"}).map(([name, text]) => label(text, this.tops[name] + heights[name] / 2)));
  }

  listen(onSeek, onPick) {
    const at = (event) => {
      const box = this.track.getBoundingClientRect();
      return [((event.clientX - box.left) / box.width) * this.view.clip.duration_s, event.clientY - box.top];
    };
    const scrub = (event) => this.view && onSeek(at(event)[0]);
    this.track.addEventListener("pointerdown", (event) => {
      if (event.button || !this.view || event.target.closest("[data-slot]")) return;
      if (event.shiftKey) {
        event.preventDefault(); // no selection of text
        const [seconds, y] = at(event);
        return onPick(seconds, y < this.tops.wave ? "visual" : y < this.tops.stated ? "audio" : null);
      }
      this.track.setPointerCapture(event.pointerId);
      scrub(event);
    });
    this.track.addEventListener("pointermove", (event) => {
      if (this.track.hasPointerCapture(event.pointerId)) scrub(event);
    });
    this.playhead.addEventListener("keydown", (event) => {
      if (event.key === "Enter") return onPick(this.time, null);
      const step = SEEK_STEPS_S[event.key];
      if (step === undefined) return;
      event.preventDefault();
      onSeek(this.time + step);
    });
    this.resizing = new ResizeObserver(() => this.view && this.draw());
    this.resizing.observe(this.track);
  }

  update(view, media, block) {
    if (media !== this.media) this.drawnWidth = null;
    Object.assign(this, {view, media, block});
    this.layout(view.grid[0]);
    this.draw();
  }

  setTime(seconds, isLit = this.isLit) { // isLit: whether latents at this time are lit
    Object.assign(this, {time: seconds, isLit});
    const latents = this.view.blocks[this.block]?.latents ?? [];
    for (const [dot, slot] of this.dots) dot.classList.toggle("is-now", Boolean(isLit) && isNow(latents[slot], seconds));
    const {duration_s: duration} = this.view.clip;
    const share = Math.min(1, seconds / duration);
    for (const [tick, at] of this.times) tick.classList.toggle("is-under", Math.abs(this.x(at) - this.x(seconds)) < UNDER_PX);
    this.playhead.style.transform = `translateX(${share * this.track.clientWidth}px)`;
    this.playhead.classList.toggle("is-late", share > 0.95);
    setText(this.output, clock(seconds));
    this.playhead.setAttribute("aria-valuemax", duration);
    this.playhead.setAttribute("aria-valuenow", seconds.toFixed(2));
    this.playhead.setAttribute("aria-valuetext", clock(seconds));
  }

  x(seconds) {
    return Math.min(1, Math.max(0, seconds / this.view.clip.duration_s)) * this.track.clientWidth;
  }

  draw() {
    const width = this.track.clientWidth;
    if (!width) return;
    if (this.drawnWidth !== width) this.drawClip(width);
    this.drawnWidth = width;
    this.drawWindows();
    this.drawMarks();
    this.drawSync();
    this.drawLegend();
    this.setTime(this.time);
  }

  drawClip(width) { // what stays the same during a run: frames, sound, ticks
    const {clip} = this.view;
    const nothing = (text) => el("span", "li-nothing", {}, text);
    this.film.replaceChildren(...(clip.has_picture ? this.frames(width, clip.duration_s) : [nothing("no picture")]));
    this.wave.replaceChildren(clip.has_sound ? this.waveform(width, clip.duration_s) : nothing("no sound"));
    const step = TICK_STEPS_S.find((s) => this.x(s) >= 52) ?? 7200;
    const times = Array.from({length: Math.floor(clip.duration_s / step + 1e-6) + 1}, (_, i) => i * step);
    const text = (s) => (s < 60 && step >= 1 ? `${s} s` : clock(s));
    const shown = times.filter((s) => this.x(s) < width - 10);
    this.times = shown.map((s) => [el("span", "", {style: `left:${this.x(s)}px`}, text(s)), s]);
    this.ticks.replaceChildren(...this.times.map(([tick]) => tick));
  }

  frames(width, duration) {
    if (!this.media) return [];
    const count = Math.max(1, Math.round(width / (TRACK.film * this.media.aspect)));
    return Array.from({length: count}, (_, i) => this.media.image(((i + 0.5) / count) * duration));
  }

  waveform(width, duration) {
    const count = Math.floor(width / 3);
    const shapes = Array.from({length: this.media ? count : 0}, (_, i) =>
      [3 * i, 2, Math.max(1, 46 * this.media.loudness((i / count) * duration, ((i + 1) / count) * duration))]);
    return svg("svg", {viewBox: `0 0 ${width} 100`, preserveAspectRatio: "none", "aria-hidden": "true"},
      svg("path", {class: "li-wave", d: bars(shapes)}));
  }

  drawWindows() {
    const {windows: known = []} = this.view.truth ?? {};
    const truth = known.map(([start, end, modality]) => el("div", "li-window is-true", {"data-modality": modality,
      style: `left:${this.x(start)}px;width:${Math.max(2, this.x(end) - this.x(start))}px;top:0;height:${this.tops.ticks}px`}));
    this.windows.replaceChildren(...truth, ...this.view.blocks.map(({window: [start, end]}, b) => {
      const top = b === this.block ? 0 : this.tops.stated;
      const across = `left:${this.x(start)}px;width:${Math.max(2, this.x(end) - this.x(start))}px`;
      const down = `top:${top}px;height:${this.tops.ticks - top}px`;
      return el("div", `li-window${b === this.block ? " is-active" : ""}`, {style: `${across};${down}`});
    }));
  }

  drawLegend() {
    const keys = [["visual", "", "visual latent"], ["audio", "", "audio latent"], ["", "is-window", "stated window"]];
    if (this.view.truth?.windows.length) keys.push(["", "is-window is-true", "true window"]);
    if (this.view.has_null) keys.push(["", "is-none", "no evidence (p > 0.05)"]);
    this.legend.replaceChildren(...keys.map(([modality, kind, text]) =>
      el("span", "", {}, el("i", `li-key ${kind}`, {"data-modality": modality}), text)));
  }

  drawMarks() {
    const latents = this.view.blocks[this.block]?.latents ?? [];
    const stated = this.places(this.tops.stated, latents, (z) => z.time_s);
    const middle = (match) => (match ? (match.start_s + match.end_s) / 2 : null);
    const evidence = this.places(this.tops.evidence, latents, (z) => middle(z.matches[0]));
    const links = [];
    this.dots = [];
    latents.forEach((z, slot) => {
      const none = z.evidence === false || !z.matches.length ? " is-none" : "";
      const data = {"data-block": this.block, "data-slot": slot, "data-modality": z.modality};
      for (const place of [stated[slot], evidence[slot]]) {
        if (place) this.dots.push([el("i", `li-dot${none}`, {...data, style: `left:${place[0]}px;top:${place[1]}px`}), slot]);
      }
      if (!evidence[slot]) return;
      const [[x0, y0], [x1, y1]] = [stated[slot], evidence[slot]];
      const bend = (y1 - y0) * 0.45;
      const curve = `M${x0} ${y0 + 5}C${x0} ${y0 + bend} ${x1} ${y1 - bend} ${x1} ${y1 - 5}`;
      links.push(svg("path", {class: none, ...data, d: curve}));
    });
    this.marks.replaceChildren(...this.dots.map(([dot]) => dot));
    this.links.replaceChildren(...links);
  }

  /* Latents of one modality and moment stand in columns around it, pictures above sounds. */
  places(top, latents, seconds) {
    const groups = new Map();
    latents.forEach((z, slot) => {
      if (seconds(z) === null) return;
      const key = `${z.modality} ${seconds(z)}`;
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push(slot);
    });
    const places = [];
    for (const slots of groups.values()) {
      const {modality} = latents[slots[0]];
      const [rows, above] = modality === "visual" ? [4, 0] : [2, 4 * TRACK.dot + 5];
      const columns = Math.ceil(slots.length / rows);
      slots.forEach((slot, i) => {
        const left = this.x(seconds(latents[slot])) + (Math.floor(i / rows) - (columns - 1) / 2) * (TRACK.dot + 1);
        const inside = Math.max(5, Math.min(this.track.clientWidth - 5, left));
        places[slot] = [inside, top + 10 + above + (i % rows) * TRACK.dot];
      });
    }
    return places;
  }

  drawSync() { // per instant: stated time, evidence of the pictures and of the sounds, the gap between them
    const sync = this.view.blocks[this.block]?.sync;
    const nodes = (sync?.instants ?? []).flatMap(({stated_s: [stated], evidence_s: [seen, heard], gap_s: gap}, i) => {
      const y = this.tops.sync + (i + 0.5) * TRACK.sync + TRACK.gap / 2;
      const x = (seconds) => this.x(seconds);
      const parts = stated === null ? [] : [svg("path", {class: "is-stated", d: `M${x(stated)} ${y - 5}v10`})];
      if (gap !== null) {
        const end = Math.max(x(seen), x(heard)) + 8;
        const room = end + 46 < this.track.clientWidth;
        const place = room ? {x: end} : {x: Math.min(x(seen), x(heard)) - 8, "text-anchor": "end"};
        parts.push(svg("path", {class: "is-gap", d: `M${x(seen)} ${y}H${x(heard)}`}), svg("text", {...place, y: y + 3.5}, signed(gap)));
      }
      if (seen !== null) parts.push(svg("rect", {x: x(seen) - 4, y: y - 4, width: 8, height: 8, rx: 2, "data-modality": "visual"}));
      if (heard !== null) parts.push(svg("circle", {cx: x(heard), cy: y, r: 3.5, "data-modality": "audio"}));
      return parts;
    });
    this.sync.replaceChildren(...nodes);
    setText(this.said, this.syncText(sync));
  }

  syncText(sync) {
    if (!this.view.blocks.length && !this.view.running) return "Sync: no latents, nothing to compare.";
    const measured = sync?.instants.filter(({gap_s}) => gap_s !== null) ?? [];
    if (!measured.length) return "Sync: no instant with evidence of both kinds yet; the gap would be pictures minus sounds.";
    const {median_s: median, resolution_s: least} = sync;
    const order = median === 0 ? "at the same time as" : `${Math.abs(median).toFixed(2)} s ${median < 0 ? "before" : "after"}`;
    return `Sync: pictures ${order} sounds, by what each latent is most similar to (median of ${measured.length} of `
      + `${sync.instants.length} instants). Under ${least.toFixed(2)} s, half a moment, a gap means nothing.`;
  }

  rows() { // one table: first the latents, then the instants of the sync lane
    const {instants = []} = this.view.blocks[this.block]?.sync ?? {};
    const [header, ...latents] = this.view.blocks.length ? latentRows(this.view, this.block) : [["block"]];
    const more = ["instant", "visual_evidence_s", "audio_evidence_s", "gap_s"];
    const empty = (columns) => columns.map(() => null);
    return [[...header, ...more], ...latents.map((row) => [...row, ...empty(more)]),
      ...instants.map(({evidence_s, gap_s}, i) => [...empty(header), i + 1, ...evidence_s, gap_s])];
  }
}

function signed(seconds) {
  return `${seconds < 0 ? "−" : "+"}${Math.abs(seconds).toFixed(2)} s`;
}
