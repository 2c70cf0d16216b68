// The page of `melo serve`. What it shows comes from prompts and models and is not to be trusted: it reaches
// the document as text alone, never as HTML.

const MOST_ROWS = 200;
const FOLLOW_MS = 5000;
const KEY = "melo-admin-key";
const NONE = "\u2013";

const STATUSES = {
  live: "live",
  superseded: "superseded",
  reverted: "reverted",
  failed: "failed",
  already_right: "already right",
};
const KINDS = {
  rephrase: ["The question in other words", true],
  noisy: ["The same within other text, or with typos", true],
  same_subject: ["Another question about the subject", false],
  hard: ["The question about another subject", false],
  unrelated: ["Something else", false],
};
/** Kinds of probes of `melo eval`: the share that fired an edit, and the share that was answered right. */
const PROBES = {
  fired_edits: ["The edits themselves", "edit_success", true],
  fired_rephrases: ["Rephrases that nothing learnt from", "generality", true],
  fired_same_subject: ["Other questions about the subject", "same_subject_agreement", false],
  fired_hard: ["The question about another subject", "hard_agreement", false],
  fired_unrelated: ["Unrelated prompts", "locality_agreement", false],
};
const CHANGES = { added: "added", removed: "removed", superseded: "superseded", recorded: "recorded" };

const $ = (id) => document.getElementById(id);

/** What the server has said. */
const known = { status: null, edits: [], byId: new Map(), log: [], commits: new Map() };
/** What the user has chosen. */
const chosen = { view: "ask", words: [], status: null, open: null, from: null, commit: null };

// ---------------------------------------------------------------- elements

/** An element. Strings among the children become text; an `on...` attribute is a listener. */
function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Text that people or models wrote. */
const said = (text, kind = "text") => el("span", { class: kind, dir: "auto" }, String(text ?? ""));

const number = (value) => new Intl.NumberFormat("en").format(value).replaceAll(",", "\u202f");
const counted = (count, one) => `${number(count)} ${one}${count === 1 ? "" : "s"}`;

function percent(share) {
  const value = 100 * share;
  const digits = value > 0 && value < 100 && (value < 10 || value > 99) ? 1 : 0;
  // Neither certainty nor impossibility is claimed by rounding.
  const shown = Math.min(Math.max(value, value > 0 ? 0.1 : 0), value < 100 ? 99.9 : 100);
  return `${shown.toFixed(digits)}\u202f%`;
}

function when(text) {
  const date = new Date(text);
  if (Number.isNaN(date.getTime())) return el("span", {}, NONE);
  const two = (part) => String(part).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  const time = `${two(date.getHours())}:${two(date.getMinutes())}`;
  return el("time", { datetime: date.toISOString(), title: date.toLocaleString() }, `${day} ${time}`);
}

/** A share as a bar, with a mark where a threshold lies. */
function bar(share, mark = null, kind = "") {
  const filled = el("span", { class: "filled" });
  filled.style.width = `${100 * share}%`;
  const made = el("span", { class: `gauge ${kind}`, "aria-hidden": true }, filled);
  if (mark !== null) {
    const tick = el("span", { class: "tick" });
    tick.style.left = `${100 * mark}%`;
    made.append(tick);
  }
  return made;
}

function show(element, text) {
  element.textContent = text ?? "";
  element.hidden = !text;
}

/** An export has no list of its edits to lead to. */
const editLink = (id) =>
  known.status?.editable === false
    ? el("span", { class: "id" }, id)
    : el("a", { href: `#edits/${encodeURIComponent(id)}`, class: "id" }, id);
const commitLink = (commit) => el("a", { href: `#history/${commit}`, class: "id" }, `#${commit}`);
const badge = (status) =>
  el("span", { class: `badge is-${status in STATUSES ? status : "other"}` }, STATUSES[status] ?? String(status));

// ---------------------------------------------------------------- server

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

let asking = null; // the key dialog that all refused requests wait for
let locked = false; // it was closed without a key: nothing but what the user does asks again

async function call(method, path, body) {
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    const headers = body === undefined ? {} : { "Content-Type": "application/json" };
    if (key) headers.Authorization = `Bearer ${key}`;
    let response;
    try {
      response = await fetch(path, {
        method,
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        cache: "no-store",
      });
    } catch {
      throw new Refused(0, "the server does not answer; is it still running?");
    }
    const answer = await response.json().catch(() => null);
    if (response.ok && answer !== null) {
      locked = false;
      return answer;
    }
    const message = String(answer?.error?.message ?? `the server answered ${response.status}`);
    if (response.status !== 401) throw new Refused(response.status, message);
    // Another request may have asked for the key meanwhile.
    if (sessionStorage.getItem(KEY) !== key) continue;
    asking ??= askForKey(key ? message : "").finally(() => (asking = null));
    if (await asking) continue;
    locked = true;
    throw new Refused(401, message);
  }
}

const get = (path) => call("GET", path);
const post = (path, body) => call("POST", path, body);

