/** How far a client came: kept bounded, without secrets, for whoever asks why it cannot connect. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { expect, test } from "vitest";
import { openTrails, readTrails, remark, type Trails, wayOf } from "../../src/oauth/trail.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";
import type { Records } from "../../src/store/ports.ts";

const RESOURCE = "https://mcp.example/base/mcp";

interface Opening {
  readonly replica?: string;
  readonly records?: Records;
}

function opened({ replica = "r1", records: given }: Opening = {}) {
  const time = { now: 1_700_000_000_000 };
  const records = given ?? memoryStore(() => time.now).records;
  const log: object[] = [];
  const logger = { ...silentLogger, info: (about: object) => void log.push(about) };
  const trails = openTrails({
    records,
    replica,
    sourceOf: (request) => (request as unknown as { source: string }).source,
    resource: RESOURCE,
    log: logger,
    clock: () => time.now,
  });
  return { trails, records, time, log };
}

interface Answered {
  readonly method?: string;
  readonly source?: string;
  readonly token?: boolean;
  readonly client?: string;
  readonly said?: string;
}

function answered(trails: Trails, url: string, status: number, more: Answered = {}): void {
  const { method = "GET", source = "192.0.2.7", token = false, client, said } = more;
  const request = { url, method, source, headers: token ? { authorization: "Bearer very-secret" } : {} };
  const response = { statusCode: status };
  if (client !== undefined || said !== undefined)
    remark(response, { ...(client !== undefined && { client }), ...(said !== undefined && { said }) });
  trails.answered(request as unknown as IncomingMessage, response as ServerResponse);
}

test("the way of a client is put together from what it did before and after it was known", async () => {
  const { trails, records, time } = opened();
  const tick = () => void time.now++;
  answered(trails, "/base/mcp", 401, { method: "POST" });
  tick();
  answered(trails, "/.well-known/oauth-protected-resource/base/mcp", 200);
  tick();
  answered(trails, "/.well-known/oauth-authorization-server/base", 200);
  tick();
  answered(trails, "/base/oauth/register", 201, { method: "POST", client: "c_1" });
  tick();
  answered(trails, "/base/oauth/authorize?client_id=c_1&state=very-secret", 303, { said: "a person is asked: login" });
  tick();
  trails.heard({ type: "signed-in", name: "olive", user: "u_1", source: "192.0.2.7" });
  tick();
  trails.heard({
    type: "consent-granted",
    user: "u_1",
    client: "c_1",
    grant: "g",
    scopes: ["mcp:read"],
    refused: [],
    asked: true,
    source: "192.0.2.7",
  });
  tick();
  answered(trails, "/base/oauth/token", 200, { method: "POST", client: "c_1" });
  tick();
  answered(trails, "/base/mcp", 401, { method: "POST", token: true, said: "the token is for another resource" });
  await trails.close();
  const found = await readTrails(records);
  const way = wayOf("c_1", found);
  expect(way.map(({ step, ok }) => [step, ok])).toEqual([
    ["challenge", true],
    ["resource", true],
    ["server", true],
    ["registration", true],
    ["authorize", true],
    ["sign-in", true],
    ["consent", true],
    ["token", true],
    ["call", false],
  ]);
  expect(way.at(-1)).toMatchObject({ status: 401, said: "the token is for another resource", source: "192.0.2.7" });
  expect(JSON.stringify(found)).not.toContain("very-secret");
});

test("the first call with a new token is seen, and those after it are not written down", async () => {
  const { trails, records } = opened();
  answered(trails, "/base/oauth/authorize?client_id=c_1", 303);
  answered(trails, "/base/oauth/token", 200, { method: "POST", client: "c_1" });
  for (let call = 0; call < 5; call++) answered(trails, "/base/mcp", 200, { method: "POST", token: true });
  await trails.close();
  const calls = wayOf("c_1", await readTrails(records)).filter(({ step }) => step === "call");
  expect(calls).toMatchObject([{ ok: true, times: 1 }]);
});

test("a client that refreshes as ever leaves no trail", async () => {
  const { trails, records } = opened();
  answered(trails, "/base/oauth/token", 200, { method: "POST", client: "c_1" });
  await trails.close();
  expect(await readTrails(records)).toEqual([]);
});

test("repeated steps are counted, and only the last thirty are kept", async () => {
  const { trails, records } = opened();
  for (let n = 0; n < 100; n++) answered(trails, "/base/mcp", 401, { method: "POST" });
  for (let n = 0; n < 100; n++) answered(trails, `/.well-known/openid-configuration/${n}`, 404);
  await trails.close();
  const [trail] = await readTrails(records);
  expect(trail?.steps.length).toBe(30);
  const { trails: other, records: others } = opened();
  for (let n = 0; n < 100; n++) answered(other, "/base/mcp", 401, { method: "POST" });
  await other.close();
  expect((await readTrails(others))[0]?.steps).toMatchObject([{ step: "challenge", times: 100 }]);
});

test("a flood of strangers fills neither memory nor store", async () => {
  const { trails, records } = opened();
  for (let n = 0; n < 1000; n++)
    answered(trails, "/base/mcp", 401, { method: "POST", source: `198.51.${n >> 8}.${n & 255}` });
  for (let n = 0; n < 1000; n++) answered(trails, `/base/oauth/authorize?client_id=invented-${n}`, 400);
  await trails.close();
  const found = await readTrails(records);
  expect(found.length).toBeLessThanOrEqual(200);
  // Who invents client ids has a few trails; the rest is under the address.
  expect(found.filter(({ client }) => client !== undefined).length).toBeLessThanOrEqual(10);
});

test("what several replicas saw is one way", async () => {
  const one = opened({ replica: "r1" });
  const two = opened({ replica: "r2", records: one.records });
  answered(one.trails, "/base/oauth/authorize?client_id=c_1", 303);
  two.time.now += 10;
  answered(two.trails, "/base/oauth/token", 400, {
    method: "POST",
    client: "c_1",
    said: "invalid_grant: code expired",
  });
  await Promise.all([one.trails.close(), two.trails.close()]);
  const way = wayOf("c_1", await readTrails(one.records));
  expect(way.map(({ step }) => step)).toEqual(["authorize", "token"]);
});

test("a failure is one line of the log, and a hundred of them are few", async () => {
  const { trails, log } = opened();
  for (let n = 0; n < 100; n++)
    answered(trails, "/base/oauth/token", 400, { method: "POST", client: "c_1", said: `invalid_grant: ${n}` });
  expect(log[0]).toMatchObject({ client: "c_1", step: "token", said: "invalid_grant: 0" });
  expect(log.length).toBe(5);
  await trails.close();
});

test("a store that fails stops nobody, and is tried again", async () => {
  const sound = memoryStore(() => 1_700_000_000_000).records;
  let failing = true;
  const records: Records = {
    ...sound,
    put: (...given) => (failing ? Promise.reject(new Error("the disk is full")) : sound.put(...given)),
  };
  const { trails } = opened({ records });
  answered(trails, "/base/mcp", 403, { method: "POST", token: true, said: "no role" });
  await trails.close();
  expect(await readTrails(records)).toEqual([]);
  failing = false;
  await trails.close();
  expect(await readTrails(records)).toHaveLength(1);
});
