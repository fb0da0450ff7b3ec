/* The answer with a chip for each latent block, the sentences around the chosen block marked, and the collapse meter. */

const SENTENCE_END = /(?<=[.!?…]\s)|(?<=[。！？])/u;

class AnswerText {
  constructor() {
    this.text = el("p", "li-text", {"aria-live": "polite"});
    this.meter = new CollapseMeter();
    this.node = el("section", "li-card li-answer", {"aria-label": "answer"}, this.text, this.meter.node);
    this.node.append(exportMenu(this.node, "answer", () => this.rows()));
  }

  update(view, block) {
    this.view = view;
    const {pieces, running, blocks} = view;
    const wanted = 2 * pieces.length - 1; // text, chip, text, chip, text
    while (this.text.childNodes.length > wanted) this.text.lastChild.remove();
    const signs = () => [el("i"), el("i"), el("span")];
    const chip = (b) => el("button", "li-chip", {type: "button", "data-block": b}, ...signs());
    for (let i = this.text.childNodes.length; i < wanted; i++) this.text.append(i % 2 ? chip((i - 1) / 2) : el("span"));
    pieces.forEach((piece, i) => this.drawPiece(this.text.childNodes[2 * i], piece, i, i < blocks.length));
    blocks.forEach((shown, b) => {
      const node = this.text.childNodes[2 * b + 1];
      setText(node.lastChild, span(...shown.window));
      node.setAttribute("aria-label", `latent block ${b + 1}, window ${span(...shown.window)}`);
      node.setAttribute("aria-current", b === block);
    });
    this.text.classList.toggle("li-running", running);
    this.meter.update(view, block);
  }

  /* The last sentence of a piece stands before the block that follows it, the first one after the block before it. */
  drawPiece(node, piece, i, isFollowed) {
    const drawn = `${isFollowed}${piece}`;
    if (node.drawn === drawn) return;
    node.drawn = drawn;
    const sentences = piece.split(SENTENCE_END).filter(Boolean);
    node.replaceChildren(...sentences.map((sentence, s) => {
      const around = [...(s === 0 && i > 0 ? [i - 1] : []), ...(s === sentences.length - 1 && isFollowed ? [i] : [])];
      return el("span", "", around.length ? {"data-around": around.join(" ")} : {}, sentence);
    }));
  }

  light(block) {
    for (const node of this.text.querySelectorAll(`[data-around~="${block}"], .li-chip[data-block="${block}"]`)) {
      node.classList.add("is-lit");
    }
  }

  rows() {
    const {pieces, blocks} = this.view;
    return [["kind", "text", "start_s", "end_s"], ...pieces.flatMap((piece, i) =>
      [["text", piece, null, null], ...(blocks[i] ? [["latent block", blocks[i].source, ...blocks[i].window]] : [])])];
  }
}