function askForKey(message) {
  const dialog = $("key-dialog");
  show($("key-why"), message);
  $("key").value = "";
  open(dialog);
  return new Promise((resolve) => {
    let given = false;
    const submit = (event) => {
      event.preventDefault();
      const key = $("key").value.trim();
      if (!key) return;
      given = true;
      sessionStorage.setItem(KEY, key);
      dialog.close();
    };
    $("key-form").addEventListener("submit", submit);
    dialog.addEventListener(
      "close",
      () => {
        $("key-form").removeEventListener("submit", submit);
        $("key").value = "";
        $("forget-key").hidden = !sessionStorage.getItem(KEY);
        resolve(given);
      },
      { once: true },
    );
  });
}

// ---------------------------------------------------------------- what is known

async function load() {
  try {
    const status = await get("melo/status");
    const [edits, log] = status.editable
      ? await Promise.all([get("melo/edits"), get("melo/log")])
      : [{ edits: [] }, { snapshots: [] }];
    take(status, edits.edits, log.snapshots);
    show($("fault"), "");
  } catch (error) {
    show($("fault"), error.message);
  }
}

function take(status, edits, log) {
  known.status = status;
  known.log = log;
  const firsts = madeBy(log);
  known.edits = edits.map((edit) => ({
    ...edit,
    commit: firsts(Number(edit.edit_id.slice(1))),
    haystack: [edit.prompt, edit.target, edit.subject ?? ""].join("\n").toLowerCase(),
  }));
  known.byId = new Map(known.edits.map((edit) => [edit.edit_id, edit]));
  renderTop();
  draw();
}

/** Draw the view that is shown; the others are drawn when they are. */
function draw() {
  if (known.status === null) return;
  if (chosen.view === "edits") keepingFocus($("edits-list"), renderEdits);
  if (chosen.view === "history") keepingFocus($("history-list"), renderHistory);
  if (chosen.view === "scope") renderScope();
}

/** Draw a list anew, and focus again what was focused in it. */
function keepingFocus(list, draw) {
  const focused = list.contains(document.activeElement) ? document.activeElement : null;
  const of = focused?.closest("[data-row]")?.dataset.row;
  const place = of === undefined ? -1 : within(list, of).indexOf(focused);
  draw();
  if (place >= 0) within(list, of)[place]?.focus();
}

const within = (list, of) => [...list.querySelectorAll(`[data-row="${CSS.escape(of)}"] :is(a, button)`)];

/** The commit that made the edit of a number: edits are numbered one after another, and commits count them. */
function madeBy(log) {
  const oldest = [...log].sort((a, b) => a.snapshot - b.snapshot);
  const counts = oldest.map((each) => each.counts.edits ?? 0);
  return (wanted) => {
    let low = 0;
    let high = counts.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (counts[middle] >= wanted) high = middle;
      else low = middle + 1;
    }
    // What the oldest commit that was kept already had, an older one made.
    if (low === counts.length || (low === 0 && oldest[0].parent !== null)) return null;
    return oldest[low].snapshot;
  };
}

/** Commits of other processes are shown, too. */
async function follow() {
  if (document.visibilityState === "visible" && asking === null && !locked) {
    try {
      const status = await get("melo/status");
      show($("fault"), "");
      if (status.snapshot !== known.status?.snapshot) await load();
    } catch (error) {
      show($("fault"), error.message);
    }
  }
  setTimeout(follow, FOLLOW_MS);
}

function renderTop() {
  const { status } = known;
  $("project").textContent = status.project;
  $("model").textContent = status.model === status.project ? "" : (status.model ?? "");
  $("snapshot").textContent = `snapshot ${status.snapshot}`;
  for (const link of document.querySelectorAll("nav a:not([data-view=ask])")) link.hidden = !status.editable;
  $("live").textContent = number(status.counts.live ?? 0);
  $("live").title = counted(status.counts.live ?? 0, "live edit");
  document.title = `${status.project} \u2013 melo`;
}

let notices = 0;

function notice(...parts) {
  const id = ++notices;
  $("notice").replaceChildren(
    el("p", {}, ...parts),
    el("button", { class: "quiet", onclick: () => ($("notice").hidden = true) }, "Dismiss"),
  );
  $("notice").hidden = false;
  setTimeout(() => id === notices && ($("notice").hidden = true), 15000);
}

// ---------------------------------------------------------------- views

const VIEWS = ["ask", "edits", "history", "scope"];

function go() {
  const [name, part] = location.hash.slice(1).split("/");
  const view = VIEWS.includes(name) ? name : "ask";
  for (const each of VIEWS) $(`view-${each}`).hidden = each !== view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  chosen.view = view;
  draw();
  if (view === "edits" && part) showEdit(decodeURIComponent(part));
  if (view === "history" && part) showCommit(Number(part));
}

function focusPrompt() {
  location.hash = "#ask";
  go();
  $("prompt").focus();
  $("prompt").select();
}

// ---------------------------------------------------------------- ask

