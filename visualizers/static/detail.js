/* The chosen latent: the frame's cells or the sound's pitches at its best moment, its score over the clip, its ranks. */

const DARKEST = 0.8; // share of a cell's light that is taken away where it is least similar
const NUMBERED_CELLS = 16; // no more than these carry their score as text

class Detail {
  constructor() {
    const hint = "Choose a cell: a click or the arrow keys go to the moment it is most similar to, Enter plays it.";
    this.hints = {blocks: hint, running: "Latent blocks appear here while the answer is computed.", none: "This answer used no latents."};
    this.title = el("h3", "", {}, "Chosen latent");
    this.body = el("div", "li-chosen");
    this.node = el("aside", "li-card li-detail", {"aria-label": "chosen latent"}, el("header", "", {}, this.title), this.body);
    this.menu = exportMenu(this.node, () => `latent-${this.chosen.block + 1}-${this.chosen.slot + 1}`, () => this.rows());
    this.node.append(this.menu);
  }

  update(view, media, chosen, canPlay) {
    const block = chosen && view.blocks[chosen.block];
    const latent = block?.latents[chosen.slot];
    const hint = this.hints[view.blocks.length ? "blocks" : view.running ? "running" : "none"];
    const drawn = JSON.stringify([chosen, latent, block?.closed, view.clip.key, hint, canPlay]);
    if (drawn === this.drawn && media === this.media) return;
    Object.assign(this, {view, media, chosen, latent, block, drawn});
    this.node.parentNode?.classList.toggle("is-bare", !view.blocks.length && !view.running);
    this.menu.hidden = !latent;
    setText(this.title, latent ? `${latent.modality === "visual" ? "Visual" : "Audio"} latent ${chosen.slot + 1}` : "Chosen latent");
    this.body.replaceChildren(...(latent ? this.facts(latent, canPlay) : [el("p", "li-empty", {}, hint)]));
  }

  facts(latent, canPlay) {
    const {modality, matches: [best]} = latent;
    const place = latent.cell ? `row ${latent.cell[0] + 1}, column ${latent.cell[1] + 1}, ` : "";
    const facts = `${place}stated at ${clock(latent.time_s)}; ${certainty(latent, this.block.closed)}${this.surplus(latent)}`;
    const small = el("p", "li-small li-muted", {}, facts[0].toUpperCase() + facts.slice(1));
    if (!best) return [small];
    const time = el("b", "", {"data-modality": modality}, span(best.start_s, best.end_s));
    const said = el("p", "li-said", {}, "Most similar to ", time);
    const played = `${best.start_s} ${best.end_s}`;
    const play = el("button", "li-play", {type: "button", "data-play": played}, "Play this moment");
    const ranks = el("ol", "li-ranks", {"aria-label": "nearest moments"});
    ranks.append(...latent.matches.map((match) => this.rank(modality, match)));
    const note = el("p", "li-note", {}, "By features alone. Similar does not mean used.");
    const words = el("div", "li-words", {}, said, small, ...(canPlay ? [play] : []));
    return [modality === "visual" ? this.picture(latent) : this.sound(best), words, ...this.curve(latent), ranks, note];
  }

  surplus({null_level: level, matches: [best]}) { // score minus null
    if (typeof level !== "number" || !best) return "";
    const more = best.score - level;
    return `; ${Math.abs(more).toFixed(2)} ${more < 0 ? "below" : "above"} the null’s 95 % level`;
  }

  rank(modality, match) { // a line of the list of nearest moments
    const {rank, start_s: start, end_s: end} = match;
    const score = match.score.toFixed(2);
    const label = `rank ${rank}, ${span(start, end)}, score ${score}; go there`;
    return el("li", "", {}, el("button", "", {type: "button", "data-seek": start, "aria-label": label},
      el("span", "li-muted", {}, rank), this.media?.sign(modality, match) ?? "", el("span", "", {}, span(start, end)),
      el("span", "li-muted", {}, score)));
  }

  picture({matches: [best], cells}) { // the frame; the less similar a cell, the darker
    if (!this.media) return el("div", "li-view", {"data-modality": "visual"});
    const view = el("div", "li-view", {"data-modality": "visual", style: `aspect-ratio:${this.media.aspect}`});
    if (!cells) view.append(...this.media.region(best));
    else view.append(this.media.image((best.start_s + best.end_s) / 2 - 1e-3), this.heat(cells), el("span", "li-best", {style: box(best.box)}));
    return cells ? el("figure", "li-figure", {}, view, this.scale(cells)) : view;
  }

  heat(cells) {
    const [low, high] = cells.range;
    const isNumbered = cells.rows * cells.columns <= NUMBERED_CELLS;
    const equal = (count) => `repeat(${count},minmax(0,1fr))`;
    const label = `scores of the frame’s ${cells.rows * cells.columns} cells, ${low.toFixed(2)} to ${high.toFixed(2)}`;
    const style = `grid-template:${equal(cells.rows)}/${equal(cells.columns)}`;
    return el("div", "li-heat", {role: "img", "aria-label": label, style}, ...decode(cells).map((score) => {
      const share = (score - low) / Math.max(high - low, 1e-6);
      const dark = `background:rgb(11 18 46 / ${(DARKEST * (1 - share)).toFixed(3)})`;
      return el("i", "", {style: dark}, ...(isNumbered ? [el("small", "", {}, score.toFixed(2))] : []));
    }));
  }

