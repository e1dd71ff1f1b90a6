/** Clauses of the MCP stdio transport, from the side of the client that the gateway is: what children read, and how they are stopped. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect } from "vitest";
import { alive, waitFor } from "../fixtures/processes.ts";
import { verifies } from "../requirements.ts";
import { modernRequest, world } from "./world.ts";

/** Notes all that happens to it; answers every request; goes on without stdin and after SIGTERM. */
const STUBBORN = `
import { appendFileSync } from "node:fs";
const [, , log] = process.argv;
const note = (what) => appendFileSync(log, what + "\\n");
note("pid " + process.pid);
process.on("SIGTERM", () => note("SIGTERM"));
setInterval(() => {}, 1000);
let rest = "";
process.stdin.setEncoding("utf8").on("data", (chunk) => {
  const lines = (rest + chunk).split("\\n");
  rest = lines.pop();
  for (const line of lines) {
    note("line " + line);
    const { id, method, params } = JSON.parse(line);
    if (id === undefined) continue;
    const schema = { type: "object", properties: { text: { type: "string" } } };
    const results = {
      initialize: { protocolVersion: "2025-11-25", capabilities: { tools: {} }, serverInfo: { name: "s", version: "1" } },
      "tools/list": { tools: [{ name: "echo", inputSchema: schema }] },
      "tools/call": { content: [{ type: "text", text: params?.arguments?.text ?? "" }] },
    };
    const answer = results[method] ? { result: results[method] } : { error: { code: -32601, message: "Method not found" } };
    process.stdout.write(JSON.stringify({ jsonrpc: "2.0", id, ...answer }) + "\\n");
  }
}).on("end", () => note("end of stdin"));
`;

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "drawbridge-stdio-"));
  await writeFile(join(folder, "stubborn.mjs"), STUBBORN);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

verifies(
  ["stdio-stdout", "stdio-shutdown"],
  "a child reads one message per line, whatever the client sent, and is stopped by the end of stdin, SIGTERM and SIGKILL",
  async () => {
    const log = join(folder, "log");
    const notes = async () => (await readFile(log, "utf8").catch(() => "")).split("\n").filter(Boolean);
    const one = await world({
      answers: { invisible: "keep" }, // Its text has a control character.
      servers: { s: { command: [process.execPath, join(folder, "stubborn.mjs"), log], processes: { max: 1 } } },
    });
    try {
      const text = "two\nlines\r\u2028\u2029 and \u0000";
      const [body, headers] = modernRequest("tools/call", { name: "echo", arguments: { text } });
      for (const spelling of [
        JSON.stringify(body),
        JSON.stringify(body, null, 2),
        JSON.stringify(body, null, "\r\n\t"),
      ]) {
        const answer = await (await one.post(spelling, headers)).json();
        expect(answer).toMatchObject({ result: { content: [{ text }] } });
      }
    } finally {
      await one[Symbol.asyncDispose]();
    }
    const all = await notes();
    for (const line of all.filter((note) => note.startsWith("line ")))
      expect(JSON.parse(line.slice(5))).toMatchObject({ jsonrpc: "2.0", method: expect.any(String) });
    expect(all.filter((note) => !/^(line|pid) /.test(note))).toEqual(["end of stdin", "SIGTERM"]);
    const pid = Number(all[0]?.slice(4));
    await waitFor(async () => !(await alive(pid)));
  },
);