const asked = [];
let busy = false;

async function ask() {
  const prompt = $("prompt").value;
  if (busy || !prompt.trim()) return;
  busy = true;
  $("ask-button").disabled = true;
  $("ask-button").textContent = "Asking\u2026";
  $("answer").setAttribute("aria-busy", "true");
  $("answer").classList.add("old");
  show($("ask-error"), "");
  const started = performance.now();
  try {
    const tokens = Number($("max-tokens").value);
    const body = tokens > 0 ? { prompt, max_tokens: tokens } : { prompt };
    const answer = await post("melo/ask", body);
    answer.seconds = (performance.now() - started) / 1000;
    renderAnswer(answer);
    remember(answer);
  } catch (error) {
    $("answer").replaceChildren();
    show($("ask-error"), error.message);
  } finally {
    busy = false;
    $("ask-button").disabled = false;
    $("ask-button").textContent = "Ask";
    $("answer").removeAttribute("aria-busy");
    $("answer").classList.remove("old");
  }
}

function renderAnswer(answer) {
  const { nearest } = answer;
  const threshold = known.status?.expected?.threshold ?? null;
  const probability = nearest?.probability ?? null;
  const edited = answer.route !== "base";
  const fired = nearest?.fired ?? false;
  const correct = el("button", { onclick: () => openEdit({ prompt: answer.prompt, now: answer.edited }) });
  correct.append("Correct this answer");
  $("answer").replaceChildren(
    el(
      "article",
      { class: "answer", "aria-label": "Answer" },
      el(
        "header",
        { class: "verdict" },
        el("p", { id: "route", class: edited ? "fired" : "" }, ...verdict(answer)),
        probability === null
          ? null
          : el("p", { id: "sure", class: "sure" }, bar(probability, threshold, fired ? "fires" : ""), `${percent(probability)} sure`),
      ),
      el(
        "div",
        { class: `both ${edited ? "" : "same"}` },
        ...(edited
          ? [side("edited", "With edits", answer.edited, true), side("base", "Base model", answer.base, false)]
          : [side("base", "Base model, and with edits the same", answer.base, false)]),
      ),
      el("dl", { class: "why" }, ...explained(answer, threshold)),
      el("footer", {}, known.status?.editable ? correct : null, el("span", { class: "hint" }, `answered in ${answer.seconds.toFixed(1)} s`)),
    ),
  );
}

function verdict(answer) {
  if (answer.told.length > 0)
    return ["Answered by ", el("strong", {}, "base"), ", told ", ...answer.told.flatMap((id, at) => (at ? [", ", editLink(id)] : [editLink(id)]))];
  if (answer.route !== "base") return ["Answered by ", editLink(answer.route)];
  return ["Answered by ", el("strong", {}, "base"), ": no edit fires"];
}

function side(name, title, text, fired) {
  return el(
    "section",
    { class: `side ${fired ? "fired" : ""}`, "aria-label": title },
    el("h2", {}, title),
    text ? el("p", { id: `answer-${name}`, class: "text", dir: "auto" }, text) : el("p", { id: `answer-${name}`, class: "hint" }, "(nothing)"),
  );
}

function explained(answer, threshold) {
  const { nearest } = answer;
  const pairs = [];
  if (nearest === null) pairs.push(["Nearest edit", "there is no edit yet"]);
  else {
    const edit = known.byId.get(nearest.edit_id);
    const goes = edit === undefined ? [] : [el("span", { class: "arrow", "aria-label": "target" }, "\u2192"), said(edit.target)];
    pairs.push(["Nearest edit", el("span", { id: "nearest" }, editLink(nearest.edit_id), " ", said(nearest.prompt ?? ""), ...goes)]);
    if (answer.against) pairs.push(["Against it", el("span", { id: "against", dir: "auto" }, answer.against)]);
    else if (edit?.status === "already_right" && answer.route === "base")
      pairs.push(["Against it", el("span", { id: "against" }, "the base model was right already, so it answers")]);
    if (nearest.probability === null) pairs.push(["How sure", "the rule radius gives no probability"]);
    else if (threshold !== null) pairs.push(["Fires from", `${percent(threshold)} on`]);
    else if (known.status?.expected?.corpus) pairs.push(["Fires from", "an edit answers its own prompt alone"]);
  }
  return pairs.flatMap(([term, what]) => [el("dt", {}, term), el("dd", {}, what)]);
}

function remember(answer) {
  const same = asked.findIndex((each) => each.prompt === answer.prompt);
  if (same >= 0) asked.splice(same, 1);
  asked.unshift(answer);
  asked.length = Math.min(asked.length, 12);
  const before = asked.slice(1);
  $("asked").hidden = before.length === 0;
  $("asked-list").replaceChildren(
    ...before.map((each) =>
      el(
        "li",
        {},
        el(
          "button",
          {
            class: "line",
            onclick: () => {
              $("prompt").value = each.prompt;
              grow($("prompt"));
              $("prompt").focus();
              ask();
            },
          },
          said(each.prompt),
          el("span", { class: `id ${each.route === "base" ? "hint" : ""}` }, each.route),
        ),
      ),
    ),
  );
}