  scale({range: [low, high], recorded}) {
    const source = recorded ? "" : " (from the stored features, without the background of other clips)";
    return el("figcaption", "li-scale", {}, el("span", "", {}, low.toFixed(2)), el("i", "", {"aria-hidden": "true"}),
      el("span", "", {}, high.toFixed(2)), el("span", "", {}, `score of each cell${source}`));
  }

  sound(best) { // pitch upwards, time across, the moment framed
    const view = el("div", "li-view", {"data-modality": "audio"});
    const around = SLICE.near_s + (best.end_s - best.start_s) / 2;
    const middle = (best.start_s + best.end_s) / 2;
    const [from, to] = [middle - around, middle + around];
    const drawn = this.media?.pitches(from, to);
    if (!drawn) {
      view.append(...(this.media ? [this.media.slice(best)] : []));
      return view;
    }
    const percent = (seconds) => (100 * (seconds - from)) / (to - from);
    const [left, width] = [percent(best.start_s), percent(best.end_s) - percent(best.start_s)];
    view.append(drawn, el("span", "li-moment", {style: `left:${left}%;width:${width}%`}));
    const edges = this.media.spectrogram.edges_hz;
    return el("figure", "li-figure", {}, view, el("figcaption", "li-scale", {},
      el("span", "", {}, `${clock(Math.max(0, from))} to ${clock(Math.min(to, this.view.clip.duration_s))}`),
      el("span", "", {}, `pitch ${edges[0]} Hz to ${Math.round(edges.at(-1) / 1000)} kHz, brighter is louder`)));
  }

  curve({curve, null_level: level, modality, matches: [best], evidence, time_s: stated}) { // the score over the whole clip
    if (!curve) return [];
    const scores = decode(curve);
    const known = scores.filter((score) => score !== null);
    const hasLevel = typeof level === "number";
    const marks = hasLevel ? [...known, level] : known;
    const [low, high] = [Math.min(...marks), Math.max(...marks)];
    const y = (score) => 96 - (92 * (score - low)) / Math.max(high - low, 1e-6);
    const steps = scores.map((score, i) => (score === null ? "" : `${i && scores[i - 1] !== null ? "L" : "M"}${i} ${y(score)}H${i + 1}`)).join("");
    const x = (seconds) => (scores.length * seconds) / this.view.clip.duration_s;
    const parts = [svg("rect", {class: "li-curve-best", x: x(best.start_s), width: Math.max(0.6, x(best.end_s) - x(best.start_s)), y: 0, height: 100})];
    if (hasLevel) parts.push(svg("rect", {class: "li-curve-null", x: 0, width: scores.length, y: y(level), height: 100 - y(level)}),
      svg("path", {class: "li-curve-level", d: `M0 ${y(level)}H${scores.length}`}));
    parts.push(svg("path", {class: "li-curve-line", d: steps}), svg("path", {class: "li-curve-stated", d: `M${x(stated)} 0V100`}));
    const drawn = svg("svg", {viewBox: `0 0 ${scores.length} 100`, preserveAspectRatio: "none", "aria-hidden": "true"}, ...parts);
    const null_ = hasLevel ? `95 % of other clips’ latents stay below ${level.toFixed(2)} (dashed)` : evidence === null ? "no null" : `p ${this.latent.p}; the null’s level was not recorded`;
    const label = `score over the whole clip, from ${low.toFixed(2)} to ${high.toFixed(2)}; ${null_}`;
    const plot = el("div", "li-curve", {role: "img", "aria-label": label, "data-modality": modality, "data-curve": ""}, drawn,
      el("span", "", {}, high.toFixed(2)), el("span", "", {}, low.toFixed(2)));
    plot.classList.toggle("is-none", evidence === false);
    const words = el("span", "", {}, `score over the clip; ${null_}; dotted: stated time`);
    return [el("figure", "li-figure", {}, plot, el("figcaption", "li-scale", {}, words))];
  }

  rows() { // what the card draws, as a table: the curve, then the ranks
    const {curve, matches, null_level: level} = this.latent;
    const scores = curve ? decode(curve) : [];
    const piece = this.view.clip.duration_s / Math.max(1, scores.length);
    const fixed = (value) => Number(value.toFixed(4));
    return [["what", "start_s", "end_s", "score", "null_level", "rank"],
      ...scores.map((score, i) => ["curve", fixed(i * piece), fixed((i + 1) * piece), score === null ? null : fixed(score), level, null]),
      ...matches.map((m) => ["match", m.start_s, m.end_s, m.score, level, m.rank])];
  }
}
