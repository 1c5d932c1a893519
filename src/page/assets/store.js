// The services that the page knows: which are shown, and in which order.
// Owns the filter, the sorting and the numbers of each state, kept by each change alone: nothing walks over all rows
// because one changed. Refuses to know how anything is drawn.

// Trouble first.
export const states = ["Lost", "Held", "Refused", "Differs", "Unknown", "Pending", "Observing", "InSync"];
const rank = new Map(states.map((state, at) => [state, at]));
/** A newer operator may have states that the page does not know. */
const known = (state) => (rank.has(state) ? state : "Unknown");

// More changes at once than this are sorted anew as a whole, which is then faster than moving each.
const MANY = 500;

/** The instances of each side: its own, and those that Twinspan put there. */
export function sidesOf({ cluster = 0, imported = 0, registryInstances = 0, exported = 0, healed = 0 }) {
  return { cluster: cluster + imported, registry: registryInstances + exported + healed };
}

// The value by which each column sorts.
const values = {
  state: (row) => rank.get(known(row.state)),
  service: (row) => row.key,
  registryName: (row) => row.registryName ?? "",
  direction: (row) => row.direction ?? "",
  sides(row) {
    const { cluster, registry } = sidesOf(row);
    return Math.abs(cluster - registry);
  },
  exported: (row) => row.exported ?? 0,
  imported: (row) => row.imported ?? 0,
  lost: (row) => row.lost ?? 0,
  held: (row) => row.held ?? 0,
  skipped: (row) => row.skipped ?? 0,
  updated: (row) => row.updated ?? "",
  verified: (row, store) => store.verifiedOf(row) ?? "",
  latency: (row) => row.latency?.at(-1) ?? -1,
};

export const columns = Object.keys(values);

const compareValues = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

export class Store {
  constructor() {
    this.filter = { words: [], states: new Set(), registry: "", namespace: "" };
    this.order = { column: "state", down: false };
    this.verified = new Map();
    this.reset([]);
  }

  /** Takes over when each registry was verified last: a row is not sent again because of it. */
  verify(registries) {
    this.verified = new Map(registries.map(({ name, lastVerified }) => [name, lastVerified]));
    if (this.order.column === "verified") {
      this.arrange();
    }
  }

  /** When a service was verified last: with its registry. */
  verifiedOf(row) {
    return this.verified.get(row.registry) ?? row.lastVerified;
  }

  /** Replaces everything. */
  reset(rows) {
    this.entries = new Map();
    this.stateCounts = new Map();
    this.registryCounts = new Map();
    this.namespaceCounts = new Map();
    for (const row of rows) {
      this.#count(row, 1);
      this.entries.set(row.key, entry(row));
    }
    this.arrange();
  }

  /** Puts changed rows in and takes the gone ones out. */
  apply(rows, gone) {
    const many = rows.length + gone.length > MANY;
    for (const key of gone) {
      const old = this.entries.get(key);
      if (old) {
        this.#leave(old, many);
        this.entries.delete(key);
        this.#count(old.row, -1);
      }
    }
    for (const row of rows) {
      const old = this.entries.get(row.key);
      if (old) {
        this.#leave(old, many);
        this.#count(old.row, -1);
      }
      const fresh = entry(row);
      this.entries.set(row.key, fresh);
      this.#count(row, 1);
      if (!many && this.#matches(fresh)) {
        this.shown.splice(this.#place(fresh), 0, fresh);
      }
    }
    if (many) {
      this.arrange();
    }
  }

  /** Filters and sorts anew: after a change of either. */
  arrange() {
    this.shown = [];
    for (const candidate of this.entries.values()) {
      if (this.#matches(candidate)) {
        this.shown.push(candidate);
      }
    }
    const of = values[this.order.column];
    for (const one of this.shown) {
      one.by = of(one.row, this);
    }
    this.shown.sort((a, b) => this.#compare(a, b));
  }

  /** The place of a service among those shown; -1 if it is not. */
  placeOf(key) {
    const one = this.entries.get(key);
    if (!one || !this.#matches(one)) {
      return -1;
    }
    const at = this.#place(one);
    return this.shown[at] === one ? at : -1;
  }

  /** Whether the filter lets a row through. */
  admits(row) {
    return this.#matches(entry(row));
  }

  #compare(a, b) {
    const by = compareValues(a.by, b.by);
    return by === 0 ? compareValues(a.row.key, b.row.key) : this.order.down ? -by : by;
  }

  #place(one) {
    one.by = values[this.order.column](one.row, this);
    let [low, high] = [0, this.shown.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#compare(this.shown[middle], one) < 0) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }

  #leave(old, many) {
    const at = many ? -1 : this.#place(old);
    if (at >= 0 && this.shown[at] === old) {
      this.shown.splice(at, 1);
    }
  }

  #matches({ row, hay }) {
    const { words, states: chosen, registry, namespace } = this.filter;
    return (
      (chosen.size === 0 || chosen.has(known(row.state))) &&
      (!registry || row.registry === registry) &&
      (!namespace || row.namespace === namespace) &&
      words.every((part) => hay.includes(part))
    );
  }

  #count(row, by) {
    for (const [counts, value] of [
      [this.stateCounts, known(row.state)],
      [this.registryCounts, row.registry],
      [this.namespaceCounts, row.namespace],
    ]) {
      const n = (counts.get(value) ?? 0) + by;
      if (n > 0) {
        counts.set(value, n);
      } else {
        counts.delete(value);
      }
    }
  }
}

function entry(row) {
  return { row, by: null, hay: `${row.key}\n${row.registryName ?? ""}`.toLowerCase() };
}

/** The words of a search: each of them has to occur. */
export function wordsOf(text) {
  return text.toLowerCase().split(/\s+/).filter(Boolean);
}