function askNow(prompt) {
  focusPrompt();
  $("prompt").value = prompt;
  grow($("prompt"));
  ask();
}

// ---------------------------------------------------------------- edits

function found() {
  return known.edits.filter(
    (edit) =>
      (chosen.status === null || edit.status === chosen.status) &&
      chosen.words.every((word) => edit.haystack.includes(word) || edit.edit_id.startsWith(word)),
  );
}

function renderEdits() {
  renderStatuses();
  const all = found();
  const shown = all.slice(0, MOST_ROWS);
  const narrowed = chosen.status !== null || chosen.words.length > 0;
  $("edits-shown").textContent =
    all.length > shown.length
      ? `${number(shown.length)} of ${counted(all.length, "edit")}, the newest first; ${number(all.length - shown.length)} more: search to narrow them down`
      : narrowed
        ? `${number(all.length)} of ${counted(known.edits.length, "edit")}`
        : "";
  $("edits-list").replaceChildren(shown.length === 0 ? nothing(narrowed) : table(shown));
}

function nothing(narrowed) {
  if (!narrowed) return el("p", { class: "empty" }, "There is no edit yet. Add one, or ask and correct an answer.");
  return el("p", { class: "empty" }, "No edit is like this.");
}

function renderStatuses() {
  const counts = { null: known.edits.length };
  for (const edit of known.edits) counts[edit.status] = (counts[edit.status] ?? 0) + 1;
  const button = (status, name) =>
    el(
      "button",
      {
        type: "button",
        "data-status": status ?? "all",
        "aria-pressed": String(chosen.status === status),
        onclick: () => {
          chosen.status = chosen.status === status ? null : status;
          renderEdits();
          $("statuses").querySelector(`[data-status="${status ?? "all"}"]`).focus();
        },
      },
      name,
      el("span", { class: "tally" }, number(counts[status] ?? 0)),
    );
  $("statuses").replaceChildren(
    button(null, "all"),
    ...Object.entries(STATUSES).map(([status, name]) => button(status, name)),
  );
}

function table(edits) {
  const heads = ["Prompt", "Target", "Status", "Made", "Commit"];
  return el(
    "table",
    { role: "table", class: "edits", "aria-label": "Edits" },
    el(
      "thead",
      { role: "rowgroup" },
      el("tr", { role: "row" }, ...heads.map((head) => el("th", { role: "columnheader", scope: "col" }, head))),
    ),
    el("tbody", { role: "rowgroup" }, ...edits.map(row)),
  );
}

function row(edit) {
  const open = chosen.open === edit.edit_id;
  const cell = (kind, ...children) => el("td", { role: "cell", class: kind }, ...children);
  // A click anywhere in the row does what its button does.
  const clicked = (event) => {
    if (!event.target.closest("a, button") && getSelection().isCollapsed) toggle(edit.edit_id);
  };
  const made = el(
    "tr",
    { role: "row", "data-row": edit.edit_id, "data-edit": edit.edit_id, class: open ? "open" : "", onclick: clicked },
    cell(
      "prompt",
      el(
        "button",
        { class: "opens", "aria-expanded": String(open), onclick: () => toggle(edit.edit_id) },
        el("span", { class: "id" }, edit.edit_id),
        said(edit.prompt),
      ),
    ),
    cell("target", said(edit.target)),
    cell("status", badge(edit.status)),
    cell("made", when(edit.created_at)),
    cell("commit", edit.commit === null ? NONE : commitLink(edit.commit)),
  );
  if (!open) return made;
  const group = document.createDocumentFragment();
  group.append(made, details(edit));
  return group;
}

function details(edit) {
  const pairs = [
    ["Edit", el("span", { class: "id" }, [edit.edit_id, edit.block].filter(Boolean).join(", block "))],
    ["Subject", edit.subject ? said(edit.subject) : null],
    ["Rephrases", edit.rephrases.length ? el("ul", {}, ...edit.rephrases.map((each) => el("li", {}, said(each)))) : null],
    ["Superseded by", edit.superseded_by ? editLink(edit.superseded_by) : null],
  ];
  const actions = [
    el("button", { onclick: () => askNow(edit.prompt) }, "Ask it"),
    el("button", { "aria-haspopup": "dialog", onclick: () => openEdit(edit) }, "Change it"),
    edit.status === "reverted"
      ? null
      : el("button", { class: "danger", "aria-haspopup": "dialog", onclick: () => openRevert(edit) }, "Take it back"),
  ];
  return el(
    "tr",
    { role: "row", "data-row": edit.edit_id, class: "details" },
    el(
      "td",
      { role: "cell", colspan: 5 },
      el("dl", {}, ...pairs.filter(([, what]) => what).flatMap(([term, what]) => [el("dt", {}, term), el("dd", {}, what)])),
      el("div", { class: "actions" }, ...actions),
    ),
  );
}

