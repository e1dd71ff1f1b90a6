/** A form from a JSON schema, and the arguments that somebody filled in. Its own mistakes are the browser's to tell. */
import { element } from "./dom.js";

let ids = 0;

/**
 * The fields of an object's schema. `values`: what stands in them first. `read()` gives the arguments; what is empty and need not be there
 * is left out. Throws an Error with words when a field that holds JSON has none.
 */
export function formOf(schema, values = {}) {
  const root = schema ?? {};
  const { properties = {}, required = [] } = root;
  const fields = Object.entries(properties).map(([name, one]) => {
    const field = fieldOf(resolved(one, root), {
      name,
      label: one.title ?? name,
      required: required.includes(name),
      value: Object.hasOwn(values, name) ? values[name] : undefined,
      root,
    });
    return { name, ...field };
  });
  return {
    nodes: fields.map(({ node }) => node),
    read: () =>
      Object.fromEntries(
        fields.flatMap(({ name, read }) => {
          const value = read();
          return value === undefined ? [] : [[name, value]];
        }),
      ),
  };
}

/** Follows a reference within the schema, and takes the one way that is not null. */
function resolved(schema, root, depth = 0) {
  if (typeof schema !== "object" || schema === null || depth > 8) return {};
  const { $ref, ...others } = schema;
  if (typeof $ref === "string" && $ref.startsWith("#/")) {
    const found = $ref
      .slice(2)
      .split("/")
      .reduce((at, key) => at?.[key.replaceAll("~1", "/").replaceAll("~0", "~")], root);
    return { ...resolved(found, root, depth + 1), ...others };
  }
  const ways = schema.anyOf ?? schema.oneOf;
  const real = ways?.filter(({ type }) => type !== "null");
  if (real?.length === 1)
    return { ...resolved(real[0], root, depth + 1), ...others, anyOf: undefined, oneOf: undefined };
  if (Array.isArray(schema.type)) return { ...schema, type: schema.type.find((type) => type !== "null") };
  return schema;
}

/** What may be chosen, as pairs of a value and what it is called; undefined when anything may. */
function choicesOf({ enum: values, enumNames, const: only, anyOf, oneOf }) {
  if (only !== undefined) return [[only, String(only)]];
  if (values !== undefined) return values.map((value, at) => [value, enumNames?.[at] ?? String(value)]);
  const ways = anyOf ?? oneOf;
  if (ways?.length > 0 && ways.every((way) => way.const !== undefined))
    return ways.map((way) => [way.const, way.title ?? String(way.const)]);
  return undefined;
}

function fieldOf(schema, of) {
  if (choicesOf(schema) !== undefined) return choice(schema, of);
  if (schema.type === "boolean") return yesNo(schema, of);
  if (schema.type === "number" || schema.type === "integer") return number(schema, of);
  if (schema.type === "string") return text(schema, of);
  if (schema.type === "array") return list(schema, of);
  const record = recordNames(schema);
  if (schema.type === "object" && (record !== undefined || schema.properties !== undefined))
    return group(record === undefined ? schema : asProperties(schema, record), of);
  return json(schema, of);
}

function labelled(schema, { label, required }, made, hint) {
  const id = `field-${++ids}`;
  made.id = id;
  const words = [schema.description, hint].filter(Boolean).join(" ");
  if (words !== "") made.setAttribute("aria-describedby", `${id}-hint`);
  return element(
    "div",
    { class: "field" },
    element("label", { for: id }, label, !required && element("span", { class: "quiet" }, " (optional)")),
    made,
    words !== "" && element("p", { class: "hint", id: `${id}-hint` }, words),
  );
}

function choice(schema, of) {
  const choices = choicesOf(schema);
  const first = of.value ?? schema.default;
  const chosen = choices.findIndex(([value]) => value === first);
  const select = element(
    "select",
    { required: of.required },
    (chosen === -1 || !of.required) && element("option", { value: "" }, of.required ? "Choose …" : "– not sent –"),
    choices.map(([, name], at) => element("option", { value: at, selected: at === chosen }, name)),
  );
  return {
    node: labelled(schema, of, select),
    read: () => (select.value === "" ? undefined : choices[Number(select.value)][0]),
  };
}

