/* The page in another language. Whatever the page shows in English is looked up in one dictionary (app/chinese.py), texts with
   {places} as patterns; what is not there stays English. What people and models wrote is marked translate="no" and stays, too. */
window.LatentOmniLanguage = (texts) => {
  "use strict";
  const KEY = "latentomni-language";
  const KEPT = '[translate="no"], .li-text, textarea, script, style';
  const ATTRIBUTES = ["aria-label", "placeholder", "title"];
  const plain = new Map(), patterns = [];
  for (const [english, other] of Object.entries(texts)) {
    if (!/\{\w*\}/.test(english)) plain.set(english, other);
    else {
      const source = english.split(/\{\w*\}/).map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("(.+?)");
      patterns.push([new RegExp(`^${source}$`), other]);
    }
  }

  function say(text) {
    const trimmed = text.trim();
    if (trimmed.includes("\n")) return text.split("\n").map(say).join("\n");
    if (plain.has(trimmed)) return text.replace(trimmed, () => plain.get(trimmed));
    for (const [pattern, other] of patterns) {
      const found = trimmed.match(pattern);
      if (found) return other.replace(/\{(\d)\}/g, (_, n) => say(found[n]));
    }
    return text;
  }

  const original = new WeakMap(); // node -> what it said in English, and what we made of it
  function turn(node, read, write) {
    const now = read();
    const kept = original.get(node);
    const english = kept && kept.said === now ? kept.english : now;
    const said = isOther ? say(english) : english;
    original.set(node, {english, said});
    if (said !== now) write(said);
  }
  function turnAttributes(node) {
    for (const name of ATTRIBUTES) {
      const attribute = node.getAttributeNode(name);
      if (attribute) turn(attribute, () => attribute.value, (said) => (attribute.value = said));
    }
  }
  function translate(root) {
    if (root.nodeType === Node.TEXT_NODE) {
      if (root.data.trim() && !root.parentElement?.closest(KEPT)) turn(root, () => root.data, (said) => (root.data = said));
      return;
    }
    if (root.nodeType !== Node.ELEMENT_NODE) return;
    if (root.closest('[translate="no"], script, style')) return;
    turnAttributes(root);
    root.childNodes.forEach(translate);
  }

  const observer = new MutationObserver((records) => {
    for (const {type, target, addedNodes} of records) {
      if (type === "childList") addedNodes.forEach(translate);
      else if (type === "characterData") translate(target);
      else if (!target.closest(KEPT) || target.matches("textarea")) turnAttributes(target);
    }
  });
  let isOther = false;
  function use(language) {
    isOther = language === "zh";
    document.documentElement.lang = language;
    observer.disconnect();
    translate(document.body);
    if (isOther) observer.observe(document.body, {subtree: true, childList: true, characterData: true, attributeFilter: ATTRIBUTES});
    const button = document.querySelector("#language");
    if (button) button.textContent = isOther ? "English" : "中文";
  }

  document.addEventListener("click", ({target}) => {
    if (target.id !== "language") return;
    const language = isOther ? "en" : "zh";
    localStorage.setItem(KEY, language);
    use(language);
  });
  const wanted = localStorage.getItem(KEY) ?? (navigator.language.startsWith("zh") ? "zh" : "en");
  const begin = () => document.querySelector("#language") ? use(wanted) : setTimeout(begin, 50);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin(); // gradio puts the head's scripts in when it likes
};