function toggle(id) {
  const opened = chosen.open !== id;
  chosen.open = opened ? id : null;
  if (!opened && location.hash.startsWith("#edits/")) history.replaceState(null, "", "#edits");
  renderEdits();
  focusRow(id);
}

function focusRow(id) {
  const line = $("edits-list").querySelector(`tr[data-edit="${CSS.escape(id)}"]`);
  line?.querySelector("button.opens").focus();
  return line;
}

/** Open one edit, where a link leads to it: what hides it is taken away. */
function showEdit(id) {
  const edit = known.byId.get(id);
  if (edit === undefined) return;
  chosen.open = id;
  if (!found().slice(0, MOST_ROWS).includes(edit)) {
    chosen.status = null;
    search(id);
    $("search").value = id;
  }
  renderEdits();
  focusRow(id)?.scrollIntoView({ block: "nearest" });
}

function search(text) {
  chosen.words = text.toLowerCase().split(/\s+/).filter(Boolean);
}

/** Up and down go through the rows of a list, and Escape out of it. */
function arrows(list, above) {
  list.addEventListener("keydown", (event) => {
    const rows = [...list.querySelectorAll("button.opens")];
    const now = rows.indexOf(document.activeElement);
    if (now < 0) return;
    const next = { ArrowDown: now + 1, ArrowUp: now - 1, Home: 0, End: rows.length - 1 }[event.key];
    if (next === undefined || next >= rows.length) return;
    event.preventDefault();
    if (next < 0) above?.focus();
    else rows[next].focus();
  });
}

// ---------------------------------------------------------------- take back

let reverting = null;

function openRevert(edit) {
  reverting = edit;
  $("revert-title").textContent = `Take ${edit.edit_id} back?`;
  $("revert-what").replaceChildren(
    el("p", { class: "pair" }, said(edit.prompt), el("span", { class: "arrow", "aria-label": "target" }, "\u2192"), said(edit.target)),
    el("p", { class: "hint" }, "Prompts are then answered as if it had never been made. The history keeps it."),
  );
  show($("revert-error"), "");
  open($("revert-dialog"));
  $("revert-keep").focus();
}

async function revert() {
  const edit = reverting;
  const button = $("revert-do");
  button.disabled = true;
  button.textContent = "Taking it back\u2026";
  show($("revert-error"), "");
  try {
    const { snapshot } = await post("melo/revert", { edits: [edit.edit_id] });
    await load();
    $("revert-dialog").close();
    notice(editLink(edit.edit_id), " is taken back; commit ", commitLink(snapshot));
    focusRow(edit.edit_id);
  } catch (error) {
    show($("revert-error"), error.message);
  } finally {
    button.disabled = false;
    button.textContent = "Take it back";
  }
}

// ---------------------------------------------------------------- make an edit

let saving = false;

function openEdit(given = {}) {
  if (!saving) {
    const changes = given.target !== undefined;
    $("edit-title").textContent = changes ? `Change ${given.edit_id}` : given.now !== undefined ? "Correct this answer" : "Add an edit";
    $("edit-prompt").value = given.prompt ?? "";
    $("edit-target").value = given.target ?? "";
    $("edit-subject").value = given.subject ?? "";
    $("edit-rephrases").value = (given.rephrases ?? []).join("\n");
    $("edit-locality").value = "";
    $("edit-now").hidden = given.now === undefined;
    $("edit-now-text").textContent = given.now ?? "";
    wrong("prompt", "");
    wrong("target", "");
    fresh();
  }
  open($("edit-dialog"));
  for (const box of $("edit-dialog").querySelectorAll("textarea")) grow(box);
  $(given.prompt === undefined ? "edit-prompt" : "edit-target").focus();
}

/** The form without an outcome, to be filled in. */
function fresh() {
  $("edit-fields").disabled = false;
  $("edit-outcome").replaceChildren();
  $("edit-save").hidden = false;
  $("edit-save").disabled = false;
  $("edit-save").textContent = "Save the edit";
}

function wrong(field, message) {
  show($(`edit-${field}-error`), message);
  if (message) $(`edit-${field}`).setAttribute("aria-invalid", "true");
  else $(`edit-${field}`).removeAttribute("aria-invalid");
}

const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

