/* LatentInspector: the answer, its latents and the clip's clock, drawn from the plain values of visualizers/view.py.

   const inspector = LatentInspector.mount(element, {player: "video", theme: "host"});
   inspector.update(view);    any number of times; a view without media keeps the pictures and sound of the same clip

   player: selector of the <video> or <audio> to seek, looked up whenever it is needed. theme: "auto" follows the
   system, "host" a `.dark` ancestor. parts: which parts, of "stage" (a still picture), "answer", "timeline" and
   "blocks", in order. The element sends "latent-select" events with {block, slot, start_s}. */

class Inspector {
  constructor(root, {player = null, theme = "auto", parts = ["answer", "timeline", "blocks"]} = {}) {
    Object.assign(this, {root, player, time: 0, view: null, media: null, key: null, selected: null, block: 0});
    root.classList.add("li");
    root.dataset.theme = theme;
    this.tip = el("div", "li-tip", {role: "tooltip", hidden: ""});
    root.replaceChildren(el("div", "li-parts", {}, ...parts.map((part) => this.build(part))), this.tip);
    this.listen();
  }

  build(part) {
    if (part === "timeline") return (this.timeline = new Timeline((seconds) => this.seek(seconds))).node;
    if (part === "stage") {
      this.stage = el("div", "li-stage", {}, el("img", "", {alt: "the picture at the current time"}));
      return this.stage;
    }
    if (part === "answer") {
      this.text = el("p", "li-text", {"aria-live": "polite"});
      return el("section", "li-card", {"aria-label": "answer"}, this.text);
    }
    this.strips = new Strips();
    this.detail = el("aside", "li-card li-detail", {"aria-label": "selected latent", "aria-live": "polite"});
    return el("div", "li-lower", {}, this.strips.node, this.detail);
  }

  listen() {
    const on = (name, handler) => this.root.addEventListener(name, handler);
    on("click", (event) => this.onClick(event));
    on("keydown", (event) => {
      if (event.key === "Escape") this.light(null);
      if (event.target.matches(".li-cell") && this.strips.move(event.target, event.key)) event.preventDefault();
    });
    on("pointerover", (event) => this.light(event.target.closest("[data-slot]")));
    on("pointerleave", () => this.light(null));
    on("focusin", (event) => event.target.matches(":focus-visible") && this.light(event.target.closest("[data-slot]")));
    on("focusout", () => this.light(null));
    const follow = (event) => this.player && event.target.matches?.(this.player) && this.follow();
    const names = ["timeupdate", "seeking", "seeked", "play", "loadedmetadata"];
    for (const name of names) document.addEventListener(name, follow, true); // media events do not bubble
    this.unlisten = () => names.forEach((name) => document.removeEventListener(name, follow, true));
  }

  destroy() {
    this.unlisten();
    this.timeline?.resizing.disconnect();
    cancelAnimationFrame(this.frame);
    this.root.replaceChildren();
  }

  update(view) {
    const isOther = view.clip.key !== this.key;
    if (isOther) Object.assign(this, {key: view.clip.key, media: null, time: 0, selected: null});
    if (view.media) this.media = new ClipMedia(view.media, view.clip.duration_s);
    const last = Math.max(0, view.blocks.length - 1);
    if (!view.blocks[this.selected?.block]?.latents[this.selected?.slot]) this.selected = null;
    const isNews = !this.selected && view.blocks.length !== this.view?.blocks.length;
    if (isOther || isNews || this.block > last) this.block = last;
    this.view = view;
    this.strips?.update(view, this.media);
    this.show(this.block);
    this.follow();
  }

  latent({block, slot}) {
    return this.view?.blocks[block]?.latents[slot];
  }

  show(block) { // make a block the one whose latents stand on the timeline
    this.block = block;
    if (this.text) this.drawText();
    this.timeline?.update(this.view, this.media, block);
    if (this.detail) this.drawDetail();
    this.mark();
  }

  drawText() {
    const {pieces, running, blocks} = this.view;
    const wanted = 2 * pieces.length - 1; // text, chip, text, chip, text
    while (this.text.childNodes.length > wanted) this.text.lastChild.remove();
    const signs = () => [el("i"), el("i"), el("span")];
    const chip = (block) => el("button", "li-chip", {type: "button", "data-block": block}, ...signs());
    for (let i = this.text.childNodes.length; i < wanted; i++) {
      this.text.append(i % 2 ? chip((i - 1) / 2) : document.createTextNode(""));
    }
    pieces.forEach((piece, i) => setText(this.text.childNodes[2 * i], piece));
    blocks.forEach((block, b) => {
      const shown = this.text.childNodes[2 * b + 1];
      setText(shown.lastChild, span(...block.window));
      shown.setAttribute("aria-label", `latent block ${b + 1}, window ${span(...block.window)}`);
      shown.setAttribute("aria-current", b === this.block);
    });
    this.text.classList.toggle("li-running", running);
  }

  drawDetail() {
    const latent = this.selected && this.latent(this.selected);
    const block = latent && this.view.blocks[this.selected.block];
    const hint = this.view.blocks.length ? "Choose a cell to see the moments it is most similar to, and to play them."
      : this.view.running ? "Latent blocks appear here while the answer is computed." : "This answer used no latents.";
    const drawn = JSON.stringify([this.selected, latent, block?.closed, this.media !== null, hint]);
    if (drawn === this.detail.drawn) return;
    this.detail.drawn = drawn;
    this.detail.parentNode.classList.toggle("is-bare", !this.view.blocks.length && !this.view.running);
    const facts = latent ? this.facts(latent, this.selected.slot, block) : [el("p", "li-empty", {}, hint)];
    this.detail.replaceChildren(...facts);
  }

