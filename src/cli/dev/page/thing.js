/** The chosen tool, resource or prompt: its form, the call, and what the server asks meanwhile. */
import { byId, element } from "./dom.js";
import { formOf } from "./form.js";
import { approvalOf, resultOf } from "./result.js";
import { api, entryOf, KINDS, persona, session } from "./session.js";

const VERBS = { tools: "Call", resources: "Read", resourceTemplates: "Read", prompts: "Get" };

/** What was filled in for each thing, so that a new version of it keeps that. */
const filled = new Map();
/** The call under way: its id, and where its questions go. */
let under;

/** Shows the session.chosen thing; what was filled in stays, and so does an answer to the version before, until the next call. */
export function showThing() {
  const place = byId("thing");
  const found = session.chosen && entryOf(session.chosen);
  if (found === undefined) {
    place.replaceChildren(element("p", { class: "quiet" }, "This caller sees nothing to call."));
    return;
  }
  const { entry, hidden } = found;
  const { kind, name } = session.chosen;
  const key = `${kind} ${name}`;
  const keep = place.dataset.key === key ? place.querySelector(".outcome") : undefined;
  place.dataset.key = key;
  const outcome = keep ?? element("div", { class: "outcome" });
  place.replaceChildren(
    element("h1", {}, entry.title ?? entry.name ?? name),
    element(
      "p",
      { class: "facts" },
      element("code", {}, name),
      " ",
      marks(entry),
      hidden && [" ", element("span", { class: "tag warn" }, "not seen by this caller")],
    ),
    entry.description && element("p", { class: "lead" }, entry.description),
    callForm(kind, name, entry, outcome, key),
    outcome,
    findingsOf(kind, name),
  );
}

function marks({ annotations = {} }) {
  const { readOnlyHint, destructiveHint, openWorldHint } = annotations;
  return [
    readOnlyHint === true && element("span", { class: "tag good" }, "reads"),
    readOnlyHint === false && destructiveHint !== true && element("span", { class: "tag" }, "changes"),
    destructiveHint === true && readOnlyHint !== true && element("span", { class: "tag warn" }, "may destroy"),
    openWorldHint === true && [" ", element("span", { class: "tag" }, "reaches outside")],
  ];
}

/** The arguments of a thing as a schema. */
function schemaOf(kind, entry) {
  if (kind === "tools") return entry.inputSchema;
  if (kind === "resources") return {};
  const names =
    kind === "prompts"
      ? (entry.arguments ?? [])
      : variables(entry.uriTemplate).map((name) => ({ name, required: true }));
  return {
    properties: Object.fromEntries(names.map(({ name, description }) => [name, { type: "string", description }])),
    required: names.flatMap(({ name, required }) => (required ? [name] : [])),
  };
}

