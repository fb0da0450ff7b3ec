/* LatentViews: the other views of a run, each drawn from the plain values of a `*_view` function of visualizers/.

   const view = LatentViews.mount("map", element, {theme: "host"});    "map", "attention", "compare" or "whatif"
   view.update(value);    any number of times; a value with `media` (visualizers/view.py) brings pictures and sound

   The element sends bubbling events: "latent-select" {block, slot, start_s, run}, and "latent-seek" {seconds}, which asks
   whoever owns the player to go there. A latent selected anywhere on the page is marked here too. */

const VIEWS = {}; // name -> class; the files that follow add theirs

class LatentView {
  constructor(root, {theme = "auto"} = {}) {
    Object.assign(this, {root, value: null, media: null, key: null});
    root.classList.add("li", "lv");
    root.dataset.theme = theme;
    this.tip = el("div", "li-tip lv-tip", {role: "tooltip", hidden: ""});
    this.body = el("div", "li-parts");
    root.replaceChildren(this.body, this.tip);
    this.build();
    this.resizing = new ResizeObserver(() => this.value && this.width !== this.body.clientWidth && this.redraw());
    this.resizing.observe(this.body);
  }

  update(value) {
    this.keep(value);
    this.value = value;
    this.redraw();
  }

  keep({clip, media}) { // pictures and sound stay for as long as the clip is the same
    if (!clip) return;
    if (clip.key !== this.key) Object.assign(this, {key: clip.key, media: null});
    if (media) this.media = new ClipMedia(media, clip.duration_s);
  }

  redraw() { // nothing is drawn while the view is hidden
    this.width = this.body.clientWidth;
    if (this.width) this.draw();
  }

  destroy() {
    this.resizing.disconnect();
    this.unlisten?.();
    this.root.replaceChildren();
  }

  send(name, detail) {
    this.root.dispatchEvent(new CustomEvent(name, {bubbles: true, detail}));
  }

  seek(seconds) {
    this.send("latent-seek", {seconds});
  }

  /* Pictures and lines of text beside a node; null hides them. */
  describe(node, lines = [], picture = null) {
    this.tip.hidden = !node;
    if (!node) return;
    this.tip.replaceChildren(...(picture ? [picture] : []), el("span", "", {}, lines.join("\n")));
    const [box, root] = [node.getBoundingClientRect(), this.root.getBoundingClientRect()];
    const left = box.left - root.left + box.width / 2 - this.tip.offsetWidth / 2;
    const above = box.top - root.top - this.tip.offsetHeight - 8;
    this.tip.style.left = `${Math.max(0, Math.min(root.width - this.tip.offsetWidth, left))}px`;
    this.tip.style.top = `${above + root.top > 0 ? above : box.bottom - root.top + 8}px`;
  }
}

/* A row of choices of which one holds; `onChoose` is told its key. */
class Choice {
  constructor(label, onChoose) {
    this.onChoose = onChoose;
    this.node = el("div", "lv-choice", {role: "radiogroup", "aria-label": label});
    this.node.addEventListener("click", (event) => this.choose(event.target.closest("button")));
    this.node.addEventListener("keydown", (event) => {
      const step = {ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1}[event.key];
      const buttons = [...this.node.children];
      if (!step || buttons.length < 2) return;
      event.preventDefault();
      this.choose(buttons[(buttons.indexOf(event.target) + step + buttons.length) % buttons.length]);
    });
  }

  choose(button) {
    if (!button) return;
    button.focus();
    this.onChoose(button.dataset.key);
  }

  set(options, chosen) { // options: [key, text] pairs
    const drawn = JSON.stringify(options);
    if (drawn !== this.drawn) {
      this.node.replaceChildren(...options.map(([key, text]) => el("button", "", {type: "button", role: "radio", "data-key": key}, text)));
    }
    this.drawn = drawn;
    for (const button of this.node.children) {
      const isChosen = button.dataset.key === String(chosen);
      button.setAttribute("aria-checked", isChosen);
      button.tabIndex = isChosen ? 0 : -1;
    }
    this.node.hidden = options.length < 2;
  }
}

function percent(share, digits = 0) {
  return `${(100 * share).toFixed(digits)} %`;
}

function card(title, ...parts) { // a card with its header
  const header = el("header", "lv-head", {}, el("h3", "", {}, title));
  return {header, node: el("section", "li-card", {"aria-label": title}, header, ...parts)};
}

function offerExport(node, name, rows) { // the menu of export.js, where the page has it
  if (typeof exportMenu === "function") node.append(exportMenu(node, name, rows));
}

window.LatentViews = {
  mount(name, element, options) {
    if (!VIEWS[name]) throw new Error(`there is no view named ${name}, but ${Object.keys(VIEWS).join(", ")}`);
    return new VIEWS[name](element, options);
  },
};
