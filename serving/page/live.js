// The values of this moment: counters of each node that answers, and the rollout.

const EVERY_MS = 2000, WINDOW_S = 30, OLD_MS = 10_000;
const IDLE_MS = 300_000; // without a visitor's action; a page that is left open must let replicas end
const live = {nodes: new Map(), at: 0, used: 0, why: "", stopped: false, drawn: "", timer: 0};

/** Keep what one node has counted; a node's replicas count together. */
const record = (said) => {
  const {node, traffic} = said, kept = live.nodes.get(node)?.snapshots ?? [];
  if (!kept.length || traffic.at > kept.at(-1).at) kept.push(traffic);
  while (kept.length > 2 && traffic.at - kept[1].at >= WINDOW_S) kept.shift();
  live.nodes.set(node, {snapshots: kept, seen: Date.now()});
};

/** What was counted between the first and the last snapshot of all nodes that answer now. */
const summed = () => {
  const nodes = [...live.nodes.values()].filter(({seen}) => Date.now() - seen <= OLD_MS);
  const sum = {nodes: nodes.length, replicas: {}, rate: 0, answered: 0, failed: 0, counts: [], bounds: []};
  for (const {snapshots} of nodes) {
    const first = snapshots[0], last = snapshots.at(-1), seconds = last.at - first.at;
    for (const [version, count] of Object.entries(last.replicas)) {
      sum.replicas[version] = (sum.replicas[version] ?? 0) + count;
    }
    sum.bounds = last.bounds;
    sum.answered += last.answered - first.answered;
    sum.failed += last.failed - first.failed;
    if (seconds > 0) sum.rate += (last.answered - first.answered) / seconds;
    last.counts.forEach((count, place) => {
      sum.counts[place] = (sum.counts[place] ?? 0) + count - (first.counts[place] ?? 0);
    });
  }
  return sum;
};

/** A quantile of counts by bucket, as Prometheus interpolates; null for no count. */
const quantile = ({counts, bounds}, share) => {
  const whole = counts.reduce((sum, count) => sum + count, 0);
  if (!whole) return null;
  let before = 0;
  for (const [place, count] of counts.entries()) {
    if (count && before + count >= share * whole) {
      const low = place ? bounds[place - 1] : 0;
      if (place >= bounds.length) return {seconds: low, above: true};
      return {seconds: low + ((bounds[place] - low) * (share * whole - before)) / count, above: false};
    }
    before += count;
  }
  return null;
};

const put = (selector, text) => {
  const place = find(selector);
  if (place && place.textContent !== text) place.textContent = text;
};

const duration = (found) => {
  if (!found) return "\u2013";
  const digits = new Intl.NumberFormat("en", {maximumSignificantDigits: 2});
  return `${found.above ? "> " : ""}${digits.format(1000 * found.seconds)} ms`;
};

const drawTraffic = () => {
  const sum = summed(), measured = [...live.nodes.values()].some(({snapshots}) => snapshots.length > 1);
  const replicas = Object.values(sum.replicas).reduce((all, one) => all + one, 0);
  put("[data-replicas]", shown(replicas));
  put("[data-rate]", measured ? shown(sum.rate < 10 ? Math.round(10 * sum.rate) / 10 : Math.round(sum.rate)) : "\u2013");
  put("[data-p50]", duration(quantile(sum, 0.5)));
  put("[data-p95]", duration(quantile(sum, 0.95)));
  put("[data-failed]", sum.answered ? `${shown((100 * sum.failed) / sum.answered, new Intl.NumberFormat("en", {maximumSignificantDigits: 2}))} %` : "\u2013");
  const whose = sum.nodes > 1 ? `of the ${sum.nodes} nodes that have answered this page` : "of the node that answers this page";
  const versions = Object.entries(sum.replicas).filter(([, count]) => count).map(([version, count]) => `version ${version} on ${count}`);
  const quiet = measured && !sum.answered ? " No prediction was asked for." : "";
  put("[data-scope]", `Of the last ${WINDOW_S} s, of all replicas ${whose}${versions.length ? `: ${versions.join(", ")}` : ""}.${quiet}`);
};

