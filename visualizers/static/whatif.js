/* What if: the answer before and after one change, its probabilities, and a matched control beside it. */

class WhatIfView extends LatentView {
  build() {
    this.pair = el("div", "lv-columns", {style: "--columns:2"});
    this.verdict = el("p", "lv-verdict", {"aria-live": "polite"});
    this.control = el("p", "li-note");
    this.bars = el("div", "lv-bars");
    this.margins = el("div", "lv-margins");
    this.moved = el("div", "lv-moved");
    this.notes = el("div", "lv-notes");
    this.result = card("Does it matter?", this.verdict, this.control, this.bars, this.margins, this.moved, this.notes);
    this.body.append(this.pair, this.result.node);
    offerExport(this.result.node, "what-if", () => this.rows());
  }

  draw() {
    const {before, after, flipped, change, control} = this.value;
    this.pair.replaceChildren(this.answer("Before", before), this.answer(`After: ${this.what(change)}`, after));
    this.verdict.dataset.flipped = flipped;
    this.verdict.replaceChildren(el("b", "", {}, flipped ? "The answer changed." : "The answer stayed the same."), ` ${this.beside()}`);
    setText(this.control, control ? `Control: ${control.what}` : "");
    this.bars.replaceChildren(...this.value.probabilities.map((row) => this.probability(row)));
    this.drawMargins();
    this.drawMoved();
    this.notes.replaceChildren(...this.value.notices.map((notice) => el("p", "li-note", {}, notice)));
  }

  what({arm, label, block, latent, modality, window}) { // in words; the owner of the page may give its own as `label`
    const where = [
      ...(latent === null ? [] : [`latent ${latent + 1}`]),
      ...(block === null ? [] : [`block ${block + 1}`]),
      ...(modality ? [modality] : []),
      ...(window ? [span(...window)] : []),
    ];
    return [label ?? arm.replaceAll("_", " "), ...where].join(", ");
  }

  answer(title, {answer, text}) {
    return el("section", "li-card lv-column", {"aria-label": title}, el("h3", "", {}, title), el("p", "lv-answer", {}, answer || text || "–"));
  }

  beside() { // what the control says about it
    const {control, flipped} = this.value;
    if (!control) return "There is no matched control for this change.";
    if (control.flipped) return `Under the matched control it changes${flipped ? " too" : ""}, so nothing follows.`;
    return flipped ? "Under the matched control it does not." : "Under the matched control too.";
  }

  probability({answer, before, after}) {
    const bar = (name, share) => el("div", "lv-bar", {"data-when": name}, el("span", "", {}, name),
      el("i", "", {style: `--share:${share ?? 0}`}), el("b", "", {}, share === null ? "–" : percent(share, share < 0.1 ? 1 : 0)));
    const label = `${answer}: ${percent(before ?? 0, 1)} before, ${percent(after ?? 0, 1)} after`;
    return el("div", "lv-probability", {role: "img", "aria-label": label}, el("p", "", {}, `“${answer}”`), bar("before", before), bar("after", after));
  }

  drawMargins() {
    const {margin_change: own, control, flipped} = this.value;
    const title = flipped ? "Change of the first answer’s log probability, less the second’s" : "Change of the answer’s log probability";
    const rows = [["change", own], ...(control ? [["control", control.margin_change]] : [])];
    const top = Math.max(1e-9, ...rows.map(([, value]) => Math.abs(value ?? 0)));
    const shown = rows.map(([name, value]) => el("div", "lv-margin", {role: "img", "aria-label": `${name}: ${value}`}, el("span", "", {}, name),
      el("i", value < 0 ? "is-less" : "", {style: `--share:${Math.abs(value ?? 0) / top / 2}`}), el("b", "", {}, value === null ? "–" : `${value > 0 ? "+" : value < 0 ? "−" : ""}${Math.abs(value).toFixed(2)}`)));
    this.margins.replaceChildren(el("h4", "", {}, title), ...shown);
  }

  drawMoved() {
    const {moved, is_visual: isVisual} = this.value;
    this.moved.hidden = !moved.length;
    const cells = moved.map((value, k) => el("i", "lv-cosine", {"data-modality": isVisual[k] === false ? "audio" : "visual", style: `--heat:${Math.max(0, 1 - (value ?? 1))}`,
      title: `latent ${k + 1}: cosine ${value ?? "–"}`}, value === null ? "–" : value.toFixed(2)));
    this.moved.replaceChildren(el("h4", "", {}, "How far the latents moved: cosine before and after"), el("div", "lv-cosines", {}, ...cells));
  }

  rows() {
    const {probabilities, margin_change: own, control, moved} = this.value;
    return [["what", "before", "after"], ...probabilities.map((row) => [row.answer, row.before, row.after]), ["margin change", "", own],
      ...(control ? [["margin change of the control", "", control.margin_change]] : []), ...moved.map((value, k) => [`cosine of latent ${k + 1}`, "", value])];
  }
}

VIEWS.whatif = WhatIfView;