function yesNo(schema, of) {
  return choice(
    {
      ...schema,
      oneOf: [
        { const: true, title: "yes" },
        { const: false, title: "no" },
      ],
    },
    of,
  );
}

function number(schema, of) {
  const { minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf, type } = schema;
  const whole = type === "integer";
  const step = multipleOf ?? (whole ? 1 : "any");
  const least = minimum ?? (whole && exclusiveMinimum !== undefined ? exclusiveMinimum + 1 : exclusiveMinimum);
  const most = maximum ?? (whole && exclusiveMaximum !== undefined ? exclusiveMaximum - 1 : exclusiveMaximum);
  const shown = (value) => (value === undefined || Math.abs(value) >= Number.MAX_SAFE_INTEGER ? undefined : value);
  const [from, to] = [shown(least), shown(most)];
  const range =
    from !== undefined && to !== undefined
      ? `From ${from} to ${to}.`
      : from !== undefined
        ? `At least ${from}.`
        : to !== undefined
          ? `At most ${to}.`
          : "";
  const input = element("input", {
    type: "number",
    inputmode: whole ? "numeric" : "decimal",
    min: from,
    max: to,
    step,
    required: of.required,
    value: of.value ?? schema.default,
  });
  return {
    node: labelled(schema, of, input, range),
    read: () => (input.value === "" ? undefined : input.valueAsNumber),
  };
}

const KINDS = { date: "date", "date-time": "datetime-local", time: "time", email: "email", uri: "url", url: "url" };
const LONG = 160;

function text(schema, of) {
  const { format, pattern, minLength, maxLength, examples } = schema;
  const kind = KINDS[format] ?? "text";
  const value = of.value ?? schema.default;
  const common = {
    required: of.required,
    minlength: minLength,
    maxlength: maxLength,
    autocomplete: "off",
    spellcheck: "false",
    placeholder: typeof examples?.[0] === "string" ? examples[0] : undefined,
  };
  if (kind === "text" && maxLength > LONG) {
    const area = element("textarea", { ...common, rows: "3" }, value ?? "");
    return {
      node: labelled(schema, of, area, `At most ${maxLength} characters.`),
      read: () => area.value || undefined,
    };
  }
  const moment = kind === "datetime-local";
  const input = element("input", {
    ...common,
    type: kind,
    pattern: kind === "text" && worksHere(pattern) ? pattern : undefined,
    step: moment || kind === "time" ? "1" : undefined,
    value: moment && typeof value === "string" ? localMoment(value) : value,
    title: pattern === undefined ? undefined : `It must fit ${pattern}`,
  });
  const hint =
    pattern !== undefined
      ? `Fits ${pattern}`
      : maxLength > 0 && kind === "text"
        ? `At most ${maxLength} characters.`
        : "";
  return {
    node: labelled(schema, of, input, hint),
    read: () => {
      // A required text may be empty where nothing says that it may not.
      if (input.value === "") return undefined;
      return moment ? new Date(input.value).toISOString() : input.value;
    },
  };
}

/** Browsers read patterns by a stricter grammar; one that they cannot read is left to the gateway. */
function worksHere(pattern) {
  try {
    return typeof pattern === "string" && new RegExp(pattern, "v") !== undefined;
  } catch {
    return false;
  }
}

function localMoment(value) {
  const date = new Date(value);
  if (Number.isNaN(date.getTime())) return "";
  return new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}

function list(schema, of) {
  const items = resolved(schema.items ?? {}, of.root);
  const choices = choicesOf(items);
  if (choices !== undefined) return several(schema, choices, of);
  if (["string", "number", "integer"].includes(items.type)) return lines(schema, items, of);
  if (items.type === "object" && items.properties !== undefined) return rows(schema, items, of);
  return json(schema, of);
}

