// The connection to the operator: one complete state, then its changes.
// Owns the version that the page has, the bounded waits between attempts, and the watch over a silent stream. Refuses to
// know what a change means.

const FIRST_WAIT = 500;
const LONGEST_WAIT = 10_000;
// An answer that takes longer will not come.
const PATIENCE = 20_000;
// An operator that lives sends an event at least every 15 s.
const SILENCE = 40_000;
// A stream that has been open for so long was no mere attempt.
const STEADY = 5_000;
// The time between two questions for everything, while there is no place for a stream.
const POLL = 10_000;

export class Stream {
  /** `heard` has `state(whole)`, `change(part)`, `alive(sign)`, `up()`, `crowded()` and `down()`. */
  constructor(heard) {
    this.heard = heard;
    this.version = 0;
    this.boot = "";
    this.wait = FIRST_WAIT;
    this.source = null;
    this.timer = 0;
    this.silence = 0;
    this.steady = 0;
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
    let opened = false;
    // A proxy may send each request to another replica, which knows nothing of the state that the last one gave: an
    // open stream proves nothing at first, for the reset comes next. One reset is another leader.
    let doubted = fresh;
    const lost = () => this.#again(() => (opened ? this.#follow() : this.start()));
    const failed = () => {
      if (opened) {
        lost();
      } else if (fresh) {
        // The operator answers, and has no place for one more stream.
        this.heard.crowded();
        this.#retryIn(POLL, () => this.start());
      } else {
        this.start();
      }
    };
    const listen = (name, happened) =>
      source.addEventListener(name, (event) => {
        this.#watch(lost);
        happened(event);
      });
    this.#watch(lost);
    listen("open", () => {
      opened = true;
      this.steady = setTimeout(() => {
        doubted = false;
        this.wait = FIRST_WAIT;
      }, STEADY);
      this.heard.up();
    });
    listen("alive", (event) => this.heard.alive(JSON.parse(event.data)));
    listen("change", (event) => {
      doubted = false;
      this.wait = FIRST_WAIT;
      const part = JSON.parse(event.data);
      if (part.version > this.version) {
        this.version = part.version;
        this.heard.change(part);
      }
    });
    listen("reset", () => {
      if (doubted) {
        this.#again(() => this.start(), this.wait === FIRST_WAIT);
      } else {
        this.start();
      }
    });
    // The browser would repeat the same URL, and with it a version that is long past.
    source.addEventListener("error", failed);
  }

  /** Waits for the next event. A frozen operator keeps its connections, and would be taken for a quiet one. */
  #watch(lost) {
    clearTimeout(this.silence);
    this.silence = setTimeout(lost, SILENCE);
  }

  /** Waits, then tries again. `quietly` says that nothing has failed so far. */
  #again(retry, quietly = false) {
    this.#stop();
    if (!quietly) {
      this.heard.down();
    }
    this.#retryIn(this.wait, retry);
    this.wait = Math.min(this.wait * 2, LONGEST_WAIT);
  }

  #retryIn(wait, retry) {
    this.#stop();
    this.retry = () => {
      this.retry = null;
      retry();
    };
    // Pages that lost the same operator do not all come back in the same moment.
    this.timer = setTimeout(this.retry, wait * (0.75 + Math.random() / 2));
  }

  #stop() {
    clearTimeout(this.timer);
    clearTimeout(this.silence);
    clearTimeout(this.steady);
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
