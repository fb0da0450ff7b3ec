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

  /* What components.py sends as text. */
  const parsed = (value) => (typeof value === "string" && value ? JSON.parse(value) : value);

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

  /* The latent that was chosen last, wherever on the page, for the tab that changes it. */
  let chosen = null;
  document.addEventListener("latent-select", ({target, detail}) => {
    if (target.closest?.("#after")) return;
    chosen = detail;
    for (const node of document.querySelectorAll(".lo-chosen")) node.replaceChildren(chosenText());
    if (!target.closest?.(".li")) go(detail.start_s);
  });
  document.addEventListener("latent-seek", ({detail}) => go(detail.seconds));

  function go(seconds) {
    const player = document.querySelector("#clip-player");
    if (player && Number.isFinite(seconds)) player.currentTime = seconds;
  }

  function chosenText() {
    return chosen ? `Chosen: block ${chosen.block + 1}, latent ${chosen.slot + 1}.` : "No latent is chosen yet; click one under Latents.";
  }

  /* A clip of which the model read a part: the page's clock begins with that part. */
  function countFrom(player, start) {
    if (!start) return;
    const {get, set} = Object.getOwnPropertyDescriptor(HTMLMediaElement.prototype, "currentTime");
    Object.defineProperty(player, "currentTime", {
      get: () => get.call(player) - start,
      set: (seconds) => set.call(player, seconds + start),
    });
    player.addEventListener("loadedmetadata", () => (player.currentTime = 0), {once: true});
  }

  /* A view of another tab, drawn by visualizers/static. */
  function linked(name, label) {
    return (root) => {
      const frame = el("div", "", {hidden: "", role: "region", "aria-label": label});
      root.append(frame);
      let view = null;
      return (value) => {
        frame.hidden = !value;
        if (!value) return;
        view ??= LatentViews.mount(name, frame, {player: "#clip-player", theme: "host"});
        const pictures = media.get(value.clip?.key);
        view.update(pictures ? {...value, media: pictures} : value);
      };
    };
  }

  const draw = {
    map: linked("map", "map of latents and moments"),
    attention: linked("attention", "attention of every step"),
    comparison: linked("compare", "runs beside each other"),
    whatif: linked("whatif", "both answers"),

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
        countFrom(player, value.start_s);
        player.addEventListener("loadedmetadata", () => findLength(player), {once: true});
        player.addEventListener("error", () => {
          if (isVideo && pictures) show({...value, kind: "unplayable"});
        }, {once: true});
        screen.append(player);
      }

      return (value) => {
        if (!value) return;
        document.documentElement.classList.remove("lo-opening");
        value = {...value, media: parsed(value.media)};
        keep(value.key, value.media);
        const sign = `${value.kind} ${value.file?.url} ${value.start_s}`;
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
        const button = el("button", "lo-card", {type: "button", title: card.question}, el("span", "lo-strip", {}, ...stills),
          el("b", "", {}, card.title), el("span", "", {}, card.question));
        button.addEventListener("click", () => {
          document.documentElement.classList.add("lo-opening"); // until the player or an error is there
          select({index});
        });
        return el("div", "", {role: "listitem"}, button);
      }));
    },

    arms(root, select) {
      return (groups) => root.replaceChildren(el("p", "lo-chosen lo-quiet", {}, chosenText()), ...(groups || []).map(({title, arms}) =>
        el("section", "", {"aria-label": title}, el("h3", "", {}, title), el("div", "lo-cards", {}, ...arms.map(({arm, title, text}) => {
          const button = el("button", "lo-arm", {type: "button", "data-arm": arm}, el("b", "", {}, title), el("span", "", {}, text));
          button.addEventListener("click", () => {
            root.querySelector('[aria-current="true"]')?.removeAttribute("aria-current");
            button.setAttribute("aria-current", "true");
            select({arm, chosen: chosen && {block: chosen.block, slot: chosen.slot}});
          });
          return button;
        })))));
    },

    guide(root) {
      const KEY = "latentomni-guided";
      return (steps) => {
        root.hidden = localStorage.getItem(KEY) !== null;
        const away = el("button", "lo-suggestion", {type: "button"}, "Got it");
        away.addEventListener("click", () => {
          localStorage.setItem(KEY, "1");
          root.hidden = true;
        });
        root.replaceChildren(el("b", "", {}, "New here?"), el("ol", "", {}, ...(steps || []).map((step) => el("li", "", {}, step))), away);
      };
    },

    history(root, select) {
      const said = el("p", "lo-quiet", {role: "status"});
      const when = (seconds) => new Date(seconds * 1000).toLocaleString([], {dateStyle: "medium", timeStyle: "short"});
      const button = (text, label, act) => {
        const node = el("button", "lo-suggestion", {type: "button", "aria-label": label}, text);
        node.addEventListener("click", act);
        return node;
      };
      const link = (run) => {
        const url = new URL(location.href);
        url.search = new URLSearchParams({run});
        return url.href;
      };
      const copy = async (run) => {
        try {
          await navigator.clipboard.writeText(link(run));
          said.replaceChildren("The link is copied.");
        } catch {
          said.replaceChildren("This browser lets no page copy; here is the link: ", el("a", "", {href: link(run)}, link(run)));
        }
      };
      return (value) => {
        const rows = (value?.runs || []).map(({run, question, answer, clip, mode, latents, at_s}) => el("li", "lo-run", {"data-run": run},
          el("b", "", {translate: "no"}, question), el("span", "", {translate: "no"}, answer || "(no words)"),
          el("span", "lo-quiet", {}, `${clip}, ${mode}, ${latents} latents, ${when(at_s)}`),
          el("span", "lo-acts", {}, button("Open", `open: ${question}`, () => select({run, action: "open"})),
            button("Copy the link", `copy the link of: ${question}`, () => copy(run)),
            button("Forget", `forget: ${question}`, () => select({run, action: "forget"})))));
        root.replaceChildren(rows.length ? el("ul", "lo-runs", {"aria-label": "earlier runs"}, ...rows)
          : el("p", "lo-empty", {}, "No run is remembered yet. Ask a question, and its answer is kept here."), said);
      };
    },

    plan(root) {
      const size = (bytes) => bytes < 1e9 ? `${Math.max(1, Math.round(bytes / 1e6))} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
      return (value) => {
        root.classList.toggle("has-problem", Boolean(value?.problem));
        if (!value) return root.replaceChildren();
        const {frames, tokens, bytes, seconds, problem} = value;
        const facts = tokens ? [`${frames} frames`, `${tokens.visual} + ${tokens.audio} tokens of picture and sound`,
          `${size(bytes)} of memory`, ...(seconds == null ? [] : [`about ${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`])] : [];
        root.replaceChildren(el("span", "", {}, facts.length ? `Next run: ${facts.join(", ")}.` : ""), el("span", "lo-problem", {}, problem || ""));
      };
    },

    conversation(root, select) {
      const findings = ({findings}) => findings?.length
        ? [el("ul", "lo-findings", {"aria-label": "what the self test found"}, ...findings.map((found) => el("li", "", {}, found)))] : [];
      return (value) => {
        if (!value) return root.replaceChildren();
        const turns = value.turns.map((turn, index) => {
          const isShown = index === value.shown;
          const tag = isShown ? "h2" : "button";
          const node = el(tag, "lo-turn", isShown ? {} : {type: "button", "aria-label": `show the answer to: ${turn.question}`},
            el("span", "lo-asked", {translate: "no"}, turn.question));
          if (!isShown) {
            node.append(el("span", "lo-answered", {translate: "no"}, turn.answer ?? ""));
            if (!turn.is_live) node.append(el("span", "lo-answered", {}, "(not remembered by the model)"));
            node.disabled = value.is_running;
            node.addEventListener("click", () => select({index}));
          }
          return el("li", "", {}, node);
        });
        const notices = value.notices.map((notice) => el("li", "", {}, notice));
        root.replaceChildren(el("ol", "lo-turns", {"aria-label": "questions so far"}, ...turns),
          el("p", "lo-caption", {}, value.caption || "\u00a0"), ...findings(value), ...(notices.length ? [el("ul", "lo-notices", {"aria-label": "notes on this answer"}, ...notices)] : []));
      };
    },

    suggestions(root, select) {
      return (questions) => {
        root.hidden = !questions?.length;
        root.replaceChildren(el("span", "lo-quiet", {}, "This clip can also answer"), ...(questions || []).map((question, index) => {
          const button = el("button", "lo-suggestion", {type: "button", translate: "no"}, question);
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
        if (value?.kind === "error") document.documentElement.classList.remove("lo-opening");
        if (root.textContent !== value?.text) root.replaceChildren(el("i", "", {"aria-hidden": "true"}), el("span", "", {}, value?.text ?? ""));
      };
    },
  };

  window.LatentOmniApp = {
    mount(name, element, props, watch, select) {
      const redraw = draw[name](element.firstElementChild, select);
      watch("value", () => redraw(parsed(props.value)));
      redraw(parsed(props.value));
    },
  };
})();
