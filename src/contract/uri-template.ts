/** URI templates of the simple kind (RFC 6570, level 1): `orders://{order_id}/items`, and `{+path}` for values with slashes in them. */
export interface UriTemplate {
  readonly text: string;
  readonly variables: readonly string[];
  /** The values of the variables, decoded; undefined for a URI that the template does not make. */
  match(uri: string): Readonly<Record<string, string>> | undefined;
  expand(values: Readonly<Record<string, string>>): string;
}

interface Variable {
  readonly name: string;
  /** `{+name}`: reserved characters stand for themselves. */
  readonly reserved: boolean;
  /** What follows it, up to the next variable. */
  readonly then: string;
}

const EXPRESSION = /\{([^{}]*)\}/g;
const NAME = /^(\+?)([A-Za-z0-9_][A-Za-z0-9_.]*)$/;
const MAX_LENGTH = 4096;

/** Throws an `Error` with the reason for a template of another kind, and for one that can be read in two ways. */
export function compileUriTemplate(text: string): UriTemplate {
  const parts = [...text.matchAll(EXPRESSION)];
  const head = text.slice(0, parts[0]?.index ?? text.length);
  const variables = parts.map((part, at): Variable => {
    const [, plus, name] = NAME.exec(part[1] ?? "") ?? [];
    if (name === undefined) throw new Error(`${part[0]} is not of the form {name} or {+name}`);
    const then = text.slice(part.index + part[0].length, parts[at + 1]?.index ?? text.length);
    if (then === "" && at < parts.length - 1) throw new Error("two variables need something between them");
    return { name, reserved: plus === "+", then };
  });
  const names = variables.map(({ name }) => name);
  if (/[{}]/.test(text.replace(EXPRESSION, ""))) throw new Error("a brace is left alone");
  if (new Set(names).size < names.length) throw new Error("a variable is there twice");
  return {
    text,
    variables: names,
    match: (uri) => (uri.length > MAX_LENGTH ? undefined : matched(uri, head, variables)),
    expand: (values) =>
      head +
      variables
        .map(({ name, reserved, then }) => (reserved ? encodeURI : encodeURIComponent)(values[name] ?? "") + then)
        .join(""),
  };
}

/** From left to right, each value as short as it can be, and the last one whatever is left. */
function matched(uri: string, head: string, variables: readonly Variable[]): Record<string, string> | undefined {
  if (!uri.startsWith(head)) return undefined;
  const values: Record<string, string> = {};
  let at = head.length;
  for (const [index, { name, reserved, then }] of variables.entries()) {
    const last = index === variables.length - 1;
    const end = last ? (uri.endsWith(then) ? uri.length - then.length : -1) : uri.indexOf(then, at + 1);
    if (end <= at) return undefined;
    const written = uri.slice(at, end);
    const value = reserved || !/[/?#]/.test(written) ? decoded(written) : undefined;
    if (value === undefined) return undefined;
    values[name] = value;
    at = end + then.length;
  }
  return at === uri.length ? values : undefined;
}

function decoded(written: string): string | undefined {
  try {
    return decodeURIComponent(written);
  } catch {
    return undefined;
  }
}
