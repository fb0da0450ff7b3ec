/* Keep a card as SVG, PNG or CSV, in the browser alone.

   card.append(exportMenu(card, name, rows))

   name: of the file, without its ending; text, or a function that gives it. rows: a function that gives the table that
   the card draws, header first; without it there is no CSV. */

const PNG_SCALE = 2;
const UNWRITABLE = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g; // characters that XML cannot hold

function exportMenu(card, name, rows = null) {
  const kinds = ["SVG", "PNG", ...(rows ? ["CSV"] : [])];
  const icon = svg("svg", {viewBox: "0 0 16 16", "aria-hidden": "true"},
    svg("path", {d: "M8 2v8M4.5 7 8 10.5 11.5 7M2.5 13.5h11"}));
  const buttons = kinds.map((kind) => el("button", "", {type: "button", "data-keep": kind}, kind));
  const label = "keep this card as a file";
  const summary = el("summary", "", {"aria-label": label, title: label}, icon);
  const menu = el("details", "li-keep", {}, summary, el("div", "", {role: "group", "aria-label": label}, ...buttons));
  const close = (event) => !menu.contains(event.target) && (menu.open = false);
  menu.addEventListener("toggle", () => {
    if (menu.open) document.addEventListener("pointerdown", close, true);
    else document.removeEventListener("pointerdown", close, true);
  });
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !menu.open) return;
    menu.open = false;
    summary.focus();
  });
  menu.addEventListener("click", (event) => {
    const kind = event.target.dataset.keep;
    if (!kind) return;
    menu.open = false;
    summary.focus();
    keep(kind, card, typeof name === "function" ? name() : name, rows);
  });
  return menu;
}

async function keep(kind, card, name, rows) {
  if (kind === "CSV") return download(new Blob([csv(rows())], {type: "text/csv"}), `${name}.csv`);
  const picture = svgOfCard(card);
  if (kind === "SVG") return download(new Blob([picture.text], {type: "image/svg+xml"}), `${name}.svg`);
  return download(await png(picture), `${name}.png`);
}

function csv(rows) {
  const cell = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return rows.map((row) => `${row.map(cell).join(",")}\r\n`).join("");
}

/* The card with the style sheet it is drawn with, inside a foreignObject: what browsers draw, letter by letter. */
function svgOfCard(card) {
  const {width, height} = card.getBoundingClientRect();
  const root = card.closest(".li") ?? card.parentElement;
  const copy = card.cloneNode(true);
  copy.querySelectorAll(".li-keep, [hidden]").forEach((node) => node.remove());
  Object.assign(copy.style, {width: `${width}px`, height: `${height}px`, position: "static", margin: "0"});
  const {color, font, colorScheme} = getComputedStyle(card);
  const follows = colorScheme === "normal" || colorScheme.includes("light dark");
  const scheme = follows ? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light") : colorScheme;
  const frame = el("div", root.className, {style: `color-scheme:${scheme};width:${root.clientWidth}px`}, copy);
  Object.assign(frame.style, {color, font});
  const inside = svg("foreignObject", {width, height}, el("style", "", {}, ownStyles(card)), frame);
  const node = svg("svg", {width, height, viewBox: `0 0 ${width} ${height}`}, inside);
  const text = new XMLSerializer().serializeToString(node).replace(UNWRITABLE, "");
  return {width, height, text: text.toWellFormed?.() ?? text};
}

function ownStyles(card) { // the sheets that know a card; no other of the page
  const styles = [document, card.getRootNode()].flatMap((home) => [...home.querySelectorAll("style")]);
  const texts = styles.map((style) => style.textContent).filter((text) => text.includes(".li-card"));
  return [...new Set(texts)].join("\n");
}

async function png({width, height, text}) {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await image.decode();
  const canvas = el("canvas", "", {width: Math.ceil(width * PNG_SCALE), height: Math.ceil(height * PNG_SCALE)});
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

function download(blob, name) {
  const address = URL.createObjectURL(blob);
  el("a", "", {href: address, download: name.replace(/[^\w.-]+/g, "-")}).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000); // some browsers read it later
}
