// Drawing anew without taking away what the reader holds.
// Owns the rule that an element of the same kind at the same place is changed and not replaced: a click that has begun,
// the focus, a selection and an opened list outlive every redraw. Refuses to know what is drawn.

// The functions that elements call on events. An element that stays gets those of the one that it stands for.
const handlers = new WeakMap();

/** Makes an element call a function on an event; a redraw exchanges the function. */
export function listen(element, event, handler) {
  const known = handlers.get(element) ?? new Map();
  handlers.set(element, known);
  if (!known.has(event)) {
    element.addEventListener(event, (happened) => known.get(event)(happened));
  }
  known.set(event, handler);
}

/** The children that there are, as one list: absent ones are left out. */
export function present(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}

/** Gives a place these children, and keeps each element that has the same name as one of them. */
export function redraw(place, ...children) {
  const nodes = present(children).map((child) => (child instanceof Node ? child : document.createTextNode(child)));
  adopt(place, named(nodes));
}

/** Nodes by name. An element has its key as its name, or its kind and the number among those of its kind. */
function named(nodes) {
  const numbers = new Map();
  const name = (node) => {
    if (node.nodeType !== Node.ELEMENT_NODE) {
      return node.nodeName;
    }
    const key = node.dataset.key;
    return key === undefined ? `${node.nodeName}.${node.getAttribute("class") ?? ""}#${node.id}` : `${node.nodeName} ${key}`;
  };
  return new Map(
    nodes.map((node) => {
      const one = name(node);
      const number = numbers.get(one) ?? 0;
      numbers.set(one, number + 1);
      return [`${number} ${one}`, node];
    }),
  );
}

function adopt(place, fresh) {
  const old = named([...place.childNodes]);
  for (const [name, node] of old) {
    if (!fresh.has(name)) {
      node.remove();
    }
  }
  let at = place.firstChild;
  for (const [name, node] of fresh) {
    const kept = old.get(name);
    if (!kept) {
      place.insertBefore(node, at);
      continue;
    }
    if (kept !== at && at.nextSibling === kept) {
      move(place, at, null); // One went to a later place: the rest need not move.
    } else if (kept !== at) {
      move(place, kept, at);
    }
    at = kept.nextSibling;
    update(kept, node);
  }
}

/** Moves a child; where the browser can, without taking the focus from it. */
function move(place, child, before) {
  if (place.moveBefore && place.isConnected) {
    place.moveBefore(child, before);
  } else {
    place.insertBefore(child, before);
  }
}

function update(kept, node) {
  if (kept.nodeType !== Node.ELEMENT_NODE) {
    if (kept.data !== node.data) {
      kept.data = node.data;
    }
    return;
  }
  for (const { name, value } of node.attributes) {
    if (kept.getAttribute(name) !== value) {
      kept.setAttribute(name, value);
    }
  }
  for (const { name } of [...kept.attributes]) {
    // Whether a list is open is the reader's choice.
    if (!node.hasAttribute(name) && name !== "open") {
      kept.removeAttribute(name);
    }
  }
  if (kept instanceof HTMLInputElement) {
    kept.checked = node.checked;
  }
  for (const [event, handler] of handlers.get(node) ?? []) {
    listen(kept, event, handler);
  }
  adopt(kept, named([...node.childNodes]));
}

/** Draws a place anew. The focus stays, or goes to the element with the same ID, or else to `rest`. */
export function keepFocus(place, draw, rest) {
  const had = place.contains(document.activeElement) ? document.activeElement : null;
  draw();
  if (had && !place.contains(document.activeElement)) {
    const again = (had.id && document.getElementById(had.id)) || rest();
    again?.focus({ preventScroll: true });
  }
}
