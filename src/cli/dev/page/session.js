/** What the page knows, and how it asks for more. */

/** Kinds of things, in the order of the page: their list, what they are called, and how one is called upon. */
export const KINDS = {
  tools: { title: "Tools", one: "tool", nameOf: ({ name }) => name, method: "tools/call" },
  resources: { title: "Resources", one: "resource", nameOf: ({ uri }) => uri, method: "resources/read" },
  resourceTemplates: {
    title: "Templates",
    one: "template",
    nameOf: ({ uriTemplate }) => uriTemplate,
    method: "resources/read",
  },
  prompts: { title: "Prompts", one: "prompt", nameOf: ({ name }) => name, method: "prompts/get" },
};

export const session = {
  /** What the command has said last. */
  state: undefined,
  /** What this caller sees. */
  seen: undefined,
  grading: undefined,
  /** Which thing is shown: its list and name. */
  chosen: undefined,
  who: { role: undefined, era: "modern", subject: "", groups: "", email: "", without: new Set() },
};

/** Throws an Error with words for the person. */
export async function api(name, wanted) {
  const answer = await fetch(`/api/${name}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(wanted),
  });
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.error?.message ?? `The page's server answered ${answer.status}.`);
  return value;
}

/** Who calls, as the token will say. */
export function persona() {
  const scopes = session.state.offer.scopes
    .map(({ scope }) => scope)
    .filter((scope) => !session.who.without.has(scope));
  const groups = session.who.groups.split(",").flatMap((group) => (group.trim() === "" ? [] : [group.trim()]));
  return {
    role: session.who.role,
    subject: session.who.subject || "dev",
    groups,
    scopes,
    ...(session.who.email && { email: session.who.email }),
  };
}

/** A thing of the lists by its kind and name, and whether this caller does not see it. */
export function entryOf({ kind, name }) {
  const named = (one) => KINDS[kind].nameOf(one) === name;
  const entry = session.seen.lists[kind].find(named);
  if (entry !== undefined) return { entry, hidden: false };
  const other = session.seen.hidden[kind].find(named);
  return other && { entry: other, hidden: true };
}
