/**
 * docs/decisions/006-calls-die-young.md: V8 makes a function literal that is assigned to a member, and the accessors of an object literal, in
 * the old generation, and Node keeps what closes over a listener that is an object. What they close over dies with the next full collection.
 */
import * as is from "typescript/unstable/ast/is";
import { createVirtualFileSystem } from "typescript/unstable/fs";
import { API } from "typescript/unstable/sync";
import { expect, test } from "vitest";
import { filesIn, lineOf, type SourceFile } from "./sources.ts";

const GATEWAY = "one for a gateway";
const SERVER = "one for a server behind the gateway";
const POOL = "one for a server, and for each user or session that has processes of its own, as long as it has";
const PROCESS = "one for a process or a connection that many calls go through, as long as it is there";

/** Where it may be, and how often it is made there. Never for a call, an answer or a stream. */
const SELDOM: readonly (readonly [file: string, member: string, made: string])[] = [
  ["src/audit/journal.ts", "get pending", GATEWAY],
  ["src/audit/merkle.ts", "get size", "one for a chain that is written or verified"],
  ["src/audit/sinks/cursor.ts", "get held", "one for a sink"],
  ["src/audit/sinks/cursor.ts", "get place", "one for a sink"],
  ["src/gateway/catalogue.ts", "get compiled", "one for a definition, whenever a list is put together anew"],
  ["src/gateway/catalogue.ts", "get version", GATEWAY],
  ["src/gateway/contracts.ts", "get compiled", "one for a contract, whenever a list is put together anew"],
  ["src/gateway/gateway.ts", "get title", GATEWAY],
  ["src/gateway/limits/cached-counts.ts", "get together", GATEWAY],
  ["src/gateway/limits/limits.ts", "get together", GATEWAY],
  ["src/gateway/sessions.ts", "get size", GATEWAY],
  ["src/gateway/streams.ts", "get size", GATEWAY],
  ["src/gateway/under-way.ts", "get count", GATEWAY],
  ["src/oauth/clients/client-secrets.ts", "provider.Client.prototype.compareClientSecret =", GATEWAY],
  ["src/oauth/clients/disabled.ts", "provider.Client.find =", GATEWAY],
  ["src/oauth/tokens/keys.ts", "get algorithm", GATEWAY],
  ["src/oauth/tokens/keys.ts", "get cookies", GATEWAY],
  ["src/oauth/tokens/keys.ts", "get public", GATEWAY],
  ["src/oauth/tokens/keys.ts", "get signing", GATEWAY],
  ["src/observe/otlp.ts", "get dropped", GATEWAY],
  ["src/policy/live.ts", "get now", GATEWAY],
  ["src/policy/live.ts", "get tried", GATEWAY],
  ["src/policy/live.ts", "get version", GATEWAY],
  ["src/upstream/endpoint.ts", "get connected", SERVER],
  ["src/upstream/fair-queue.ts", "get size", POOL],
  ["src/upstream/personal-links.ts", "get size", SERVER],
  ["src/upstream/pool.ts", "get idle", POOL],
  ["src/upstream/pool.ts", "get size", POOL],
  ["src/upstream/process.ts", "get full", PROCESS],
  ["src/upstream/sandbox.ts", "get full", PROCESS],
  ["src/upstream/sse-connection.ts", "get full", PROCESS],
  ["src/upstream/tenants.ts", "get size", SERVER],
];

const WHAT_TO_DO = `made in the old generation, and with it what it closes over is kept until a full collection.
Where it is made for a call, an answer or a stream: give the function a name first (\`const release = …; call.release = release\`), or let
it stand in a literal or as a field of a class; put the accessor in a class; make the listener a function
(docs/decisions/006-calls-die-young.md). Where it is made once for a process: add it to SELDOM in this file, with how often that is.`;

interface Place {
  readonly path: string;
  readonly line: number;
  /** `get size`, `call.release =` or `listener this`. */
  readonly member: string;
}

