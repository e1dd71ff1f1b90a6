/** `drawbridge grants`, beside a running gateway. */
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Grant } from "../../src/oauth/tokens/grants.ts";
import { type Operated, operated, until } from "./operated.ts";

let here: Operated;
beforeAll(async () => {
  here = await operated();
});
afterAll(() => here[Symbol.asyncDispose]());

const grantsOf = (client: string) => here.json<Grant[]>(["grants", "list", "--client", client]);

test("a grant is listed with names, and its tokens are refused within a second after it was revoked", async () => {
  const { client, access_token } = await here.live.tokens();
  expect(await here.status(access_token)).toBe(200);
  const [grant] = await grantsOf(client);
  expect(grant).toMatchObject({ client, userName: "olive", scopes: ["mcp:read", "mcp:call"] });
  const { stdout } = await here.cli(["grants", "list", "--user", "olive"]);
  expect(stdout).toMatch(/^USER +CLIENT +SCOPES/);
  expect(stdout).toMatch(/olive +Test client +mcp:read mcp:call/);
  expect((await here.cli(["grants", "show", grant?.id.slice(0, 20) ?? ""])).stdout).toContain(`(${client})`);
  expect(await here.cli(["grants", "revoke", grant?.id ?? ""])).toMatchObject({ code: 0 });
  expect(await until(async () => (await here.status(access_token)) === 401)).toBeLessThan(1000);
  expect(await grantsOf(client)).toEqual([]);
  expect(await here.recorded("revoked")).toMatchObject({ what: "grant", operator: expect.any(String) });
});

test("everything allowed to a client is revoked at once, and what others have goes on", async () => {
  const one = await here.live.tokens();
  const other = await here.live.tokens();
  expect([await here.status(one.access_token), await here.status(other.access_token)]).toEqual([200, 200]);
  expect(await here.json(["grants", "revoke", "--client", one.client])).toEqual({ revoked: 1 });
  await until(async () => (await here.status(one.access_token)) === 401);
  expect(await here.status(other.access_token)).toBe(200);
  expect(await here.json(["grants", "revoke", "--client", other.client, "--user", "olive"])).toEqual({ revoked: 1 });
  await until(async () => (await here.status(other.access_token)) === 401);
});

test("everything a user allowed is revoked at once, after a question", async () => {
  const { access_token } = await here.live.tokens();
  const question = { ask: async () => "" };
  expect(await here.cli(["grants", "revoke", "--all-of-user", "olive"], question)).toMatchObject({
    code: 1,
    stderr: expect.stringContaining("Nothing was changed"),
  });
  expect(await here.status(access_token)).toBe(200);
  expect(await here.cli(["grants", "revoke", "--all-of-user", "olive", "--yes"], question)).toMatchObject({ code: 0 });
  await until(async () => (await here.status(access_token)) === 401);
});

test("what to revoke must be said, and must be there", async () => {
  expect(await here.cli(["grants", "revoke"])).toMatchObject({ code: 2 });
  expect(await here.cli(["grants", "revoke", "x", "--client", "y"])).toMatchObject({ code: 2 });
  expect(await here.cli(["grants", "revoke", "--user", "olive"])).toMatchObject({ code: 2 });
  expect(await here.cli(["grants", "revoke", "absent"])).toMatchObject({
    code: 1,
    stderr: expect.stringContaining("`drawbridge grants list` shows what there is"),
  });
});
