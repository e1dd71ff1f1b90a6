/** Somebody is erased while a call of theirs is under way: what it says of them is written nowhere, what they do later can be read. */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { newId } from "../../src/core/ids.ts";
import { modernRequest } from "../e2e/world.ts";
import { operated, until } from "./operated.ts";

/** `wait` answers when there is a file `open` in its folder, and puts a file `begun` there before; `echo` answers at once. */
const SERVER = `
const { existsSync, writeFileSync } = require("node:fs");
const { join } = require("node:path");
const folder = process.argv[1];
const say = (message) => process.stdout.write(JSON.stringify({ jsonrpc: "2.0", ...message }) + "\\n");
const tool = (name) => ({ name, inputSchema: { type: "object", properties: { text: { type: "string" } } } });
require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const { id, method, params } = JSON.parse(line);
  if (id === undefined) return;
  const done = () => say({ id, result: { content: [{ type: "text", text: "done" }] } });
  if (method === "initialize") say({ id, result: { protocolVersion: "2025-11-25", serverInfo: { name: "s", version: "1" }, capabilities: { tools: {} } } });
  else if (method === "tools/list") say({ id, result: { tools: [tool("wait"), tool("echo")] } });
  else if (method === "tools/call" && params.name === "wait") {
    writeFileSync(join(folder, "begun"), "");
    const timer = setInterval(() => { if (existsSync(join(folder, "open"))) { clearInterval(timer); done(); } }, 20);
  } else if (method === "tools/call") done();
  else say({ id, result: {} });
}).on("close", () => process.exit(0));`;

interface Shown {
  readonly principal: { readonly subject: string };
  readonly arguments?: { readonly json: { readonly text: string } };
  readonly erased?: true;
  readonly sealed?: object;
}

test("an erased person's call that was under way is recorded without them, and says so; the log verifies", async () => {
  const folder = mkdtempSync(join(tmpdir(), "drawbridge-under-way-"));
  try {
    await using one = await operated({ servers: { gate: { command: [process.execPath, "-e", SERVER, folder] } } });
    const { access_token } = await one.live.tokens();
    const call = async (name: string, text: string) => {
      const [body, headers] = modernRequest("tools/call", { name, arguments: { text } }, newId());
      expect((await one.live.post(body, headers, access_token)).status).toBe(200);
    };
    const found = async (target: string): Promise<Shown[]> => {
      const { stdout } = await one.cli(["audit", "search", "--target", target, "--format", "json"]);
      return stdout.split("\n").flatMap((line) => (line === "" ? [] : [JSON.parse(line) as Shown]));
    };
    await call("echo", "words before");
    const [first] = await found("echo");
    expect(first?.arguments?.json.text).toBe("words before");

    const underWay = call("wait", "words under way");
    await until(async () => existsSync(join(folder, "begun")));
    expect((await one.cli(["audit", "erase", first?.principal.subject ?? "", "--yes"])).stdout).toContain("Erased");
    // The gateway has heard of it when it writes what can be read again, under a new key.
    await until(async () => {
      await call("echo", "words since");
      return (await found("echo")).some((record) => record.arguments?.json.text === "words since");
    });
    writeFileSync(join(folder, "open"), "");
    await underWay;

    const [waited] = await found("wait");
    expect(waited).toMatchObject({ erased: true, principal: { subject: first?.principal.subject } });
    expect(waited?.arguments).toBeUndefined();
    expect(waited?.sealed).toBeUndefined();
    expect((await one.cli(["audit", "show", "--target", "wait"])).stdout).toContain("erased before it was written");
    expect((await found("echo"))[0]?.arguments).toBeUndefined();
    expect((await one.cli(["audit", "verify"])).code).toBe(0);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}, 60_000);
