/** `drawbridge connect`: the operator's own account at a server, from the command line beside a running gateway. */
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { callTool, toolsOf } from "../e2e/connected.ts";
import { type Scripted, scriptedServer } from "../fixtures/scripted-authorization.ts";
import { type Operated, operated } from "./operated.ts";

let api: Scripted;
let here: Operated;
beforeAll(async () => {
  api = await scriptedServer();
  const servers = {
    api: { url: api.url, credentials: { oauth: "operator" } },
    each: { url: api.url, credentials: { oauth: "per-user" } },
  };
  here = await operated({ servers });
});
afterAll(async () => {
  await here?.[Symbol.asyncDispose]();
  await api?.[Symbol.asyncDispose]();
});

/** The browser of the operator, who allows it. */
const allowing = (more: Record<string, string> = {}) => ({
  openBrowser: (url: URL) => void fetch(api.back(url, more)),
});

test("connects the server, and the gateway that runs calls it from then on", async () => {
  expect(await toolsOf(here.live)).toEqual([]);
  expect(await here.json(["connect"])).toMatchObject([{ server: "api", state: "none" }]);
  const { code, stdout, stderr } = await here.cli(["connect", "api"], allowing());
  expect([code, stdout]).toEqual([0, "connected api: read\n"]);
  expect(stderr).toContain(`${api.origin}/authorize?`);
  await vi.waitFor(async () => expect(await toolsOf(here.live)).toEqual(["api_t"]), 10_000);
  expect((await callTool(here.live, "api_t")).result?.content?.[0]?.text).toBe("done");
  expect(await here.recorded("server-connected")).toMatchObject({
    server: "api",
    ofAll: true,
    operator: expect.any(String),
  });
});

test("believes no answer that is not the one to its question", async () => {
  const { code, stderr } = await here.cli(["connect", "api"], allowing({ state: "another" }));
  expect(code).toBe(1);
  expect(stderr).toContain("Start again");
});

test("leaves alone what each user connects, and says where that is done", async () => {
  const { code, stderr } = await here.cli(["connect", "each"]);
  expect(code).toBe(2);
  expect(stderr).toContain("/account");
});

test("comes back to loopback only", async () => {
  const { code, stderr } = await here.cli(["connect", "api", "--redirect", "http://evil.example/callback"]);
  expect(code).toBe(2);
  expect(stderr).toContain("must be a loopback address");
});

test("ends the connection with --end: its tokens are revoked, and calls are refused", async () => {
  const { code, stdout } = await here.cli(["connect", "api", "--end", "--yes"]);
  expect([code, stdout]).toEqual([0, "api is not connected any more\n"]);
  expect(api.seenAt("/revoke")).not.toHaveLength(0);
  expect((await callTool(here.live, "api_t")).result?.isError).toBe(true);
});
