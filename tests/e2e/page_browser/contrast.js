// Returns each visible text of the page whose contrast is below WCAG 2.2 AA (1.4.3), and the number of texts.
const rgb = (text) => {
  const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number);
  return { r, g, b, a };
};
const over = (top, below) => {
  const mix = (name) => top[name] * top.a + below[name] * (1 - top.a);
  return { r: mix("r"), g: mix("g"), b: mix("b"), a: 1 };
};
const luminance = ({ r, g, b }) => {
  const part = (value) => {
    const c = value / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  };
  return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
};
const ground = (element) => {
  const layers = [];
  for (let at = element; at; at = at.parentElement) {
    layers.push(rgb(getComputedStyle(at).backgroundColor));
  }
  return layers.reverse().reduce((below, top) => over(top, below), { r: 255, g: 255, b: 255, a: 1 });
};
const visible = (element) => {
  const box = element.getBoundingClientRect();
  return box.width > 1 && box.height > 1 && element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
};
const low = [];
let texts = 0;
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  const text = walker.currentNode.textContent.trim();
  if (!text || !visible(element) || element.closest("noscript, option")) {
    continue;
  }
  texts += 1;
  const style = getComputedStyle(element);
  const below = ground(element);
  const [a, b] = [luminance(over(rgb(style.color), below)), luminance(below)].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  const size = Number.parseFloat(style.fontSize);
  const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  if (ratio < (isLarge ? 3 : 4.5)) {
    low.push(`${ratio.toFixed(2)} ${style.color} "${text.slice(0, 40)}" in ${element.className || element.tagName}`);
  }
}
// Shapes and borders of controls carry meaning too (1.4.11).
for (const element of document.querySelectorAll("input, select, .command button, #close, .shape, .line")) {
  if (!visible(element)) {
    continue;
  }
  texts += 1;
  const style = getComputedStyle(element);
  const own = element instanceof SVGElement ? style.color : style.borderTopColor;
  const below = ground(element instanceof SVGElement ? element : element.parentElement);
  const [a, b] = [luminance(over(rgb(own), below)), luminance(below)].sort((x, y) => y - x);
  if ((a + 0.05) / (b + 0.05) < 3) {
    low.push(`${((a + 0.05) / (b + 0.05)).toFixed(2)} ${own} of ${element.id || element.getAttribute("class")}`);
  }
}
return { low, texts };