async function save() {
  if (saving || $("edit-fields").disabled) return;
  const prompt = $("edit-prompt").value.trim();
  const target = $("edit-target").value.trim();
  wrong("prompt", prompt ? "" : "an edit needs a prompt");
  wrong("target", target ? "" : "an edit needs the answer wanted");
  if (!prompt || !target) {
    $(prompt ? "edit-target" : "edit-prompt").focus();
    return;
  }
  const body = {
    prompt,
    target,
    subject: $("edit-subject").value.trim() || null,
    rephrases: lines($("edit-rephrases").value),
    locality: lines($("edit-locality").value),
  };
  saving = true;
  $("edit-fields").disabled = true;
  $("edit-save").disabled = true;
  const seconds = el("span", { "aria-hidden": true });
  const started = performance.now();
  const tell = () => (seconds.textContent = ` ${Math.round((performance.now() - started) / 1000)} s`);
  tell();
  const clock = setInterval(tell, 1000);
  $("edit-outcome").replaceChildren(
    el("p", { class: "running" }, el("span", { class: "moving", "aria-hidden": true }), "A block is being trained\u2026", seconds),
  );
  $("edit-outcome").focus();
  try {
    const made = await post("melo/edits", body);
    await load();
    took(body, made);
  } catch (error) {
    if (error.status === 422) await load();
    refused(body, error);
  } finally {
    clearInterval(clock);
    saving = false;
  }
}

function took(body, made) {
  const right = made.status === "already_right";
  const head = right
    ? [editLink(made.edit_id), ": the model was right already"]
    : [editLink(made.edit_id), " is in force; commit ", commitLink(made.snapshot)];
  if (!$("edit-dialog").open) notice(...head);
  const again = el("button", { type: "button", class: "primary", onclick: () => ($("edit-dialog").close(), askNow(body.prompt)) }, "Ask it");
  const more = el("button", { type: "button", onclick: () => openEdit() }, "Add another");
  $("edit-save").hidden = true;
  $("edit-outcome").replaceChildren(
    el(
      "div",
      { class: "took" },
      el("p", { class: "good" }, ...head.map((part) => (typeof part === "string" ? part : part.cloneNode(true)))),
      el(
        "dl",
        {},
        el("dt", {}, "Before"),
        el("dd", { id: "edit-before", class: "text", dir: "auto" }, made.before || "(nothing)"),
        el("dt", {}, "After"),
        el("dd", { id: "edit-after", class: "text", dir: "auto" }, made.answer || "(nothing)"),
        ...(made.contradicts ? contradicted(made.contradicts) : []),
      ),
      el("div", { class: "actions" }, again, more),
    ),
  );
  if ($("edit-dialog").open) again.focus();
}

function contradicted(other) {
  return [
    el("dt", {}, "Contradicts"),
    el(
      "dd",
      { id: "edit-contradicts", class: "text", dir: "auto" },
      editLink(other.edit_id),
      " ",
      said(other.prompt),
      ", which answers ",
      said(other.target),
      ". Both stay; each answers what is nearest to its own words.",
    ),
  ];
}

function refused(body, error) {
  if (!$("edit-dialog").open) notice(said(body.prompt), `: ${error.message}`);
  fresh();
  $("edit-outcome").replaceChildren(el("p", { class: "error", role: "alert" }, error.message));
  if ($("edit-dialog").open) $("edit-save").focus();
}

// ---------------------------------------------------------------- history

const changesOf = new Map();

function renderHistory() {
  const start = chosen.from === null ? 0 : Math.max(0, known.log.findIndex((each) => each.snapshot === chosen.from));
  const shown = known.log.slice(start, start + MOST_ROWS);
  const older = known.log.length - start - shown.length;
  const more = [start ? `${number(start)} newer` : "", older ? `${number(older)} older` : ""].filter(Boolean);
  $("history-shown").textContent = more.length ? `${counted(shown.length, "commit")}; not shown: ${more.join(", ")}` : "";
  const turn = (name, to) => el("button", { onclick: () => ((chosen.from = known.log[to].snapshot), renderHistory()) }, name);
  $("history-list").replaceChildren(
    shown.length ? el("ol", { class: "commits", "aria-label": "Commits, newest first" }, ...shown.map(commitRow)) : el("p", { class: "empty" }, "There is no commit yet."),
    el(
      "div",
      { class: "actions" },
      start ? turn("Newer", Math.max(0, start - MOST_ROWS)) : null,
      older ? turn("Older", start + MOST_ROWS) : null,
    ),
  );
}

function commitRow(info) {
  const open = chosen.commit === info.snapshot;
  const parent = known.log.find((each) => each.snapshot === info.parent);
  return el(
    "li",
    { "data-row": info.snapshot, "data-commit": info.snapshot, class: open ? "open" : "" },
    el(
      "button",
      { class: "opens", "aria-expanded": String(open), onclick: () => toggleCommit(info.snapshot) },
      el("span", { class: "id" }, `#${info.snapshot}`),
      el("span", { class: "action" }, String(info.action)),
      el("span", { class: "counts" }, ...countsOf(info, parent)),
      el("span", { class: "command id", dir: "auto" }, info.command ?? ""),
      when(info.created_at),
    ),
    open ? el("div", { class: "changes" }, ...changesView(info)) : null,
  );
}

/** What a commit's snapshot holds, with what became more or fewer by it. */
function countsOf(info, parent) {
  const names = Object.keys(STATUSES).filter((name) => name === "live" || info.counts[name]);
  return names.map((name) => {
    const count = info.counts[name] ?? 0;
    const change = parent ? count - (parent.counts[name] ?? 0) : 0;
    const mark = change ? ` (${change > 0 ? "+" : "\u2212"}${number(Math.abs(change))})` : "";
    return el("span", { class: change ? "changed" : "" }, `${number(count)} ${STATUSES[name]}${mark}`);
  });
}

