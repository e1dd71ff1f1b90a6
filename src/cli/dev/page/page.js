/** The page of `drawbridge dev`: who calls, what they see, and what comes of a call. */
import { byId, element, many } from "./dom.js";
import { api, entryOf, KINDS, persona, session } from "./session.js";
import { findingList, findingsOf, hear, showThing } from "./thing.js";

/** Answers that come too late for the choice of somebody are dropped. */
let looks = 0;

const events = new EventSource("/events");
events.addEventListener("state", ({ data }) => take(JSON.parse(data)));
events.addEventListener("told", ({ data }) => hear(JSON.parse(data)));
events.addEventListener("error", () => {
  byId("state").textContent = "No connection to drawbridge dev. Is it still running?";
  byId("state").className = "state bad";
});

function take(next) {
  const other = next.version !== session.state?.version;
  session.state = next;
  byId("place").textContent = next.place;
  document.title = `${next.offer?.name ?? next.place} · Drawbridge dev`;
  const status = byId("state");
  status.className = `state${next.problem ? " bad" : next.loading ? " busy" : ""}`;
  status.textContent = next.loading
    ? next.version === undefined
      ? "Loading …"
      : `Version ${next.version}, loading a change …`
    : next.version === undefined
      ? "Not loaded"
      : `Version ${next.version}${next.problem ? " goes on" : ""}`;
  showProblem(next.problem, next.offer);
  byId("columns").hidden = next.offer === undefined;
  if (next.offer === undefined || !other) return;
  showWho();
  void look();
  void grade();
}

function showProblem(problem, offer) {
  const held = offer?.withheld ?? [];
  const ill = (offer?.servers ?? []).filter((server) => server.state !== "ready");
  byId("problem").replaceChildren(
    ...[
      problem &&
        element(
          "div",
          { class: "notice bad problem" },
          element(
            "p",
            {},
            element(
              "strong",
              {},
              session.state.version === undefined ? "It could not be loaded." : "The change could not be loaded.",
            ),
          ),
          element("pre", { class: "text", tabindex: "0" }, problem.message),
          problem.frame && frame(problem.frame),
        ),
      ...ill.map(({ name, state: how, problem: why }) =>
        element("p", { class: "notice warn" }, `${name} is ${how}${why ? `: ${why}` : ""}`),
      ),
      ...held.map(({ kind, name, reason }) =>
        element("p", { class: "notice warn" }, `The ${kind} ${name} is held back: ${reason}`),
      ),
    ].filter(Boolean),
  );
}

function frame({ file, lines }) {
  return element(
    "figure",
    {},
    element("figcaption", {}, element("code", {}, file)),
    element(
      "pre",
      { class: "text", tabindex: "0" },
      lines.flatMap(({ number, text, here }) => [
        element(here ? "mark" : "span", {}, `${String(number).padStart(4)}  ${text}`),
        "\n",
      ]),
    ),
  );
}

function showWho() {
  const { roles, scopes } = session.state.offer;
  const role =
    roles.find(({ name }) => name === session.who.role) ??
    roles.find(({ title }) => title !== "Everything") ??
    roles[0];
  if (role.name !== session.who.role) choose(role);
  const picked = (value, name, now) => element("option", { value, selected: value === now }, name);
  const roleSelect = element(
    "select",
    { id: "role" },
    roles.map(({ name, title }) =>
      picked(name, title === "Everything" ? "Everything there is" : title, session.who.role),
    ),
  );
  roleSelect.addEventListener("change", () => {
    choose(roles.find(({ name }) => name === roleSelect.value));
    showWho();
    byId("role").focus();
    void look();
  });
  const eraSelect = element(
    "select",
    { id: "era" },
    Object.entries(session.state.eras).map(([era, revision]) => picked(era, revision, session.who.era)),
  );
  eraSelect.addEventListener("change", () => {
    session.who.era = eraSelect.value;
    void look();
  });
  const open = byId("more")?.open ?? false;
  const word = (key, label, hint, type = "text") => {
    const input = element("input", {
      id: key,
      type,
      value: session.who[key],
      autocomplete: "off",
      spellcheck: "false",
      "aria-describedby": hint && `${key}-hint`,
    });
    input.addEventListener("change", () => {
      session.who[key] = input.value.trim();
      void look();
    });
    return element(
      "div",
      { class: "field" },
      element("label", { for: key }, label),
      input,
      hint && element("p", { class: "hint", id: `${key}-hint` }, hint),
    );
  };
  const ticks = scopes.map(({ scope, title }) => {
    const box = element("input", { type: "checkbox", checked: !session.who.without.has(scope) });
    box.addEventListener("change", () => {
      if (box.checked) session.who.without.delete(scope);
      else session.who.without.add(scope);
      void look();
    });
    return element(
      "label",
      { class: "tick" },
      box,
      element("span", {}, element("code", {}, scope), " ", element("span", { class: "quiet" }, title)),
    );
  });
  byId("who").replaceChildren(
    element(
      "div",
      { class: "pair" },
      element("div", { class: "field" }, element("label", { for: "role" }, "Role"), roleSelect),
      element("div", { class: "field" }, element("label", { for: "era" }, "Protocol"), eraSelect),
    ),
    element(
      "details",
      { class: "more", id: "more", open },
      element("summary", {}, "Name, groups and scopes"),
      word("subject", "Name (sub)"),
      word("groups", "Groups", "With commas between. Assignments of the settings count for them as well."),
      word("email", "Verified e-mail address", undefined, "email"),
      element("fieldset", { class: "group" }, element("legend", {}, "Scopes of the token"), ticks),
    ),
  );
}

