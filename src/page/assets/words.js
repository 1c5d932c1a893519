// The language in force, and how numbers and times are written in it.
// Owns the choices of the reader: language and colours, kept where the browser lets them be kept. Refuses to know where
// a word stands.

import { languages, texts } from "./texts.js";

const themes = ["auto", "light", "dark"];

function kept(name, allowed) {
  try {
    const value = localStorage.getItem(`twinspan.${name}`);
    return allowed.includes(value) ? value : null;
  } catch {
    return null; // Storage can be forbidden; the choice then lasts as long as the page.
  }
}

function keep(name, value) {
  try {
    localStorage.setItem(`twinspan.${name}`, value);
  } catch {
    // See above.
  }
}

function preferred() {
  const wanted = navigator.languages?.length ? navigator.languages : [navigator.language || "en"];
  return wanted.map((tag) => tag.slice(0, 2).toLowerCase()).find((tag) => languages.includes(tag)) ?? "en";
}

let language = kept("language", languages) ?? preferred();
let theme = kept("theme", themes) ?? "auto";
// Grows with each change of the language: what was written under another number has to be written again.
let epoch = 0;
let numbers = new Intl.NumberFormat(language);

export const currentLanguage = () => language;
export const currentTheme = () => theme;
export const currentEpoch = () => epoch;

export function nextLanguage() {
  language = languages[(languages.indexOf(language) + 1) % languages.length];
  numbers = new Intl.NumberFormat(language);
  epoch += 1;
  keep("language", language);
}

export function nextTheme() {
  theme = themes[(themes.indexOf(theme) + 1) % themes.length];
  keep("theme", theme);
}

/** A text of the page; `{name}` is replaced by the value of that name. */
export function t(key, values = {}) {
  const text = key.split(".").reduce((at, part) => at?.[part], texts[language]);
  if (typeof text !== "string") {
    return key;
  }
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/** The word for a value of a bounded list; the value itself where the list has grown. */
export function word(list, value) {
  const words = texts[language][list] ?? {};
  return Object.hasOwn(words, value ?? "") ? words[value] : String(value ?? "");
}

/** A message; where the operator gave it a code that the page knows, in the language in force. */
export function messageOf(message, code) {
  const known = word("messages", code);
  return code && known !== code ? known : message;
}

export const number = (n) => numbers.format(n ?? 0);

const two = (n) => String(n).padStart(2, "0");

/** Hours, minutes and seconds of the reader's clock; the day as well where it is another. */
export function time(text, now = new Date()) {
  const at = new Date(text ?? Number.NaN);
  if (Number.isNaN(at.getTime())) {
    return t("never");
  }
  const clock = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  if (at.toDateString() === now.toDateString()) {
    return clock;
  }
  const day = `${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock}`;
  return at.getFullYear() === now.getFullYear() ? day : `${at.getFullYear()}-${day}`;
}

/** A length of time that was measured. */
export function duration(ms) {
  if (ms < 999.5) {
    return t("ms", { n: number(Math.round(ms)) });
  }
  return t("s", { n: number(ms < 9_950 ? Math.round(ms / 100) / 10 : Math.round(ms / 1000)) });
}
