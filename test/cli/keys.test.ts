/** `drawbridge keys`, while calls go on. */
import { afterAll, beforeAll, expect, test } from "vitest";
import type { KeyStatus } from "../../src/oauth/tokens/keys.ts";
import { refresh } from "../oauth/support.ts";
import { type Operated, operated, until } from "./operated.ts";

let here: Operated;
beforeAll(async () => {
  here = await operated();
});
afterAll(() => here[Symbol.asyncDispose]());

const published = async () => {
  const answer = await fetch(`${here.live.origin}/oauth/jwks`);
  return ((await answer.json()) as { keys: { kid: string }[] }).keys.map(({ kid }) => kid);
};

test("a rotation publishes the new key on the running gateway and refuses no call", async () => {
  const { access_token } = await here.live.tokens();
  const [old] = await here.json<KeyStatus[]>(["keys", "list"]);
  let going = true;
  const statuses = new Set<number>();
  const calls = (async () => {
    while (going) statuses.add(await here.status(access_token));
  })();
  const next = await here.json<KeyStatus>(["keys", "rotate"]);
  expect(next.state).toBe("next");
  await until(async () => (await published()).includes(next.kid));
  going = false;
  await calls;
  expect([...statuses]).toEqual([200]);
  expect(await published()).toContain(old?.kid);
  const { stdout } = await here.cli(["keys", "list"]);
  expect(stdout).toMatch(new RegExp(`next +ES256 .*${next.kid}`));
  expect(stdout).toMatch(new RegExp(`signing +ES256 .*${old?.kid}`));
  expect(stdout).not.toMatch(/"d"/);
  expect(await here.recorded("keys-changed")).toMatchObject({ change: "rotated", operator: expect.any(String) });
});

test("what a revoked key signed is refused within a second, and clients go on with a refresh", async () => {
  const { access_token, refresh_token, client } = await here.live.tokens();
  expect(await here.status(access_token)).toBe(200);
  const signing = (await here.json<KeyStatus[]>(["keys", "list"])).find(({ state }) => state === "signing");
  expect(await here.cli(["keys", "revoke", signing?.kid ?? ""])).toMatchObject({ code: 0 });
  expect(await until(async () => (await here.status(access_token)) === 401)).toBeLessThan(1000);
  const place = { origin: here.live.origin, base: here.live.gateway.publicUrl, resource: here.live.url };
  const { body } = await refresh(place as Parameters<typeof refresh>[0], client, refresh_token);
  expect(await here.status(String(body["access_token"]))).toBe(200);
  expect(await here.cli(["keys", "revoke", "absent"])).toMatchObject({ code: 1 });
});

test("an id that begins with a dash is an id, and an option that there is not is still refused", async () => {
  const id = "-aX3vB9k2LmNopQrStUvWxYz0123456789_-AbCdEfGh";
  for (const words of [
    ["keys", "revoke", id],
    ["grants", "revoke", id.slice(0, 8)],
    ["users", "sessions", "somebody", "--end", id],
    ["clients", "show", id],
  ]) {
    const { code, stderr } = await here.cli(words);
    expect(stderr, words.join(" ")).not.toContain("unknown option");
    expect(code, words.join(" ")).toBe(1);
  }
  const { code, stderr } = await here.cli(["keys", "revoke", id, "--jsn"]);
  expect(code).toBe(2);
  expect(stderr).toContain("too many arguments");
  expect(await here.cli(["keys", "revoke", "--jsn"])).toMatchObject({
    code: 2,
    stderr: expect.stringContaining("unknown option '--jsn'"),
  });
  expect(await here.cli(["keys", "list", "--Json"])).toMatchObject({
    code: 2,
    stderr: expect.stringContaining("unknown option '--Json'"),
  });
});
