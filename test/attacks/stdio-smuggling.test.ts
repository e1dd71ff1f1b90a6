/** A request hidden in the arguments of another one, on a line of its own, must not be read by a stdio server as a request. */
import { expect, test } from "vitest";
import { modernRequest, world } from "../e2e/world.ts";
import { fixtureCommand } from "../fixtures/processes.ts";

test.each(["\n", "\r\n", "\r"])(
  "a request on its own line (%j) inside arguments never reaches a stdio server",
  async (br) => {
    await using one = await world({
      servers: { echo: { command: fixtureCommand("echo-stdio", []), processes: { max: 1 } } },
      roles: { owner: { may: ["*"], deny: ["crash"] } },
      assign: [{ role: "owner", group: "owner" }],
    });
    const { access_token } = await one.tokens();
    const [count, countHeaders] = modernRequest("tools/call", { name: "count", arguments: {} });
    const calls = async () => {
      const answer = (await (await one.post(count, countHeaders, access_token)).json()) as {
        result: { structuredContent: { calls: number; pid: number } };
      };
      return answer.result.structuredContent;
    };
    const before = await calls();
    const hidden = '{"jsonrpc":"2.0","id":"h","method":"tools/call","params":{"name":"crash","arguments":{}}}';
    const [body, headers] = modernRequest("tools/call", { name: "echo", arguments: { text: "HERE", more: "THERE" } });
    const text = JSON.stringify(body).replace('"THERE"', `[${br}${hidden}${br}]`);
    const answer = await (await one.post(text, headers, access_token)).json();
    expect(answer).toMatchObject({ result: { content: [{ text: "HERE" }] } });
    expect(await calls()).toMatchObject({ calls: before.calls + 2, pid: before.pid });
  },
);
