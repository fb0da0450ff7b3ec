/* LatentInspector: the answer, its latents and the clip's clock, drawn from the plain values of visualizers/view.py.

   const inspector = LatentInspector.mount(element, {player: "video", theme: "host"});
   inspector.update(view);    any number of times; a view without media keeps the pictures and sound of the same clip

   player: the <video> or <audio> to seek, or its selector, looked up whenever it is needed. theme: "auto" follows the
   system, "host" a `.dark` ancestor. parts: which parts, of "stage" (a still picture), "answer", "timeline" and
   "blocks", in order. The element sends "latent-select" events with {block, slot, start_s}. From elements of the page
   outside any inspector it follows "latent-select" of a view's first run, and "latent-seek" with {seconds} where it has a player. */

const LEAST_PLAY_S = 0.5;

class Inspector {
  constructor(root, {player = null, theme = "auto", parts = ["answer", "timeline", "blocks"]} = {}) {
    Object.assign(this, {root, player, time: 0, view: null, media: null, key: null, selected: null, block: 0, isMoved: false});
    root.classList.add("li");
    root.dataset.inspector = "";
    root.dataset.theme = theme;
    this.tip = el("div", "li-tip", {role: "tooltip", hidden: ""});
    root.replaceChildren(el("div", "li-parts", {}, ...parts.map((part) => this.build(part))), this.tip);
    this.listen();
  }

  build(part) {
    if (part === "timeline") return (this.timeline = new Timeline((seconds) => this.seek(seconds), (...place) => this.pick(...place))).node;
    if (part === "stage") {
      this.stage = el("div", "li-stage", {}, el("img", "", {alt: "the picture at the current time"}));
      return this.stage;
    }
    if (part === "answer") {
      this.answer = new AnswerText();
      return this.answer.node;
    }
    this.strips = new Strips();
    this.detail = new Detail();
    return el("div", "li-lower", {}, this.strips.node, this.detail.node);
  }

  listen() {
    const on = (name, handler) => this.root.addEventListener(name, handler);
    on("click", (event) => this.onClick(event));
    on("keydown", (event) => this.onKey(event));
    on("pointerover", (event) => this.light(event.target.closest("[data-slot]")));
    on("pointerleave", () => this.light(null));
    on("focusin", (event) => event.target.matches(":focus-visible") && this.light(event.target.closest("[data-slot]")));
    on("focusout", () => this.light(null));
    this.leaving = new AbortController();
    const {signal} = this.leaving;
    const follow = (event) => this.player && event.target === this.element && this.follow();
    const home = typeof this.player === "string" ? document : this.player;
    for (const name of ["timeupdate", "seeking", "seeked", "play", "loadedmetadata"]) {
      home?.addEventListener(name, follow, {capture: true, signal}); // media events do not bubble
    }
    const hear = (name, handler) => document.addEventListener(name, (event) => {
      if (this.view && !event.target.closest?.("[data-inspector]")) handler(event.detail);
    }, {signal});
    hear("latent-seek", ({seconds}) => this.player && this.seek(seconds));
    hear("latent-select", ({block, slot, run}) => run || this.choose(block, slot)); // run 0 is the one shown here
  }

  destroy() {
    this.leaving.abort();
    this.timeline?.resizing.disconnect();
    cancelAnimationFrame(this.frame);
    this.root.replaceChildren();
  }

  update(view) {
    const isOther = view.clip.key !== this.key;
    if (isOther) Object.assign(this, {key: view.clip.key, media: null, time: 0, selected: null, isMoved: false});
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
    this.answer?.update(this.view, block);
    this.timeline?.update(this.view, this.media, block);
    this.detail?.update(this.view, this.media, this.selected, Boolean(this.element));
    this.mark();
  }

  /* ---- selection ---- */
  select(block, slot) {
    const start_s = this.choose(block, slot);
    if (start_s === null) return;
    this.root.dispatchEvent(new CustomEvent("latent-select", {bubbles: true, detail: {block, slot, start_s}}));
  }