/** With the parser of the TypeScript that checks our types: 7 calls the whole API unstable, and our version is exact. */
function placesIn(files: readonly SourceFile[]): Place[] {
  const config = "/closures/tsconfig.json";
  const names = files.map(({ path }) => `/closures/${path}`);
  const compilerOptions = { noResolve: true, noLib: true, types: [] };
  const api = new API({
    cwd: "/closures",
    fs: createVirtualFileSystem({
      ...Object.fromEntries(files.map(({ path, text }) => [`/closures/${path}`, text])),
      [config]: JSON.stringify({ compilerOptions, files: names }),
    }),
  });
  try {
    const program = api.updateSnapshot({ openProject: config }).getProject(config)?.program;
    return files.flatMap(({ path, text }) => {
      const source = program?.getSourceFile(`/closures/${path}`);
      if (source === undefined) throw new Error(`${path} could not be read`);
      const found: Place[] = [];
      const look = (node: Node): void => {
        const member = memberMadeOld(node, source);
        const line = lineOf(text, node.getStart(source));
        if (member !== undefined) found.push({ path, line, member });
        node.forEachChild(look);
      };
      look(source);
      return found;
    });
  } finally {
    api.close();
  }
}

type Node = Parameters<typeof is.isBinaryExpression>[0];

function memberMadeOld(node: Node, source: ReturnType<Node["getSourceFile"]>): string | undefined {
  if (
    (is.isGetAccessorDeclaration(node) || is.isSetAccessorDeclaration(node)) &&
    is.isObjectLiteralExpression(node.parent)
  )
    return `${is.isGetAccessorDeclaration(node) ? "get" : "set"} ${node.name.getText(source)}`;
  if (is.isBinaryExpression(node) && /^(\?\?|\|\||&&)?=$/.test(node.operatorToken.getText(source))) {
    const [left, right] = [inside(node.left), inside(node.right)];
    if (!is.isPropertyAccessExpression(left) && !is.isElementAccessExpression(left)) return undefined;
    return is.isArrowFunction(right) || is.isFunctionExpression(right) ? `${left.getText(source)} =` : undefined;
  }
  if (is.isCallExpression(node) && /\baddEventListener$/.test(node.expression.getText(source))) {
    const listener = node.arguments[1] && inside(node.arguments[1]);
    const object = listener?.getText(source) === "this" || (listener && is.isObjectLiteralExpression(listener));
    return object ? `listener ${listener?.getText(source)}` : undefined;
  }
  return undefined;
}

/** What is left of an expression where its types are taken away. */
function inside(node: Node): Node {
  return is.isParenthesizedExpression(node) ||
    is.isAsExpression(node) ||
    is.isSatisfiesExpression(node) ||
    is.isNonNullExpression(node)
    ? inside(node.expression)
    : node;
}

test("what V8 makes in the old generation is made seldom, and not for a call", () => {
  const places = placesIn(filesIn(["src"], [".ts"]).filter(({ path }) => !path.startsWith("src/cli/")));
  const listed = new Set(SELDOM.map(([file, member]) => `${file} ${member}`));
  const unlisted = places.filter(({ path, member }) => !listed.delete(`${path} ${member}`));
  expect(
    unlisted.map(({ path, line, member }) => `${path}:${line}: ${member}`),
    WHAT_TO_DO,
  ).toEqual([]);
  expect([...listed], "listed, and no longer there").toEqual([]);
});

test.each([
  ["call.release = (why) => end(why);", "call.release ="],
  ["this.#done ??= function () {};", "this.#done ="],
  ["call.release ||= async () => {};", "call.release ="],
  ["made[hook] = ((url) => url) as Hook;", "made[hook] ="],
  ["a = b.c = () => {};", "b.c ="],
  ["x = { get signal() { return 1; } };", "get signal"],
  ["x = { set signal(value) {} };", "set signal"],
  ['signal.addEventListener("abort", this, { once: true });', "listener this"],
  ['signal.addEventListener("abort", { handleEvent() {} });', "listener { handleEvent() {} }"],
])("is found: %s", (text, member) => {
  expect(placesIn([{ path: "one.ts", text: `// of one call\n${text}\n` }])).toEqual([
    { path: "one.ts", line: 2, member },
  ]);
});

test("functions with a name, in literals and in classes, and accessors of classes are not found", () => {
  const text = `
    const release = () => {}; call.release = release; call.release ??= release;
    call.made = make(() => {}); call.ended ??= (async () => {})(); call.when = { done: () => {}, go() {} };
    class One { readonly gone = () => {}; get signal() { return 1; } }
    signal.addEventListener("abort", this.gone); signal.addEventListener("abort", () => {});
    // call.release = () => {}
    const words = "call.release = () => {}";
    if (call.release === (() => {})) local = () => {};`;
  expect(placesIn([{ path: "one.ts", text }])).toEqual([]);
});
