/* Are the latents collapsed? Measures of the model over many clips, where its card has them, and of the block shown. */

const ENOUGH = {between_clip_variance: 0.5, segment_retrieval_top1: 0.8}; // the project's goals; below them it is said

class CollapseMeter {
  constructor() {
    this.node = el("div", "li-meter", {role: "group", "aria-label": "are the latents collapsed?"});
  }

  update({collapse, blocks, running}, block) {
    const drawn = JSON.stringify([collapse, block, blocks[block]?.spread, blocks[block]?.latents.length, running]);
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    const lines = [...(collapse ? [this.model(collapse)] : []), ...(blocks.length || running ? [this.block(blocks[block])] : [])];
    this.node.replaceChildren(...lines);
  }

  model(measures) {
    const texts = {
      between_clip_variance: "of variance between clips",
      segment_retrieval_top1: "own segment found (of 100)",
      effective_rank: "effective rank",
      raw_cosine: "cosine between clips",
    };
    const known = Object.keys(texts).filter((name) => typeof measures[name] === "number");
    return this.line("latents of this model", known.map((name) => [measures[name], texts[name], measures[name] < ENOUGH[name]]));
  }

  block(block) {
    const spread = block?.spread;
    return this.line("latents of this block", [
      [spread?.effective_rank, spread ? `effective rank, of ${block.latents.length}` : "effective rank", false],
      [spread?.raw_cosine, "mean cosine between two", false],
    ]);
  }

  line(name, facts) {
    const one = ([value, text, isLow]) => el("span", isLow ? "is-low" : "", {},
      el("b", "", {}, typeof value === "number" ? value.toFixed(2) : "…"), ` ${text}${isLow ? " (low)" : ""}`);
    return el("p", "", {}, el("span", "li-muted", {}, name), ...facts.map(one));
  }
}