  choose(block, slot) { // show a latent and go to its moment; its start in seconds, null where there is no such latent
    const latent = this.latent({block, slot});
    if (!latent) return null;
    this.selected = {block, slot};
    this.show(block);
    const start_s = latent.matches[0]?.start_s ?? latent.time_s;
    this.seek(start_s);
    return start_s;
  }

  pick(seconds, modality) { // the latent of the shown block whose evidence lies nearest, of one modality or of any
    const middle = ({matches: [best]}) => (best.start_s + best.end_s) / 2;
    const far = (z) => Math.abs(middle(z) - seconds);
    const found = (this.view.blocks[this.block]?.latents ?? []).map((z, slot) => [z, slot])
      .filter(([z]) => z.matches.length && (!modality || z.modality === modality))
      .sort(([a], [b]) => (a.evidence === false) - (b.evidence === false) || far(a) - far(b))[0];
    if (found) this.select(this.block, found[1]);
  }

  twins({block, slot}) { // everything that stands for one latent: its cell, its two dots, its line
    return this.root.querySelectorAll(`[data-block="${block}"][data-slot="${slot}"]`);
  }

  mark() {
    for (const node of this.root.querySelectorAll(".is-lit")) node.classList.remove("is-lit");
    for (const node of this.root.querySelectorAll('[aria-pressed="true"]')) node.setAttribute("aria-pressed", "false");
    if (!this.selected) return;
    this.answer?.light(this.selected.block);
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
    this.answer?.light(node.dataset.block);
    setText(this.tip, describe(latent, Number(node.dataset.slot), this.view.blocks[node.dataset.block]).join("\n"));
    const [box, root] = [node.getBoundingClientRect(), this.root.getBoundingClientRect()];
    const left = box.left - root.left + box.width / 2 - this.tip.offsetWidth / 2;
    const above = box.top - root.top - this.tip.offsetHeight - 8;
    this.tip.style.left = `${Math.max(0, Math.min(root.width - this.tip.offsetWidth, left))}px`;
    this.tip.style.top = `${above + root.top > 0 ? above : box.bottom - root.top + 8}px`;
  }

  onKey(event) {
    const {key, target} = event;
    if (key === "Escape") this.light(null);
    if (!target.matches(".li-cell")) return;
    const next = this.strips.move(target, key);
    if (key !== "Enter" && !next) return;
    event.preventDefault(); // Enter would click
    const {block, slot} = (next ?? target).dataset;
    this.select(Number(block), Number(slot));
    const best = this.latent({block, slot})?.matches[0];
    if (key === "Enter" && best) this.play(best.start_s, best.end_s);
  }

  onClick(event) {
    const curve = event.target.closest("[data-curve]");
    if (curve) {
      const box = curve.getBoundingClientRect();
      return this.seek(((event.clientX - box.left) / box.width) * this.view.clip.duration_s);
    }
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
    return typeof this.player === "string" ? document.querySelector(this.player) : this.player;
  }

  seek(seconds) {
    this.time = Math.min(this.view.clip.duration_s, Math.max(0, seconds));
    this.stopAt = Infinity;
    this.isMoved = true;
    if (this.element) this.element.currentTime = this.time;
    this.drawTime();
  }

  play(start, end) { // a moment shorter than the ear needs is played with what surrounds it
    const more = Math.max(0, LEAST_PLAY_S - (end - start)) / 2;
    this.seek(start - more);
    this.stopAt = end + more;
    this.element?.play()?.catch(() => {}); // a browser may refuse, or a later seek may interrupt it
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
    this.isMoved ||= isPlaying || this.time > 0;
    this.drawTime();
    cancelAnimationFrame(this.frame);
    if (isPlaying) this.frame = requestAnimationFrame(() => this.follow());
  }

  drawTime() { // nothing is lit before the player has been used
    this.timeline?.setTime(this.time, this.isMoved);
    this.strips?.setTime(this.isMoved ? this.time : NaN);
    if (!this.stage) return;
    this.stage.style.aspectRatio = this.media?.aspect ?? 16 / 9;
    const source = this.media?.frameAt(this.time + 1e-3) ?? "";
    if (this.stage.firstChild.getAttribute("src") !== source) this.stage.firstChild.src = source;
  }
}

window.LatentInspector = {mount: (element, options) => new Inspector(element, options)};
