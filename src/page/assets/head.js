// The head of the page: which replica answers, and whether the page is live.
// Owns the role, the facts about the replica, and the state of the connection with its time. Refuses to connect.

import { cut, h, say, show } from "./dom.js";
import { tell } from "./news.js";
import { currentLanguage, t, time } from "./words.js";

const $ = (id) => document.getElementById(id);

export class Head {
  constructor() {
    this.about = { leader: null, replica: "", clusterID: "", twinspan: "", now: null, complete: true };
    this.link = { state: "connecting", since: new Date() };
  }

  /** Whether an answer has come. */
  get isKnown() {
    return this.about.leader !== null;
  }

  /** Whether the operator has looked at everything since its start. */
  get isComplete() {
    return this.isKnown && this.about.complete;
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

  /** The replica lives at this time, and nothing changed. */
  lives(now) {
    this.about.now = now ?? this.about.now;
    this.drawLink();
  }

  /** The connection is `live`, `crowded` (everything is asked for every few seconds), or `reconnecting`. */
  joined(state) {
    if (this.link.state !== state) {
      if (this.link.state !== "connecting" || state === "crowded") {
        tell(t({ live: "saidLive", crowded: "saidCrowded", reconnecting: "saidLost" }[state]));
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
    $("first-look").hidden = !this.isKnown || this.isComplete;
    say($("first-look"), t("firstLook"));
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
        h("span", {}, words(state, at)),
      );
    }
    const { now } = this.about;
    say($("data-of"), now ? t("dataOf", { time: time(now) }) : "");
  }
}

function words(state, at) {
  if (state === "connecting") {
    return "";
  }
  return state === "crowded" ? t("crowdedLong") : t("since", { time: at });
}
