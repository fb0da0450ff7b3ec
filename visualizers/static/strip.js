/* The cells of the latent blocks. All cells of a block are there, empty, as soon as it opens: nothing moves later. */

const STEPS = {
  ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], Home: [-Infinity, 0], End: [Infinity, 0],
};

class Strips {
  constructor() {
    this.node = el("div", "li-blocks");
    this.blocks = [];
  }

  update(view, media) {
    const grid = String(view.grid);
    if (grid !== this.grid) this.blocks.splice(0).forEach((block) => block.node.remove());
    this.blocks.splice(view.blocks.length).forEach((block) => block.node.remove());
    if (media !== this.media) for (const {cells} of this.blocks) cells.forEach((cell) => (cell.drawn = null));
    Object.assign(this, {view, media, grid});
    while (this.blocks.length < view.blocks.length) this.blocks.push(this.build(this.blocks.length));
    view.blocks.forEach((block, b) => this.drawBlock(this.blocks[b], block));
  }

  build(b) {
    const [instants, rows, columns] = this.view.grid;
    const visual = instants * rows * columns;
    const cells = Array.from({length: visual + instants}, (_, slot) => {
      const modality = slot < visual ? "visual" : "audio";
      const data = {"data-modality": modality, "data-block": b, "data-slot": slot};
      return el("button", "li-cell", {type: "button", "aria-pressed": "false", ...data});
    });
    const times = Array.from({length: instants}, () => el("time"));
    const across = instants % 3 === 0 && instants % 4 ? 3 : Math.min(4, instants);
    const equal = (count) => `grid-template-columns:repeat(${count},minmax(0,1fr))`;
    const label = `latents of block ${b + 1}; arrow keys and a click go to the moment, Enter plays it`;
    const strip = el("div", "li-grid", {role: "group", style: equal(across), "aria-label": label},
      ...times.map((time, i) => el("div", "li-instant", {}, time,
        el("div", "li-pictures", {style: equal(columns)}, ...cells.slice(i * rows * columns, (i + 1) * rows * columns)),
        cells[visual + i])));
    const [state, facts] = [el("span", "li-small li-muted"), el("p", "li-facts")];
    const title = el("header", "", {}, el("h3", "", {}, `Latent block ${b + 1}`), state);
    const node = el("article", "li-card li-block", {"aria-label": `latent block ${b + 1}`}, title, facts, strip);
    node.append(exportMenu(node, `latent-block-${b + 1}`, () => latentRows(this.view, b)));
    this.node.append(node);
    return {node, cells, state, facts, times};
  }

  drawBlock(shown, block) {
    const {latents, window: [start, end]} = block;
    const isOpen = !block.closed && this.view.running;
    const tested = latents.filter((z) => z.p !== null);
    const found = tested.filter((z) => z.evidence).length;
    if (isOpen) setText(shown.state, `computing ${latents.length} of ${shown.cells.length}`);
    else if (!this.view.has_null) setText(shown.state, "ranks only: this model has no null");
    else setText(shown.state, `${found} of ${tested.length} stand out from other clips (p ≤ 0.05)`);
    const stated = el("span", "", {}, `Window ${span(start, end)}, ${block.source}`);
    shown.facts.replaceChildren(stated, ...this.majority(block.moments));
    shown.times.forEach((time, i) => setText(time, clock(start + ((end - start) * (i + 0.5)) / shown.times.length)));
    shown.cells.forEach((cell, slot) => {
      if (cell.dataset.modality === "visual") cell.style.aspectRatio = this.media?.aspect ?? 16 / 9;
      cell.classList.toggle("is-next", isOpen && slot === latents.length);
      this.drawCell(cell, latents[slot], slot, block);
    });
    if (!shown.cells.some((cell) => cell.tabIndex === 0)) this.rove(shown.cells[0]);
  }

  majority(moments) {
    const {clip, running} = this.view;
    const has = {visual: clip.has_picture, audio: clip.has_sound};
    const rows = [["visual", "Pictures"], ["audio", "Sounds"]];
    return rows.filter(([modality]) => moments[modality] || (running && has[modality])).map(([modality, name]) => {
      const time = moments[modality] ? span(...moments[modality]) : "…";
      return el("span", "", {}, `${name} mostly similar to `, el("b", "", {"data-modality": modality}, time));
    });
  }

  drawCell(cell, latent, slot, block) {
    const drawn = latent ? JSON.stringify([latent, block.closed]) : "";
    if (cell.drawn === drawn) return;
    cell.drawn = drawn;
    const best = latent?.matches[0];
    const isNone = Boolean(latent) && (latent.evidence === false || !best);
    cell.classList.toggle("is-pending", !latent);
    cell.classList.toggle("is-none", isNone);
    cell.classList.toggle("is-unsure", latent?.evidence === null);
    cell.setAttribute("aria-disabled", !latent);
    const label = latent ? describe(latent, slot, block).join(", ") : `latent ${slot + 1}, not computed yet`;
    cell.setAttribute("aria-label", label);
    cell.replaceChildren(...(best && this.media ? this.media.moment(latent.modality, best) : []));
    const nothing = cell.dataset.modality === "visual" ? "no picture" : "no sound";
    if (latent) cell.append(el("small", "", {}, !best ? nothing : isNone ? "no evidence" : clock(best.start_s)));
  }

  /* One cell of each block is reached by Tab; the arrow keys move on from there. */
  rove(cell) {
    for (const other of this.blocks[cell.dataset.block]?.cells ?? []) other.tabIndex = -1;
    cell.tabIndex = 0;
  }

  move(cell, key) {
    const slot = this.neighbour(Number(cell.dataset.slot), key);
    const next = slot === null ? null : this.blocks[cell.dataset.block].cells[slot];
    if (!next?.drawn) return null;
    this.rove(next);
    next.focus();
    return next;
  }

  neighbour(slot, key) { // instants lie side by side, the sound below the pictures
    if (!STEPS[key]) return null;
    const [dx, dy] = STEPS[key];
    const [instants, rows, columns] = this.view.grid;
    const pictures = rows * columns;
    const visual = instants * pictures;
    const within = (value, count) => Math.min(count - 1, Math.max(0, value));
    const isAudio = slot >= visual;
    const [instant, rest] = isAudio ? [slot - visual, pictures] : [Math.floor(slot / pictures), slot % pictures];
    const row = within(Math.floor(rest / columns) + dy, rows + 1);
    if (row === rows) return visual + within(instant + (isAudio ? dx : 0), instants);
    const across = within(instant * columns + (isAudio ? 0 : rest % columns) + (isAudio ? 0 : dx), instants * columns);
    return Math.floor(across / columns) * pictures + row * columns + (across % columns);
  }

  setTime(seconds) { // light the cells whose moment is under the playhead
    this.view.blocks.forEach((block, b) => this.blocks[b].cells.forEach((cell, slot) => {
      const latent = block.latents[slot];
      cell.classList.toggle("is-now", Boolean(latent) && isNow(latent, seconds));
    }));
  }
}