const stepsOf = (rollout) => {
  const list = element("ol", {class: "steps", "aria-label": "Steps"});
  rollout.steps.forEach((share, place) => {
    const now = rollout.open && place === rollout.step;
    list.append(element("li", now ? {"aria-current": "step"} : {}, `${shown(100 * share)} %`));
  });
  return list;
};

/** A time in ISO 8601 and UTC, as people read it. */
const moment = (text) => `${text.slice(0, 19).replace("T", " ")} UTC`;

const drawRollout = (rollout) => {
  const place = find("[data-rollout]"), text = JSON.stringify(rollout);
  if (text === live.drawn) return;
  live.drawn = text;
  if (!rollout) {
    place.replaceChildren(element("p", {class: "quiet"}, "No rollout is under way, and none has been."));
    return;
  }
  const [last, ...earlier] = rollout.decisions;
  const headings = ["counted", `version ${rollout.stable}`, `version ${rollout.candidate}`];
  const decided = earlier.map((one) => [moment(one.at), one.action, one.share, one.why]);
  const open = find("details", place)?.open;
  place.replaceChildren(
    element("p", {}, rollout.headline),
    ...(rollout.open ? [stepsOf(rollout)] : []),
    element("p", {class: "small"}, `${moment(last.at)}: ${last.action} at ${last.share}${last.why ? `: ${last.why}` : ""}`),
    table(rollout.doubt, headings, rollout.compared, [1, 2]),
    ...(earlier.length ? [element("details", open ? {open: ""} : {}, element("summary", {}, "Earlier decisions"),
      table("The latest first", ["when", "what", "share", "why"], decided, [2]))] : []),
  );
};

const drawStorage = ({storage, rollout_s: age}) => {
  const note = find("[data-storage]");
  note.hidden = storage;
  const known = age === null ? "Nothing is known of rollouts." : `What is said of the rollout is ${Math.round(age)} s old.`;
  put("[data-storage]", storage ? "" : `Storage does not answer. ${known} The loaded version keeps serving.`);
};

const look = async () => {
  try {
    const answer = await asked("live", {signal: AbortSignal.timeout(5000)});
    if (!answer.ok) {
      live.why = (await refusal(answer)).message;
      live.stopped = answer.status === 401 || answer.status === 403;
      return;
    }
    const said = await answer.json();
    record(said);
    [live.at, live.why] = [Date.now(), ""];
    drawTraffic();
    drawStorage(said);
    if (said.rollout_s !== null || said.storage) drawRollout(said.rollout);
  } catch {
    live.why = "The endpoint does not answer.";
  }
};

/** Say how old the values are, once they are old, and why. */
const drawAge = () => {
  const note = find("[data-age]");
  if (!note) return;
  const age = Date.now() - live.at, idle = Date.now() - live.used > IDLE_MS;
  const old = live.at ? age > OLD_MS : live.why !== "";
  const why = live.why || (idle ? "They stop while nobody uses this page: press a key." : "");
  note.hidden = !old;
  put("[data-age]", !old ? "" : live.at ? `These values are ${Math.round(age / 1000)} s old. ${why}` : why);
  if (live.stopped) put("[data-scope]", "");
};

const tick = async () => {
  clearTimeout(live.timer);
  const idle = Date.now() - live.used > IDLE_MS;
  if (!document.hidden && !idle && !live.stopped) await look();
  drawAge();
  live.timer = setTimeout(tick, EVERY_MS);
};

const prepareLive = () => {
  [live.used, live.stopped, live.drawn] = [Date.now(), false, ""];
  for (const event of ["keydown", "pointerdown"]) document.addEventListener(event, () => { live.used = Date.now(); });
  document.addEventListener("visibilitychange", () => document.hidden || tick());
  setInterval(drawAge, 1000);
  tick();
};