function several(schema, choices, of) {
  const first = of.value ?? schema.default ?? [];
  const boxes = choices.map(([value, name]) => {
    const box = element("input", { type: "checkbox", checked: first.includes(value) });
    return { value, box, node: element("label", { class: "tick" }, box, name) };
  });
  const node = fieldset(
    schema,
    of,
    boxes.map((one) => one.node),
  );
  return {
    node,
    read: () => {
      const chosen = boxes.flatMap(({ value, box }) => (box.checked ? [value] : []));
      return chosen.length === 0 && !of.required ? undefined : chosen;
    },
  };
}

function lines(schema, items, of) {
  const first = of.value ?? schema.default ?? [];
  const area = element("textarea", { rows: "3", required: of.required && schema.minItems > 0 }, first.join("\n"));
  const most = schema.maxItems === undefined ? "" : `, at most ${schema.maxItems}`;
  return {
    node: labelled(schema, of, area, `One in each line${most}.`),
    read: () => {
      const all = area.value.split("\n").filter((line) => line.trim() !== "");
      if (all.length === 0 && !of.required) return undefined;
      return items.type === "string" ? all : all.map(Number);
    },
  };
}

function rows(schema, items, of) {
  const holder = element("div", { class: "rows" });
  const made = [];
  const add = (value) => {
    const inner = formOf({ ...items, $defs: of.root.$defs, definitions: of.root.definitions }, value);
    const row = { read: inner.read };
    const remove = element("button", { type: "button", class: "plain small" }, "Remove");
    const node = element("div", { class: "row-of" }, inner.nodes, remove);
    remove.addEventListener("click", () => {
      made.splice(made.indexOf(row), 1);
      node.remove();
      more.focus();
    });
    made.push(row);
    holder.append(node);
  };
  const more = element("button", { type: "button", class: "plain small" }, "Add one");
  more.addEventListener("click", () => {
    add({});
    holder.lastElementChild?.querySelector("input, select, textarea")?.focus();
  });
  const first = of.value ?? schema.default ?? [];
  for (const value of first) add(value);
  if (first.length === 0 && (of.required || schema.minItems > 0)) add({});
  return {
    node: fieldset(schema, of, [holder, more]),
    read: () => (made.length === 0 && !of.required ? undefined : made.map(({ read }) => read())),
  };
}

function group(schema, of) {
  const inner = formOf(
    { ...schema, $defs: of.root.$defs, definitions: of.root.definitions },
    of.value ?? schema.default,
  );
  return {
    node: fieldset(schema, of, inner.nodes),
    read: () => {
      const value = inner.read();
      return Object.keys(value).length === 0 && !of.required ? undefined : value;
    },
  };
}

/** The names that a record over an enum may have. */
function recordNames({ propertyNames, additionalProperties }) {
  return propertyNames?.enum !== undefined && typeof additionalProperties === "object" ? propertyNames.enum : undefined;
}

function asProperties(schema, names) {
  return { ...schema, properties: Object.fromEntries(names.map((name) => [name, schema.additionalProperties])) };
}

/** What no form can be made of is written as JSON. */
function json(schema, of) {
  const value = of.value ?? schema.default;
  const area = element(
    "textarea",
    { rows: "4", class: "code", required: of.required, spellcheck: "false" },
    value === undefined ? "" : JSON.stringify(value, undefined, 2),
  );
  return {
    node: labelled(schema, of, area, "As JSON."),
    read: () => {
      if (area.value.trim() === "") return undefined;
      try {
        return JSON.parse(area.value);
      } catch (error) {
        throw new Error(`${of.label} is no JSON: ${error.message}`);
      }
    },
  };
}

function fieldset(schema, { label, required }, children) {
  return element(
    "fieldset",
    { class: "group" },
    element("legend", {}, label, !required && element("span", { class: "quiet" }, " (optional)")),
    schema.description !== undefined && element("p", { class: "hint" }, schema.description),
    children,
  );
}