const variables = (template) =>
  [...template.matchAll(/\{[+#./;?&]?([\w,*]+)\}/g)].flatMap(([, names]) => names.replaceAll("*", "").split(","));

function paramsOf(kind, name, args) {
  if (kind === "resources") return { uri: name };
  if (kind !== "resourceTemplates") return { name, arguments: args };
  const uri = name.replace(/\{[+#./;?&]?([\w,*]+)\}/g, (_, names) =>
    names
      .replaceAll("*", "")
      .split(",")
      .map((one) => encodeURIComponent(args[one] ?? ""))
      .join(","),
  );
  return { uri };
}

function callForm(kind, name, entry, outcome, key) {
  const before = filled.get(key) ?? {};
  let made = formOf(schemaOf(kind, entry), before.args);
  let raw = before.raw;
  const fields = element("div", { class: "fields" });
  const draw = () => {
    if (raw === undefined) {
      fields.replaceChildren(
        ...(made.nodes.length > 0 ? made.nodes : [element("p", { class: "quiet" }, "It takes no arguments.")]),
      );
      return;
    }
    const area = element(
      "textarea",
      { id: "raw", rows: "8", class: "code", spellcheck: "false", "aria-describedby": "raw-hint" },
      raw,
    );
    area.addEventListener("input", () => {
      raw = area.value;
    });
    fields.replaceChildren(
      element(
        "div",
        { class: "field" },
        element("label", { for: "raw" }, "Arguments"),
        area,
        element("p", { class: "hint", id: "raw-hint" }, "As JSON, sent as it stands: the gateway judges it."),
      ),
    );
  };
  const read = () => (raw === undefined ? made.read() : JSON.parse(raw.trim() === "" ? "{}" : raw));
  const keep = () => {
    try {
      filled.set(key, { args: read(), raw });
    } catch {
      filled.set(key, { ...filled.get(key), raw });
    }
  };
  const complaint = element("p", { class: "notice bad", role: "alert", hidden: true });
  const send = element("button", { type: "submit" }, VERBS[kind]);
  const stop = element("button", { type: "button", class: "plain", hidden: true }, "Cancel");
  const asJson = element(
    "button",
    { type: "button", class: "link", "aria-pressed": String(raw !== undefined) },
    raw === undefined ? "Write JSON" : "Fill in a form",
  );
  asJson.addEventListener("click", () => {
    try {
      const args = read();
      if (raw === undefined) raw = JSON.stringify(args, undefined, 2);
      else {
        raw = undefined;
        made = formOf(schemaOf(kind, entry), args);
      }
    } catch (error) {
      complaint.textContent = error.message;
      complaint.hidden = false;
      return;
    }
    complaint.hidden = true;
    asJson.textContent = raw === undefined ? "Write JSON" : "Fill in a form";
    asJson.setAttribute("aria-pressed", String(raw !== undefined));
    draw();
    keep();
  });
  draw();
  const form = element(
    "form",
    { class: "call" },
    fields,
    complaint,
    element("p", { class: "buttons" }, send, stop, kind !== "resources" && asJson),
  );
  form.addEventListener("input", keep);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    complaint.hidden = true;
    let args;
    try {
      args = read();
    } catch (error) {
      complaint.textContent = error.message;
      complaint.hidden = false;
      return;
    }
    keep();
    send.disabled = true;
    stop.hidden = false;
    await run({ method: KINDS[kind].method, params: paramsOf(kind, name, args) }, outcome, stop);
    send.disabled = false;
    stop.hidden = true;
  });
  return form;
}

async function run(call, outcome, stop) {
  const id = crypto.randomUUID();
  const progress = element("p", { class: "quiet", role: "status" }, "Calling …");
  const questions = element("div", { class: "questions" });
  outcome.replaceChildren(progress, questions);
  under = { id, progress, questions };
  stop.onclick = () => void api("cancel", { id });
  try {
    const called = await api("call", { id, as: persona(), era: session.who.era, ...call });
    const number = approvalOf(called);
    outcome.replaceChildren(...[number && approvalForm(number), resultOf(called, call)].filter(Boolean));
  } catch (error) {
    outcome.replaceChildren(element("p", { class: "notice bad", role: "alert" }, error.message));
  }
  if (under?.id === id) under = undefined;
  byId("result-title")?.focus({ preventScroll: true });
  outcome.scrollIntoView({ block: "nearest" });
}

export function hear({ kind, call, question, asked, method, params }) {
  if (call !== under?.id) return;
  if (kind === "question") under.questions.append(questionForm(question, asked));
  else if (kind === "withdrawn") document.getElementById(`question-${question}`)?.remove();
  else if (method === "notifications/progress") {
    const { progress, total, message } = params;
    under.progress.textContent = [message, total === undefined ? progress : `${progress} of ${total}`]
      .filter((one) => one !== undefined)
      .join(" – ");
  }
}

/** Decides about a call that waits, as somebody else than who made it. */
function approvalForm(number) {
  const { roles } = session.state.offer;
  const select = element(
    "select",
    { id: "approver" },
    roles.map(({ name, title }) => element("option", { value: name }, title)),
  );
  const said = element("p", { role: "status" });
  const decide = (verdict) => async (event) => {
    event.preventDefault();
    try {
      const { state } = await api("decide", { number, verdict, role: select.value });
      said.textContent = state === "approved" ? "Approved, for this call alone. Call again." : "Denied.";
    } catch (error) {
      said.textContent = error.message;
    }
  };
  return element(
    "form",
    { class: "question", "aria-label": "An approval", onsubmit: decide("approve") },
    element("h2", {}, `Somebody has to approve it (${number})`),
    element(
      "div",
      { class: "field" },
      element("label", { for: "approver" }, "Decide as another person with the role"),
      select,
    ),
    said,
    element(
      "p",
      { class: "buttons" },
      element("button", { type: "submit" }, "Approve"),
      element("button", { type: "button", class: "plain", onclick: decide("deny") }, "Deny"),
    ),
  );
}

/** What the server asks the person at the client. */
function questionForm(question, { params }) {
  const { message = "", mode, url, requestedSchema } = params;
  const form = formOf(requestedSchema);
  const say = (action) => async (event) => {
    event.preventDefault();
    let content;
    try {
      content = action === "accept" && mode !== "url" ? form.read() : undefined;
    } catch (error) {
      complaint.textContent = error.message;
      complaint.hidden = false;
      return;
    }
    made.querySelectorAll("button").forEach((button) => {
      button.disabled = true;
    });
    await api("answer", { question, result: { action, ...(content && { content }) } }).catch((error) => {
      complaint.textContent = error.message;
      complaint.hidden = false;
    });
  };
  const link = mode === "url" && /^https?:\/\//.test(url);
  const complaint = element("p", { class: "notice bad", role: "alert", hidden: true });
  const heading = element("h2", { tabindex: "-1" }, "The server asks");
  const made = element(
    "form",
    { class: "question", id: `question-${question}`, "aria-label": "The server asks", onsubmit: say("accept") },
    heading,
    element("p", { class: "message" }, message),
    link && element("p", {}, element("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, url)),
    form.nodes,
    complaint,
    element(
      "p",
      { class: "buttons" },
      element("button", { type: "submit" }, mode === "url" ? "I have been there" : "Answer"),
      element("button", { type: "button", class: "plain", onclick: say("decline") }, "Decline"),
      element("button", { type: "button", class: "plain", onclick: say("cancel") }, "Dismiss"),
    ),
  );
  queueMicrotask(() => (made.querySelector("input, select, textarea") ?? heading).focus());
  return made;
}

export function findingsOf(kind, name) {
  const mine = kind === "tools" ? (session.grading?.findings ?? []).filter(({ tool }) => tool === name) : [];
  return element(
    "div",
    { class: "findings" },
    mine.length > 0 && [element("h2", {}, `What drawbridge check says of it`), findingList(mine)],
  );
}

export function findingList(findings) {
  return element(
    "ul",
    { class: "finding-list" },
    findings.map(({ tool, rule, severity, why, fix }) =>
      element(
        "li",
        {},
        element("span", { class: `tag ${["critical", "high"].includes(severity) ? "warn" : ""}`.trim() }, severity),
        " ",
        tool && [element("code", {}, tool), " "],
        why,
        " ",
        element("span", { class: "quiet" }, fix),
        " ",
        element("code", { class: "quiet" }, rule),
      ),
    ),
  );
}