function choose({ name, subject, groups }) {
  session.who.role = name;
  session.who.subject = subject;
  session.who.groups = groups.join(", ");
}

byId("who").addEventListener("submit", (event) => event.preventDefault());

async function look(again = true) {
  const mine = ++looks;
  let found;
  try {
    found = await api("see", { as: persona(), era: session.who.era });
  } catch (error) {
    if (mine !== looks) return;
    byId("count").textContent = error.message;
    // It may have been asked while one version took over from the other.
    if (again) setTimeout(() => mine === looks && look(false), 1000);
    return;
  }
  if (mine !== looks) return;
  session.seen = found;
  showLists();
  const still = session.chosen && entryOf(session.chosen);
  if (still === undefined) {
    const [kind] = Object.keys(KINDS).filter((one) => session.seen.lists[one].length > 0);
    session.chosen = kind && { kind, name: KINDS[kind].nameOf(session.seen.lists[kind][0]) };
    showLists();
  }
  showThing();
}

function showLists() {
  const { lists, hidden, tokens, problem } = session.seen;
  const [shown, not] = [lists, hidden].map((all) => Object.values(all).reduce((sum, list) => sum + list.length, 0));
  byId("count").textContent = problem
    ? `Refused: ${problem.message}`
    : `${counts(lists) || "Nothing"}${not > 0 ? `, and ${not} of ${shown + not} not` : ""}. The tools cost about ${many(tokens, "token")} to read.`;
  const groups = (all, quiet) =>
    Object.entries(KINDS).flatMap(([kind, { title, nameOf }]) => {
      const entries = all[kind];
      if (entries.length === 0) return [];
      const id = `list-${quiet ? "hidden-" : ""}${kind}`;
      return [
        element("h3", { class: "part", id }, title),
        element(
          "ul",
          { class: "things", "aria-labelledby": id },
          entries.map((entry) => element("li", {}, thingButton(kind, nameOf(entry), entry))),
        ),
      ];
    });
  const open = byId("hidden")?.open ?? false;
  byId("lists").replaceChildren(
    ...groups(lists, false),
    ...(not > 0
      ? [
          element(
            "details",
            {
              class: "more",
              id: "hidden",
              open: open || (session.chosen !== undefined && entryOf(session.chosen)?.hidden),
            },
            element("summary", {}, `Not seen by this caller (${not})`),
            groups(hidden, true),
          ),
        ]
      : []),
  );
}

const counts = (lists) =>
  Object.entries(KINDS)
    .flatMap(([kind, { one }]) => (lists[kind].length === 0 ? [] : [many(lists[kind].length, one)]))
    .join(", ");

function thingButton(kind, name, { title }) {
  const current = session.chosen?.kind === kind && session.chosen.name === name;
  return element(
    "button",
    {
      type: "button",
      class: "thing",
      "aria-current": current && "true",
      onclick: () => {
        session.chosen = { kind, name };
        showLists();
        showThing();
        byId("thing").focus();
      },
    },
    element("span", { class: "thing-name" }, name),
    title && title !== name && element("span", { class: "thing-title" }, title),
  );
}

async function grade() {
  const { version } = session.state;
  const found = await api("grade", {}).catch(() => ({}));
  if (version !== session.state.version) return;
  session.grading = found;
  const place = byId("grade");
  place.hidden = found.grades === undefined;
  if (found.grades === undefined) return;
  const { overall, score, principles } = found.grades;
  place.replaceChildren(
    element("summary", {}, "Grade ", element("b", { class: `letter ${overall}` }, overall), ` ${score}`),
    element(
      "div",
      { class: "sheet" },
      element("p", { class: "hint" }, "As drawbridge check grades what clients are served."),
      element(
        "table",
        {},
        element(
          "tbody",
          {},
          principles.map(({ title, grade: letter, score: points, findings }) =>
            element(
              "tr",
              {},
              element("th", { scope: "row" }, title),
              element("td", {}, element("b", { class: `letter ${letter}` }, letter)),
              element("td", {}, String(points)),
              element("td", {}, findings === 0 ? "" : many(findings, "finding")),
            ),
          ),
        ),
      ),
      found.findings.length > 0 && findingList(found.findings),
    ),
  );
  const old = byId("thing").querySelector(".findings");
  const next = session.chosen && findingsOf(session.chosen.kind, session.chosen.name);
  if (next) old?.replaceWith(next);
}