function changesView(info) {
  const kept = changesOf.get(info.snapshot);
  if (kept === undefined) return [el("p", { class: "hint" }, "Reading\u2026")];
  if (kept instanceof Error) return [el("p", { class: "error", role: "alert" }, kept.message)];
  const { changes } = kept;
  if (!changes.length) return [el("p", { class: "hint" }, info.parent === null ? "The project was made here." : "No edit changed its status.")];
  const shown = changes.slice(0, MOST_ROWS);
  const more = changes.length - shown.length;
  return [
    el("ul", { "aria-label": `Changes of commit ${info.snapshot}` }, ...shown.map(changeRow)),
    more ? el("p", { class: "hint" }, `${number(more)} more changes are not shown`) : null,
  ].filter(Boolean);
}

function changeRow(change) {
  const status = (name) => (name === null ? "new" : (STATUSES[name] ?? name));
  const what = change.before === null ? status(change.after) : `${status(change.before)} \u2192 ${change.after === null ? "gone" : status(change.after)}`;
  return el(
    "li",
    { class: `is-${change.kind in CHANGES ? change.kind : "other"}` },
    el("span", { class: "kind" }, what),
    el(
      "span",
      { class: "pair" },
      editLink(change.edit_id),
      " ",
      said(change.prompt),
      el("span", { class: "arrow", "aria-label": "target" }, "\u2192"),
      said(change.target),
      change.superseded_by ? el("span", { class: "hint" }, " by ", editLink(change.superseded_by)) : null,
    ),
  );
}

async function openCommit(commit) {
  chosen.commit = commit;
  renderHistory();
  const kept = changesOf.get(commit);
  if (kept !== undefined && !(kept instanceof Error)) return;
  try {
    changesOf.set(commit, await get(`melo/snapshots/${commit}`));
  } catch (error) {
    changesOf.set(commit, error);
  }
  keepingFocus($("history-list"), renderHistory);
}

function toggleCommit(commit) {
  if (chosen.commit === commit) {
    chosen.commit = null;
    if (location.hash.startsWith("#history/")) history.replaceState(null, "", "#history");
    renderHistory();
  } else openCommit(commit);
  focusCommit(commit);
}

function focusCommit(commit) {
  const line = $("history-list").querySelector(`li[data-commit="${Number(commit)}"]`);
  line?.querySelector("button.opens").focus();
  return line;
}

/** Open a commit, where a link leads to it. */
function showCommit(commit) {
  const place = known.log.findIndex((each) => each.snapshot === commit);
  if (place < 0) return;
  const start = chosen.from === null ? 0 : known.log.findIndex((each) => each.snapshot === chosen.from);
  if (place < start || place >= start + MOST_ROWS) chosen.from = commit;
  openCommit(commit);
  focusCommit(commit)?.scrollIntoView({ block: "nearest" });
}

// ---------------------------------------------------------------- scope

function renderScope() {
  renderExpected();
  if (known.status.editable) showEvaluation();
}

/** An evaluation makes no commit to be followed: look for it whenever it is shown. */
async function showEvaluation() {
  try {
    renderEvaluation(await get("melo/evaluation"));
  } catch (error) {
    show($("fault"), error.message);
  }
}

/** What `melo eval` measured last. */
function renderEvaluation({ edited, snapshot, protocol, evaluated_at }) {
  if (!edited) {
    $("evaluation").replaceChildren(
      el("p", { class: "empty" }, "It has not been evaluated yet. ", el("code", {}, "melo eval"), " measures it."),
    );
    return;
  }
  const fired = (name, asks) =>
    edited[name] === null || edited[name] === undefined ? [NONE] : [bar(edited[name], null, asks ? "fires" : "wrong"), el("span", { class: "share" }, percent(edited[name]))];
  const right = (figure) => (figure ? [el("span", { class: "share" }, percent(figure.generation)), el("span", { class: "hint" }, `of ${number(figure.n)}`)] : [NONE]);
  const rows = Object.entries(PROBES)
    .filter(([name, [, answered]]) => (edited[name] ?? null) !== null || edited[answered])
    .map(([name, [words, answered, asks]]) =>
      el("tr", { "data-probe": name }, el("th", { scope: "row" }, words), el("td", {}, ...fired(name, asks)), el("td", {}, ...right(edited[answered]))),
    );
  const behind = known.status.snapshot !== snapshot;
  $("evaluation").replaceChildren(
    el(
      "table",
      { class: "scope", "aria-label": "Last evaluation" },
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Prompt"), el("th", { scope: "col" }, "An edit fired"), el("th", { scope: "col" }, "Answered right"))),
      el("tbody", {}, ...rows),
    ),
    el(
      "p",
      { class: "hint" },
      `Snapshot ${snapshot}, protocol ${protocol}, `,
      when(evaluated_at),
      ". Right is for an edit its target, and for other prompts the base model's own answer.",
      behind ? " Commits made since then are not in it." : "",
    ),
  );
}

