// The connection to the operator: one complete state, then its changes.
// Owns the version that the page has, and the bounded waits between attempts. Refuses to know what a change means.

const FIRST_WAIT = 500;
const LONGEST_WAIT = 10_000;
// An answer that takes longer will not come.
const PATIENCE = 20_000;

export class Stream {
  /** `heard` has `state(whole)`, `change(part)`, `up()` and `down()`. */
  constructor(heard) {
    this.heard = heard;
    this.version = 0;
    this.boot = "";
    this.wait = FIRST_WAIT;
    this.source = null;
    this.timer = 0;
  }

  /** Fetches everything, then follows. */
  async start() {
    this.#stop();
    try {
      const whole = await json("state");
      this.version = whole.version;
      this.boot = whole.boot;
      this.heard.state(whole);
    } catch {
      this.#again(() => this.start());
      return;
    }
    this.#follow(true);
  }

  /** Tries again at once: the browser says that there is a network again, or the page is looked at again. */
  hurry() {
    if (this.retry) {
      this.wait = FIRST_WAIT;
      clearTimeout(this.timer);
      this.retry();
    }
  }

  /** `fresh` says that the state has just come: beginning anew at once would bring the same again. */
  #follow(fresh = false) {
    this.#stop();
    const source = new EventSource(`events?since=${encodeURIComponent(this.version)}&boot=${encodeURIComponent(this.boot)}`);
    this.source = source;
    // A proxy may send each request to another replica, which knows nothing of the state that the last one gave: an
    // open stream proves nothing, and only a change shows that both come from the same. One reset is another leader.
    let doubted = fresh;
    source.addEventListener("open", () => this.heard.up());
    source.addEventListener("change", (event) => {
      doubted = false;
      this.wait = FIRST_WAIT;
      const part = JSON.parse(event.data);
      if (part.version > this.version) {
        this.version = part.version;
        this.heard.change(part);
      }
    });
    source.addEventListener("reset", () => {
      if (doubted) {
        this.#again(() => this.start(), this.wait === FIRST_WAIT);
      } else {
        this.start();
      }
    });
    // The browser would repeat the same URL, and with it a version that is long past.
    source.addEventListener("error", () => this.#again(() => this.#follow()));
  }

  /** Waits, then tries again. `quietly` says that nothing has failed so far. */
  #again(retry, quietly = false) {
    this.#stop();
    if (!quietly) {
      this.heard.down();
    }
    this.retry = () => {
      this.retry = null;
      retry();
    };
    // Pages that lost the same operator do not all come back in the same moment.
    this.timer = setTimeout(this.retry, this.wait * (0.75 + Math.random() / 2));
    this.wait = Math.min(this.wait * 2, LONGEST_WAIT);
  }

  #stop() {
    clearTimeout(this.timer);
    this.retry = null;
    this.source?.close();
    this.source = null;
  }
}

/** One answer of the operator. */
export async function json(path, signal) {
  const deadline = AbortSignal.timeout(PATIENCE);
  const answer = await fetch(path, {
    cache: "no-store",
    headers: { accept: "application/json" },
    signal: signal ? AbortSignal.any([signal, deadline]) : deadline,
  });
  if (!answer.ok) {
    throw Object.assign(new Error(`${answer.status} ${answer.statusText}`), { status: answer.status });
  }
  return answer.json();
}
