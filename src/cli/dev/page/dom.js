/** Elements, made without markup: no text of a server is ever read as HTML. */

/**
 * Makes an element. Keys of `attributes` beginning with "on" are listeners; `true` is an attribute without a value, `false` and
 * undefined none. Children that are no nodes become text; `false` and undefined become nothing.
 */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : String(value));
  }
  made.append(...children.flat(9).filter((child) => child !== undefined && child !== false && child !== null));
  return made;
}

export const byId = (id) => document.getElementById(id);

/** Words for a number of things: "1 tool", "3 tools". */
export const many = (count, one, more = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : more}`;

const isObject = (value) => typeof value === "object" && value !== null;

/**
 * JSON to be read. With `left`, what has left of it, members that are not in that are marked as gone, and those with another value as
 * changed.
 */
export function jsonView(value, left) {
  const compared = left !== undefined;
  const lines = [];
  const write = (value, other, there, indent, before, after) => {
    const mark = !compared ? "" : !there ? "gone" : isObject(value) || Object.is(value, other) ? "" : "changed";
    const label = { gone: "does not leave", changed: "leaves as something else" }[mark];
    const line = (text) =>
      lines.push("  ".repeat(indent), mark === "" ? text : element("span", { class: mark, title: label }, text), "\n");
    if (!isObject(value)) return line(`${before}${JSON.stringify(value)}${after}`);
    const array = Array.isArray(value);
    const [open, close] = array ? "[]" : "{}";
    const entries = Object.entries(value);
    if (entries.length === 0) return line(`${before}${open}${close}${after}`);
    line(`${before}${open}`);
    entries.forEach(([key, member], index) => {
      const known = there && isObject(other) && Object.hasOwn(other, key);
      const comma = index < entries.length - 1 ? "," : "";
      write(member, known ? other[key] : undefined, known, indent + 1, array ? "" : `${JSON.stringify(key)}: `, comma);
    });
    line(`${close}${after}`);
  };
  write(value, left, true, 0, "", "");
  return element("pre", { class: "json", tabindex: "0" }, lines);
}
