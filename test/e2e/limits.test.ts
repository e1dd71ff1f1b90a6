/** How often and how many at a time: 429 with the time to wait, for the one who asked too much and for nobody else. */
import { afterEach, expect, test } from "vitest";
import { type Fixture, fixtureCommand, startFixture, waitFor } from "../fixtures/processes.ts";
import { filed } from "../gateway/filed.ts";
import { modernRequest, type World, world } from "./world.ts";

let one: World | undefined;
let fixture: Fixture | undefined;
afterEach(async () => {
  await one?.[Symbol.asyncDispose]();
  await fixture?.stop();
  one = undefined;
  fixture = undefined;
});

const start = async (limits: Record<string, number>) => {
  one = await world({ servers: { echo: { command: fixtureCommand("echo-stdio") } }, limits });
  return one;
};
const ask = async (w: World, token: string, method: string, params: Record<string, unknown> = {}, id = "an-id") => {
  const [body, headers] = modernRequest(method, params, id);
  const response = await w.post(body, headers, token);
  return {
    status: response.status,
    retryAfter: response.headers.get("retry-after"),
    body: (await response.json()) as { id: unknown; result?: unknown; error?: { code: number; message: string } },
  };
};
const echo = (w: World, token: string, name = "echo") =>
  ask(w, token, "tools/call", { name, arguments: { text: "hi" } });

test("perPrincipalPerMinute: one request more is 429 with Retry-After; another client's requests pass", async () => {
  const w = await start({ perPrincipalPerMinute: 5 });
  const [mine, other] = [(await w.tokens()).access_token, (await w.tokens()).access_token];
  for (let index = 0; index < 5; index++) expect((await ask(w, mine, "tools/list")).status).toBe(200);
  const refused = await echo(w, mine);
  expect(refused.status).toBe(429);
  expect(Number(refused.retryAfter)).toBeGreaterThanOrEqual(1);
  expect(Number(refused.retryAfter)).toBeLessThanOrEqual(60);
  expect(refused.body).toMatchObject({ error: { code: -31429, message: expect.stringContaining("5 a minute") } });
  expect((await echo(w, other)).body).toMatchObject({ result: { content: [{ text: "hi" }] } });
  expect(await w.metrics()).toMatch(/drawbridge_refusals(_total)?\{[^}]*code="rate_limited"[^}]*\} 1/);
});

test("perPrincipalPerMinute: what is asked of /admin is counted too", async () => {
  const w = await start({ perPrincipalPerMinute: 3 });
  const headers = { authorization: `Bearer ${(await w.tokens()).access_token}` };
  const statuses: number[] = [];
  for (let index = 0; index < 4; index++) statuses.push((await fetch(`${w.origin}/admin/servers`, { headers })).status);
  expect(statuses).toEqual([200, 200, 200, 429]);
});

test("a new token of the same client and user does not begin a new count", async () => {
  const w = await start({ perPrincipalPerMinute: 3 });
  const own = await w.tokens();
  for (let index = 0; index < 3; index++) expect((await ask(w, own.access_token, "tools/list")).status).toBe(200);
  const refreshed = (await (
    await fetch(`${w.origin}/oauth/token`, {
      method: "POST",
      body: new URLSearchParams({
        grant_type: "refresh_token",
        client_id: own.client,
        refresh_token: own.refresh_token,
      }),
    })
  ).json()) as { access_token: string };
  expect((await ask(w, refreshed.access_token, "tools/list")).status).toBe(429);
});

test("perToolPerMinute: counts each tool for itself, and neither lists nor other tools", async () => {
  const w = await start({ perToolPerMinute: 2 });
  const [mine, other] = [(await w.tokens()).access_token, (await w.tokens()).access_token];
  for (let index = 0; index < 2; index++) expect((await echo(w, mine)).status).toBe(200);
  const refused = await echo(w, mine);
  expect([refused.status, refused.body.id, refused.body.error?.code]).toEqual([429, "an-id", -31429]);
  expect(Number(refused.retryAfter)).toBeGreaterThanOrEqual(1);
  expect((await ask(w, mine, "tools/list")).status).toBe(200);
  expect((await echo(w, mine, "count")).status).toBe(200);
  expect((await ask(w, mine, "resources/read", { uri: "test://static/greeting" })).status).toBe(200);
  expect((await echo(w, other)).status).toBe(200);
});

test("concurrentPerPrincipal: places are taken by calls under way, and free again however a call ends", async () => {
  fixture = await startFixture("echo-http", ["--era", "modern"]);
  const { origin } = fixture;
  one = await world({ servers: { web: { url: `${origin}/mcp` } }, limits: { concurrentPerPrincipal: 2 } });
  const w = one;
  const [mine, other] = [(await w.tokens()).access_token, (await w.tokens()).access_token];
  const upstreamCalls = async () => ((await (await fetch(`${origin}/stats`)).json()) as { calls: number }).calls;
  const hold = (stop: AbortSignal) => {
    const [body, headers] = modernRequest("tools/call", { name: "slow", arguments: { ms: 20_000 } });
    return fetch(w.url, {
      method: "POST",
      signal: stop,
      headers: {
        ...headers,
        authorization: `Bearer ${mine}`,
        "content-type": "application/json",
        accept: "application/json, text/event-stream",
      },
      body: JSON.stringify(body),
    }).catch(() => undefined);
  };
  for (let round = 0; round < 2; round++) {
    const before = await upstreamCalls();
    const stop = new AbortController();
    const held = [hold(stop.signal), hold(stop.signal)];
    await waitFor(async () => (await upstreamCalls()) === before + 2);
    const refused = await echo(w, mine);
    expect([refused.status, refused.retryAfter, refused.body.error?.code]).toEqual([429, "1", -31429]);
    expect((await echo(w, other)).status).toBe(200);
    // Both hang up; their places are free as soon as that is noticed.
    stop.abort();
    await Promise.all(held);
    await waitFor(async () => (await echo(w, mine)).status === 200);
  }
  // Refusals and failures give their places back, too.
  for (const name of ["nothing", "rpc-error", "hangup", "nothing", "rpc-error", "hangup"])
    expect((await echo(w, mine, name)).status).toBe(200);
  expect((await echo(w, mine)).status).toBe(200);
});