  facts(latent, slot, block) {
    const {modality, matches, matches: [best]} = latent;
    const [first, ...rest] = describe(latent, slot, block).slice(best ? 2 : 0);
    const small = el("p", "li-small li-muted", {}, `${rest.join(", ")}; ${first}`);
    const note = el("p", "li-note", {}, "By features alone. Similar does not mean used.");
    if (!best) return [small];
    const picture = el("div", "li-view", {"data-modality": modality}, ...(this.media?.moment(modality, best) ?? []));
    if (modality === "visual") picture.style.aspectRatio = this.media?.aspect ?? 16 / 9;
    const time = el("b", "", {"data-modality": modality}, span(best.start_s, best.end_s));
    const said = el("p", "li-said", {}, "Most similar to ", time);
    const played = `${best.start_s} ${best.end_s}`;
    const play = el("button", "li-play", {type: "button", "data-play": played}, "Play this moment");
    const ranks = el("ol", "li-ranks", {"aria-label": "nearest moments"});
    ranks.append(...matches.map((match) => this.rank(modality, match)));
    return [picture, said, small, ...(this.element ? [play] : []), ranks, note];
  }

  rank(modality, match) { // a line of the list of nearest moments
    const {rank, start_s: start, end_s: end} = match;
    const score = match.score.toFixed(2);
    const label = `rank ${rank}, ${span(start, end)}, score ${score}; go there`;
    return el("li", "", {}, el("button", "", {type: "button", "data-seek": start, "aria-label": label},
      el("span", "li-muted", {}, rank), this.media?.sign(modality, match) ?? "", el("span", "", {}, span(start, end)),
      el("span", "li-muted", {}, score)));
  }

  /* ---- selection ---- */
  select(block, slot) {
    const latent = this.latent({block, slot});
    if (!latent) return;
    this.selected = {block, slot};
    this.show(block);
    const start_s = latent.matches[0]?.start_s ?? latent.time_s;
    this.seek(start_s);
    this.root.dispatchEvent(new CustomEvent("latent-select", {bubbles: true, detail: {block, slot, start_s}}));
  }

  twins({block, slot}) { // everything that stands for one latent: its cell, its two dots, its line
    return this.root.querySelectorAll(`[data-block="${block}"][data-slot="${slot}"]`);
  }

  mark() {
    for (const node of this.root.querySelectorAll(".is-lit")) node.classList.remove("is-lit");
    for (const node of this.root.querySelectorAll('[aria-pressed="true"]')) node.setAttribute("aria-pressed", "false");
    if (!this.selected) return;
    for (const node of this.twins(this.selected)) {
      node.classList.add("is-lit");
      if (!node.matches(".li-cell")) continue;
      node.setAttribute("aria-pressed", "true");
      this.strips.rove(node);
    }
  }

  light(node) { // hover or focus: the latent in every part, and its tooltip
    const latent = node && this.latent(node.dataset);
    if (!latent && this.tip.hidden) return;
    this.mark();
    this.tip.hidden = !latent;
    if (!latent) return;
    for (const twin of this.twins(node.dataset)) twin.classList.add("is-lit");
    setText(this.tip, describe(latent, Number(node.dataset.slot), this.view.blocks[node.dataset.block]).join("\n"));
    const [box, root] = [node.getBoundingClientRect(), this.root.getBoundingClientRect()];
    const left = box.left - root.left + box.width / 2 - this.tip.offsetWidth / 2;
    const above = box.top - root.top - this.tip.offsetHeight - 8;
    this.tip.style.left = `${Math.max(0, Math.min(root.width - this.tip.offsetWidth, left))}px`;
    this.tip.style.top = `${above + root.top > 0 ? above : box.bottom - root.top + 8}px`;
  }

  onClick(event) {
    const {slot, block, seek, play} = event.target.closest("[data-block], [data-seek], [data-play]")?.dataset ?? {};
    if (slot !== undefined) this.select(Number(block), Number(slot));
    else if (seek !== undefined) this.seek(Number(seek));
    else if (play !== undefined) this.play(...play.split(" ").map(Number));
    else if (block !== undefined) {
      this.show(Number(block));
      this.strips?.blocks[block].node.scrollIntoView({block: "nearest"});
    }
  }

  /* ---- the player ---- */
  get element() {
    return this.player ? document.querySelector(this.player) : null;
  }

  seek(seconds) {
    this.time = Math.min(this.view.clip.duration_s, Math.max(0, seconds));
    this.stopAt = Infinity;
    if (this.element) this.element.currentTime = this.time;
    this.drawTime();
  }

  play(start, end) {
    this.seek(start);
    this.stopAt = end;
    this.element?.play();
  }

  follow() { // take the player's time, at every frame while it plays
    const player = this.element;
    if (!this.view) return;
    if (player?.readyState > 0) this.time = player.currentTime;
    if (player && this.time >= this.stopAt) {
      this.stopAt = Infinity;
      player.pause();
    }
    const isPlaying = Boolean(player && !player.paused && !player.ended);
    this.drawTime(isPlaying);
    cancelAnimationFrame(this.frame);
    if (isPlaying) this.frame = requestAnimationFrame(() => this.follow());
  }

  drawTime(isPlaying = false) {
    this.timeline?.setTime(this.time);
    this.strips?.setTime(this.time, isPlaying);
    if (!this.stage) return;
    this.stage.style.aspectRatio = this.media?.aspect ?? 16 / 9;
    const source = this.media?.frameAt(this.time + 1e-3) ?? "";
    if (this.stage.firstChild.getAttribute("src") !== source) this.stage.firstChild.src = source;
  }
}

window.LatentInspector = {mount: (element, options) => new Inspector(element, options)};
