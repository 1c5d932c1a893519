// The head of the page: which replica answers, and whether the page is live.
// Owns the role, the facts about the replica, and the state of the connection with its time. Refuses to connect.

import { cut, h, say, show } from "./dom.js";
import { tell } from "./news.js";
import { currentLanguage, t, time } from "./words.js";

const $ = (id) => document.getElementById(id);

export class Head {
  constructor() {
    this.about = { leader: null, replica: "", clusterID: "", twinspan: "", now: null };
    this.link = { state: "connecting", since: new Date() };
  }

  /** Whether an answer has come. */
  get isKnown() {
    return this.about.leader !== null;
  }

  /** Takes over what an answer says about the replica. */
  learn(facts) {
    const { leader } = this.about;
    if (leader !== null && facts.leader !== leader) {
      tell(t(facts.leader ? "saidLeader" : "saidStandby"));
    }
    let same = true;
    for (const [name, known] of Object.entries(this.about)) {
      this.about[name] = facts[name] ?? known;
      same &&= name === "now" || this.about[name] === known;
    }
    if (same) {
      this.drawLink();
    } else {
      this.draw();
    }
  }

  /** The connection is `live`, or `reconnecting`. */
  joined(state) {
    if (this.link.state !== state) {
      if (this.link.state !== "connecting") {
        tell(t(state === "live" ? "saidLive" : "saidLost"));
      }
      this.link = { state, since: new Date() };
      this.drawLink();
    }
  }

  draw() {
    const { leader, clusterID, replica, twinspan } = this.about;
    const role = $("role");
    role.className = `role ${leader ? "leads" : "stands-by"}`;
    role.hidden = !this.isKnown;
    say(role, this.isKnown ? t(leader ? "leader" : "standby") : "");
    $("standby").hidden = !this.isKnown || leader;
    say($("standby"), t("standbyLong"));
    const fact = (name, value) => value && h("div", {}, h("dt", {}, t(name)), h("dd", {}, cut(value, "code")));
    show($("facts"), fact("cluster", clusterID), fact("replica", replica), fact("version", twinspan));
    this.drawLink();
  }

  drawLink() {
    const place = $("connection");
    const { state, since } = this.link;
    const at = time(since.toISOString());
    // The region is read out when it changes, and is therefore left alone when it does not.
    const written = `${state} ${currentLanguage()} ${at}`;
    if (place.dataset.written !== written) {
      place.dataset.written = written;
      place.className = `live is-${state}`;
      show(
        place,
        h("span", { class: "light", "aria-hidden": "true" }),
        h("strong", {}, t(state)),
        h("span", {}, state === "connecting" ? "" : t("since", { time: at })),
      );
    }
    const { now } = this.about;
    say($("data-of"), now ? t("dataOf", { time: time(now) }) : "");
  }
}