test("a request that never says anything uses a place only until it is given up", async () => {
  one = await world({
    servers: { echo: { command: fixtureCommand("echo-stdio") } },
    limits: { concurrentPerPrincipal: 1 },
  });
  const w = one;
  const { access_token } = await w.tokens();
  const stop = new AbortController();
  const beginning = () =>
    fetch(w.url, {
      method: "POST",
      signal: stop.signal,
      headers: { authorization: `Bearer ${access_token}`, "content-type": "application/json" },
      body: new ReadableStream({ start: (controller) => controller.enqueue(new TextEncoder().encode("{")) }),
      duplex: "half",
    } as RequestInit).then(
      () => "refused",
      () => "given up",
    );
  let silent = beginning();
  await waitFor(async () => {
    if ((await echo(w, access_token)).status === 429) return true;
    // The call may have had the only place when it came.
    if ((await Promise.race([silent, undefined])) === "refused") silent = beginning();
    return false;
  });
  stop.abort();
  expect(await silent).toBe("given up");
  await waitFor(async () => (await echo(w, access_token)).status === 200);
});

test("limits of tools and roles: 429 that says whose limit it was, taken from a changed file at once", async () => {
  await using at = await filed({ servers: { echo: { command: fixtureCommand("echo-stdio") } } });
  const call = (name = "echo") => at.call(name, { text: "hi" });
  for (let index = 0; index < 3; index++) expect((await call()).status).toBe(200);
  at.write({ limits: { tools: { echo: { perMinute: 2, cost: "=size(args.text)" } } } });
  expect(await at.reloaded()).toEqual(["limits changed"]);
  expect((await call()).status).toBe(200);
  expect(await call()).toMatchObject({
    status: 429,
    error: {
      code: -31429,
      message: expect.stringContaining(
        "Too many calls of echo by you: 2 a minute are permitted. This one counts as 2.",
      ),
      data: { limit: "limits.tools.echo", permitted: 2, per: "minute" },
    },
  });
  at.write({
    limits: {},
    roles: { owner: { may: ["*"], limit: "1/day" } },
    assign: [{ role: "owner", group: "owner" }],
  });
  await at.reload();
  expect((await call()).status).toBe(200);
  expect((await call()).error?.message).toContain("Too many calls in the role owner by you: 1 a day are permitted.");
  at.write({ limits: { tools: { "access:all": { perMinute: 1 } } } });
  await expect(at.reload()).rejects.toThrow(/limits\.tools\.access:all: there is no class/);
  at.write({ limits: { tools: { echo: { perMinute: 1, cost: "=args.text +" } } } });
  await expect(at.reload()).rejects.toThrow(/limits\.tools\.echo\.cost/);
});

const TOOL = { name: "test_input_required_result_elicitation", arguments: {} };
test.each(["legacy", "modern"])(
  "a %s server asks: the rounds are one call, and nobody has a place between them",
  async (era) => {
    one = await world({
      servers: { every: { command: fixtureCommand("everything/stdio", ["--era", era]) } },
      limits: { tools: { "*": { perMinute: 2, concurrent: 1 } } },
    });
    const w = one;
    const { access_token: token } = await w.tokens();
    const _meta = { "io.modelcontextprotocol/clientCapabilities": { elicitation: { form: {} } } };
    const call = (more: object = {}) => ask(w, token, "tools/call", { ...TOOL, ...more, _meta });
    const inputResponses = { user_name: { action: "accept", content: { name: "ann" } } };
    const stateOf = ({ body }: Awaited<ReturnType<typeof call>>) =>
      (body.result as { requestState?: string } | undefined)?.requestState;
    const first = await call();
    const second = await call();
    expect([first.status, second.status]).toEqual([200, 200]);
    expect((await call()).status).toBe(429);
    for (const asked of [first, second]) {
      const requestState = stateOf(asked);
      const again = await call({ inputResponses, ...(requestState !== undefined && { requestState }) });
      // A server without a state of its own is asked anew, and that is a call like any other.
      expect(again.status).toBe(requestState === undefined ? 429 : 200);
      if (requestState === undefined) continue;
      expect((await call({ inputResponses, requestState })).status).toBe(429);
      // The same state in other letters of JSON is the same round.
      const [body, headers] = modernRequest("tools/call", { ...TOOL, inputResponses, requestState, _meta });
      const spelled = `\\u${requestState.charCodeAt(0).toString(16).padStart(4, "0")}${requestState.slice(1)}`;
      const text = JSON.stringify(body).replace(requestState, () => spelled);
      expect(JSON.parse(text) as typeof body).toEqual(body);
      expect(text).toContain(spelled);
      expect((await w.post(text, headers, token)).status).toBe(429);
    }
  },
);