function renderExpected() {
  const { threshold, corpus, own, counts } = known.status.expected ?? {};
  if (!corpus && !own) {
    $("scope").replaceChildren(
      el(
        "p",
        { class: "empty" },
        "Nothing is kept of what routes are expected to do: this project was not calibrated, or not by this version. ",
        el("code", {}, "melo calibrate"),
        " measures it.",
      ),
    );
    return;
  }
  const share = (value, asks, of) =>
    value === undefined || value === null
      ? [NONE]
      : [bar(value, null, asks ? "fires" : "wrong"), el("span", { class: "share" }, percent(value)), of ? el("span", { class: "hint" }, `of ${number(of)}`) : null];
  const measured = Object.keys(own ?? {}).length > 0;
  const kinds = Object.entries(KINDS).filter(([kind]) => kind in (corpus ?? {}) || kind in (own ?? {}));
  const rows = (asks) =>
    kinds
      .filter(([, [, asksForIt]]) => asksForIt === asks)
      .map(([kind, [words]]) =>
        el(
          "tr",
          { "data-kind": kind },
          el("th", { scope: "row" }, words),
          el("td", {}, ...share(corpus?.[kind], asks).filter(Boolean)),
          measured ? el("td", {}, ...share(own?.[kind], asks, counts?.[kind]).filter(Boolean)) : null,
        ),
      );
  const group = (title, asks) => {
    const some = rows(asks);
    return some.length ? el("tbody", {}, el("tr", { class: "group" }, el("th", { scope: "colgroup", colspan: measured ? 3 : 2 }, title)), ...some) : null;
  };
  $("scope").replaceChildren(
    el(
      "table",
      { class: "scope", "aria-label": "Shares by kind of prompt" },
      el(
        "thead",
        {},
        el("tr", {}, el("th", { scope: "col" }, "Prompt"), el("th", { scope: "col" }, "Corpus"), measured ? el("th", { scope: "col" }, "This project") : null),
      ),
      ...[group("Reach: prompts that should be answered by an edit, and are", true), group("False fires: prompts that an edit answers wrongly", false)].filter(Boolean),
    ),
    el(
      "dl",
      { class: "why" },
      el("dt", {}, "Fires from"),
      el("dd", {}, threshold === null || threshold === undefined ? "no threshold is strict enough, so each edit answers its own prompt alone" : `${percent(threshold)} on: the probability that a prompt asks what an edit was made for`),
      el("dt", {}, "Corpus"),
      el("dd", {}, "invented questions, of kinds that the measured model did not learn"),
      el("dt", {}, "This project"),
      el("dd", {}, measured ? "its own data, on edits that were not learnt from; a share of few prompts says little" : "it has no rephrases or unrelated prompts that could be measured"),
    ),
  );
}

// ---------------------------------------------------------------- keys and events

function open(dialog) {
  if (!dialog.open) dialog.showModal();
}

/** A text box is as high as its text. */
function grow(box) {
  box.style.height = "auto";
  box.style.height = `${Math.min(box.scrollHeight + 2, 240)}px`;
}

function listen() {
  addEventListener("hashchange", go);
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, textarea, select, dialog[open]")) return;
    event.preventDefault();
    focusPrompt();
  });
  document.addEventListener("input", (event) => event.target.tagName === "TEXTAREA" && grow(event.target));
  for (const dialog of document.querySelectorAll("dialog")) {
    for (const button of dialog.querySelectorAll("[data-close]")) button.addEventListener("click", () => dialog.close());
    // A link inside leads away from what the dialog is about.
    dialog.addEventListener("click", (event) => event.target.closest("a") && dialog.close());
  }

  $("ask-form").addEventListener("submit", (event) => (event.preventDefault(), ask()));
  $("prompt").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    ask();
  });

  $("search").addEventListener("input", () => (search($("search").value), renderEdits()));
  $("search").addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown") return;
    event.preventDefault();
    $("edits-list").querySelector("button.opens")?.focus();
  });
  $("add").addEventListener("click", () => openEdit());
  arrows($("edits-list"), $("search"));
  arrows($("history-list"));

  $("edit-form").addEventListener("submit", (event) => (event.preventDefault(), save()));
  $("edit-form").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.isComposing) return;
    event.preventDefault();
    save();
  });
  $("revert-do").addEventListener("click", revert);

  $("forget-key").addEventListener("click", () => {
    sessionStorage.removeItem(KEY);
    location.reload();
  });
}

async function start() {
  listen();
  go();
  $("forget-key").hidden = !sessionStorage.getItem(KEY);
  if (!location.hash || location.hash === "#ask") $("prompt").focus();
  await load();
  if (known.status !== null) go();
  setTimeout(follow, FOLLOW_MS);
}

start();
