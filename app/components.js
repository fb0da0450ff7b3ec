/* The page's own components. Each function of `draw` gets its element once and returns what redraws it for a new value.
   Text that a visitor or a file brought only ever becomes text nodes. */
(() => {
  "use strict";
  if (window.LatentOmniApp) return;

  const media = new Map(); // clip key -> thumbnails and sound curve; the last two clips
  const arrived = new EventTarget();

  function el(tag, className = "", attributes = {}, ...children) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

  function keep(key, value) {
    if (!key || !value || media.has(key)) return;
    media.set(key, value);
    while (media.size > 2) media.delete(media.keys().next().value);
    arrived.dispatchEvent(new Event("media"));
  }

  /* A recording has no length in its header: going to its end makes the browser find it. */
  function findLength(player) {
    if (player.duration !== Infinity) return;
    player.addEventListener("durationchange", () => (player.currentTime = 0), {once: true});
    player.currentTime = 1e9;
  }

  const draw = {
    inspector(root) {
      const hint = el("div", "lo-hint", {}, el("h3", "", {}, "What you will see here"), ...[
        ["visual", "A visual latent stands for a part of the picture at a moment."],
        ["audio", "An audio latent stands for the sound of a moment."],
        ["", "A hatched cell resembles no moment of the clip more than latents of other clips do: no evidence."],
      ].map(([modality, text]) => el("p", "", {}, el("i", `li-key${modality ? "" : " is-none"}`, {"data-modality": modality}), text)),
      el("p", "lo-quiet", {}, "Before it answers in words, the model computes a few vectors for itself. Each is shown with the moment of the clip it is most similar to. A click on a cell takes the player there. Similar does not mean used."));
      const frame = el("div", "", {hidden: ""});
      const inspector = LatentInspector.mount(frame, {player: "#clip-player", theme: "host"});
      root.append(el("div", "li", {"data-theme": "host"}, hint), frame);
      let view = null, drawnWith = null;
      const update = () => {
        frame.hidden = !view;
        hint.parentNode.hidden = Boolean(view);
        if (!view) return;
        const pictures = media.get(view.clip.key);
        inspector.update(pictures && drawnWith !== pictures ? {...view, media: pictures} : view);
        drawnWith = pictures ?? null;
      };
      arrived.addEventListener("media", update);
      return (value) => {
        view = value || null;
        update();
      };
    },

    player(root) {
      let shown = null;
      const screen = el("div", "lo-screen");
      const facts = el("p", "lo-facts");
      root.append(screen, facts);

      function still(value) {
        const frame = el("div", "lo-stills");
        const view = {clip: {key: value.key, duration_s: 1e9}, media: value.media, blocks: [], pieces: [""], grid: [1, 1, 1]};
        screen.append(frame);
        LatentInspector.mount(frame, {player: "#clip-player", theme: "host", parts: ["stage"]}).update(view);
      }

      function show(value) {
        const {kind, file, media: pictures} = value;
        screen.replaceChildren();
        screen.dataset.kind = kind;
        if (kind === "stills") still(value);
        if (kind === "unplayable") {
          screen.append(el("p", "lo-quiet", {}, "Browsers cannot play this kind of file. The model reads it all the same; its pictures appear here with the answer."));
          return;
        }
        const isVideo = kind === "video";
        const player = el(isVideo ? "video" : "audio", "", {id: "clip-player", controls: "", preload: "auto", src: file.url,
          "aria-label": isVideo ? "the clip" : "the sound of the clip", ...(isVideo ? {playsinline: ""} : {})});
        player.addEventListener("loadedmetadata", () => findLength(player), {once: true});
        player.addEventListener("error", () => {
          if (isVideo && pictures) show({...value, kind: "unplayable"});
        }, {once: true});
        screen.append(player);
      }

      return (value) => {
        if (!value) return;
        keep(value.key, value.media);
        const sign = `${value.kind} ${value.file?.url}`;
        if (sign === shown) return;
        shown = sign;
        show(value);
        facts.replaceChildren(el("b", "", {}, value.name), ` ${value.facts}`);
      };
    },

    examples(root, select) {
      root.setAttribute("role", "list");
      return (cards) => root.replaceChildren(...(cards || []).map((card, index) => {
        const stills = card.stills.map((src) => el("img", "", {src, alt: "", draggable: "false"}));
        const button = el("button", "lo-card", {type: "button"}, el("span", "lo-strip", {}, ...stills),
          el("b", "", {}, card.title), el("span", "", {}, card.question));
        button.addEventListener("click", () => select({index}));
        return el("div", "", {role: "listitem"}, button);
      }));
    },

    conversation(root, select) {
      return (value) => {
        if (!value) return root.replaceChildren();
        const turns = value.turns.map((turn, index) => {
          const isShown = index === value.shown;
          const tag = isShown ? "h2" : "button";
          const node = el(tag, "lo-turn", isShown ? {} : {type: "button", "aria-label": `show the answer to: ${turn.question}`},
            el("span", "lo-asked", {}, turn.question));
          if (!isShown) {
            node.append(el("span", "lo-answered", {}, turn.answer ?? ""));
            if (!turn.is_live) node.append(el("span", "lo-answered", {}, "(not remembered by the model)"));
            node.disabled = value.is_running;
            node.addEventListener("click", () => select({index}));
          }
          return el("li", "", {}, node);
        });
        const notices = value.notices.map((notice) => el("li", "", {}, notice));
        root.replaceChildren(el("ol", "lo-turns", {"aria-label": "questions so far"}, ...turns),
          el("p", "lo-caption", {}, value.caption || "\u00a0"), ...(notices.length ? [el("ul", "lo-notices", {"aria-label": "notes on this answer"}, ...notices)] : []));
      };
    },

    suggestions(root, select) {
      return (questions) => {
        root.hidden = !questions?.length;
        root.replaceChildren(el("span", "lo-quiet", {}, "This clip can also answer"), ...(questions || []).map((question, index) => {
          const button = el("button", "lo-suggestion", {type: "button"}, question);
          button.addEventListener("click", () => {
            select({index});
            document.querySelector("#question textarea, #question input")?.focus();
          });
          return button;
        }));
      };
    },

    status(root) {
      root.setAttribute("role", "status");
      return (value) => {
        root.dataset.kind = value?.kind ?? "done";
        if (root.textContent !== value?.text) root.replaceChildren(el("i", "", {"aria-hidden": "true"}), el("span", "", {}, value?.text ?? ""));
      };
    },
  };

  window.LatentOmniApp = {
    mount(name, element, props, watch, select) {
      const redraw = draw[name](element.firstElementChild, select);
      watch("value", () => redraw(props.value));
      redraw(props.value);
    },
  };
})();
