/** `credentials: oauth` over running gateways: people and the operator connect a server once, and calls carry what they were given. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { usersIn } from "../../src/oauth/people/users.ts";
import { announceTo } from "../../src/oauth/watch.ts";
import { openStore } from "../../src/store/open.ts";
import type { Store } from "../../src/store/ports.ts";
import { type Fixture, startFixture } from "../fixtures/processes.ts";
import { type Scripted, scriptedServer } from "../fixtures/scripted-authorization.ts";
import { type Browser, PASSWORD } from "../oauth/support.ts";
import { callTool, connectAccount, newUser, tokensOf, toolsOf } from "./connected.ts";
import { replicaOf } from "./replica.ts";
import { type World, world } from "./world.ts";

describe("a server that is a gateway itself, with people of its own", () => {
  let fixture: Fixture;
  let there: World;
  let here: World;
  beforeAll(async () => {
    fixture = await startFixture("echo-http", ["--era", "modern"]);
    // It takes no token that is not bound to a key, and no proof without its nonce.
    const tokens = { dpop: "required", dpopNonce: true };
    there = await world({ servers: { echo: { url: `${fixture.origin}/mcp` } }, tokens });
    here = await world({ servers: { up: { url: there.url, credentials: { oauth: "per-user" } } } });
  });
  afterAll(async () => {
    await here?.[Symbol.asyncDispose]();
    await there?.[Symbol.asyncDispose]();
    await fixture?.stop();
  });

  test("offers nothing before somebody has connected, and keeps the gateway from nothing", async () => {
    expect(await toolsOf(here)).toEqual([]);
    const ready = await fetch(`${here.origin}/ready`);
    expect([ready.status, await ready.json()]).toMatchObject([200, { servers: { up: "ready" } }]);
    await here.browser.go("/account");
    expect(here.browser.last.text).toContain("not connected");
  });

  test("is connected to by nobody who does not allow it there", async () => {
    const text = await connectAccount(here.browser, there.browser, "up", { answer: "deny" });
    expect(text).toContain("You did not allow it");
    expect(await toolsOf(here)).toEqual([]);
  });

  test("is called by whoever has connected once, with a token that is bound to a key", async () => {
    expect(await connectAccount(here.browser, there.browser, "up")).toContain("Connected.");
    expect(await toolsOf(here)).toContain("echo");
    expect((await callTool(here, "echo", { text: "hello" })).result?.content?.[0]?.text).toBe("hello");
    await here.browser.go("/account");
    expect(here.browser.last.text).toContain("mcp:call");
    // Over there it is a client like any other, which its owner can see and end.
    await there.browser.go("/account");
    expect(there.browser.last.text).toContain(`Drawbridge at ${new URL(here.origin).host}`);
  });

  test("takes no calls any more when its owner has ended the access there, and says where to connect again", async () => {
    await there.browser.go("/account");
    const client = /name="client" value="([^"]+)"/.exec(there.browser.last.text)?.[1] ?? "";
    await there.browser.submit({ client }, "/account/revoke");
    const answer = await vi.waitFor(async () => {
      const refused = await callTool(here, "echo", { text: "again" });
      expect(refused.result?.isError).toBe(true);
      return refused;
    });
    expect(answer.result?.content?.[0]?.text).toMatch(/has ended.*\/connections\/up\?for=/);
    expect(await connectAccount(here.browser, there.browser, "up")).toContain("Connected.");
    await vi.waitFor(async () => expect((await callTool(here, "echo", { text: "x" })).result?.isError).not.toBe(true));
  });

  test("has the tokens of whoever disconnects revoked", async () => {
    await here.browser.go("/connections/up");
    await here.browser.submit({}, "/connections/up/disconnect");
    expect(here.browser.last.text).toContain("The server is disconnected.");
    expect((await callTool(here, "echo", { text: "x" })).result?.isError).toBe(true);
    await here.browser.go("/account");
    expect(here.browser.last.text).toContain("not connected");
  });
});

describe("a server with an authorization server", () => {
  let folder: string;
  let settings: Record<string, unknown>;
  let api: Scripted;
  let here: World;
  let store: Store;
  let token: string;
  let minted: number;
  const place = () => `sqlite:${join(folder, "gateway.db")}`;

  const start = async (oauth: object = { of: "per-user" }) => {
    folder = mkdtempSync(join(tmpdir(), "drawbridge-connected-"));
    api = await scriptedServer();
    minted = 0;
    settings = { servers: { api: { url: api.url, credentials: { oauth } } }, store: place() };
    here = await world(settings);
    store = await openStore(place(), { baseDirectory: folder, warn: () => {} });
    token = (await here.tokens()).access_token;
  };
  beforeEach(() => start());
  afterEach(async () => {
    await store?.close();
    await here?.[Symbol.asyncDispose]();
    await api?.[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });

  const connect = async (browser: Browser = here.browser) => {
    await browser.go("/connections/api");
    const away = await browser.submit({}, "/connections/api/connect");
    if (away === undefined) throw new Error(browser.last.text);
    await browser.go(api.back(away).href);
    expect(browser.last.text).toContain("Connected.");
    await vi.waitFor(async () => expect(await toolsOf(here)).toEqual(["t"]));
    return away;
  };
  const call = (options: { token?: string; pages?: boolean; more?: object } = {}) =>
    callTool(here, "t", {}, { token, ...options });
  const shown = () =>
    api
      .seenAt("/mcp")
      .filter(({ body }) => body.includes("tools/call"))
      .map(({ headers }) => headers.authorization);
  /** Each refresh gives another token, and takes the one before away. */
  const rotating = () => {
    api.scripts.set("/token", async ({ form }, response) => {
      await new Promise((resolve) => setTimeout(resolve, 20));
      const [, last = ""] = /^refresh-(\d+)$/.exec(form.get("refresh_token") ?? "") ?? [];
      const good = form.get("grant_type") === "authorization_code" || Number(last) === minted;
      minted++;
      const body = good
        ? { access_token: `access-${minted}`, refresh_token: `refresh-${minted}`, token_type: "Bearer", expires_in: 1 }
        : { error: "invalid_grant" };
      response.writeHead(good ? 200 : 400, { "content-type": "application/json" }).end(JSON.stringify(body));
    });
  };
  const refreshes = () => api.seenAt("/token").filter(({ form }) => form.get("grant_type") === "refresh_token");
  /** Tokens live for one second here. */
  const untilExpired = () => new Promise((resolve) => setTimeout(resolve, 1_050));

  test("is asked once for new tokens by twenty calls whose token has ended", async () => {
    rotating();
    await connect();
    await untilExpired();
    const before = refreshes().length;
    const answers = await Promise.all(Array.from({ length: 20 }, () => call()));
    for (const answer of answers) expect(answer.result?.content?.[0]?.text).toBe("done");
    expect(refreshes().length - before).toBe(1);
    expect(new Set(shown()).size).toBe(1);
  });

  test("is asked once by two gateways on one store, and both go on with what one of them got", async () => {
    rotating();
    await connect();
    const other = await replicaOf(here, settings);
    try {
      await untilExpired();
      const before = refreshes().length;
      const second = {
        ...here,
        post: (body: unknown, headers?: Record<string, string>) => post(other.url, body, headers),
      };
      const answers = await Promise.all(
        Array.from({ length: 20 }, (_, n) => (n % 2 === 0 ? call() : callTool(second as World, "t"))),
      );
      for (const answer of answers) expect(answer.result?.content?.[0]?.text).toBe("done");
      expect(refreshes().length - before).toBe(1);
    } finally {
      await other[Symbol.asyncDispose]();
    }
  });
  const post = (url: string, body: unknown, headers: Record<string, string> = {}) =>
    fetch(url, {
      method: "POST",
      headers: {
        "content-type": "application/json",
        accept: "application/json, text/event-stream",
        authorization: `Bearer ${token}`,
        ...headers,
      },
      body: JSON.stringify(body),
    });

  test("whose authorization server takes the refresh token no more must be connected again", async () => {
    rotating();
    await connect();
    minted += 10;
    await untilExpired();
    const answer = await call();
    expect(answer.result?.isError).toBe(true);
    expect(answer.result?.content?.[0]?.text).toContain("has ended and must be made again");
    expect(
      (await store.records.list<{ sealed?: string }>("connection", { limit: 10 }))[0]?.value.sealed,
    ).toBeUndefined();
    await here.browser.go("/account");
    expect(here.browser.last.text).toContain("has ended");
  });

  test("whose authorization server is away for the moment is not lost", async () => {
    rotating();
    await connect();
    const mint = api.scripts.get("/token");
    api.scripts.set("/token", (_, response) => response.writeHead(503).end());
    await untilExpired();
    expect((await call()).error?.code).toBe(-31502);
    if (mint !== undefined) api.scripts.set("/token", mint);
    expect((await call()).result?.content?.[0]?.text).toBe("done");
  });

  test("that turns a token down before its time gets another one, once", async () => {
    await connect();
    const good = new Set(["Bearer access-2"]);
    api.refuses = (authorization = "") =>
      good.has(authorization) ? undefined : { status: 401, challenge: 'Bearer error="invalid_token"' };
    api.tokens = { ...api.tokens, access_token: "access-2", refresh_token: "refresh-2" };
    for (const answer of await Promise.all([call(), call(), call()]))
      expect(answer.result?.content?.[0]?.text).toBe("done");
    expect(refreshes()).toHaveLength(1);
    // One that turns down what it has just got is not given more.
    good.clear();
    for (const answer of await Promise.all([call(), call()]))
      expect(answer.error?.message).toContain("refused the token");
    expect(refreshes()).toHaveLength(1);
  });

  test("is called for each person with their own account, and for whoever has none not at all", async () => {
    api.tokens = { ...api.tokens, access_token: "of-olive" };
    await connect();
    const mallory = await newUser(here, store, "mallory");
    const hers = (await tokensOf(here, mallory.browser)).access_token;
    const refused = await call({ token: hers });
    expect(refused.result?.isError).toBe(true);
    expect(refused.result?.content?.[0]?.text).toMatch(/must be connected first.*\/connections\/api\?for=/);
    expect(shown()).toEqual([]);
    api.tokens = { ...api.tokens, access_token: "of-mallory" };
    await connect(mallory.browser);
    await Promise.all(Array.from({ length: 20 }, (_, n) => call({ token: n % 2 === 0 ? hers : token })));
    expect(shown().filter((one) => one === "Bearer of-mallory")).toHaveLength(10);
    expect(shown().filter((one) => one === "Bearer of-olive")).toHaveLength(10);
  });

  test("that keeps sessions has one for each person, and sees no token in another's", async () => {
    api.legacy = true;
    api.tokens = { ...api.tokens, access_token: "of-olive" };
    await connect();
    const mallory = await newUser(here, store, "mallory");
    const hers = (await tokensOf(here, mallory.browser)).access_token;
    api.tokens = { ...api.tokens, access_token: "of-mallory" };
    await connect(mallory.browser);
    const answers = await Promise.all(
      Array.from({ length: 10 }, (_, n) => call({ token: n % 2 === 0 ? hers : token })),
    );
    for (const answer of answers) expect(answer.result?.content?.[0]?.text).toBe("done");
    const pairs = api.seenAt("/mcp").flatMap(({ headers, body }) => {
      const session = headers["mcp-session-id"];
      return session !== undefined && body.includes("tools/call")
        ? [`${headers.authorization} ${String(session)}`]
        : [];
    });
    expect([...new Set(pairs)].toSorted()).toEqual([
      "Bearer of-mallory session-of-Bearer-of-mallory",
      "Bearer of-olive session-of-Bearer-of-olive",
    ]);
  });

  test("shows nobody the resources, or the words of welcome, of the person whose token its lists are read with", async () => {
    await connect();
    const lists = await post(here.url, ...listing("resources/list"));
    expect(await lists.text()).not.toContain("file:///mine");
    expect(api.seenAt("/mcp").some(({ body }) => body.includes("resources/list"))).toBe(false);
    const discovered = await post(here.url, ...listing("server/discover"));
    expect(await discovered.text()).not.toContain("Only for whoever signed in");
  });
  const listing = (method: string): [object, Record<string, string>] => [
    {
      jsonrpc: "2.0",
      id: 1,
      method,
      params: {
        _meta: {
          "io.modelcontextprotocol/protocolVersion": "2026-07-28",
          "io.modelcontextprotocol/clientCapabilities": {},
        },
      },
    },
    { "mcp-protocol-version": "2026-07-28", "mcp-method": method },
  ];

  describe("in the middle of a call", () => {
    let mallory: Browser;
    let hers: string;
    beforeEach(async () => {
      await connect();
      mallory = (await newUser(here, store, "mallory")).browser;
      hers = (await tokensOf(here, mallory)).access_token;
    });

    test("is connected by a page that a client of 2026-07-28 shows, and the call goes on", async () => {
      const first = await call({ token: hers, pages: true });
      expect(first.result).toMatchObject({ resultType: "input_required" });
      const { inputRequests, requestState } = first.result as {
        inputRequests: Record<string, { method: string; params: { mode: string; url: string } }>;
        requestState: string;
      };
      const [key = "", page] = Object.entries(inputRequests)[0] ?? [];
      expect(page).toMatchObject({ method: "elicitation/create", params: { mode: "url" } });
      const more = { requestState, inputResponses: { [key]: { action: "accept" } } };
      // Whoever says so without having done it is asked again.
      const again = await call({ token: hers, pages: true, more });
      expect(again.result).toMatchObject({ resultType: "input_required" });
      await mallory.go(page?.params.url ?? "");
      expect(mallory.last.text).toContain("Go on to connect");
      await connect(mallory);
      const done = await call({ token: hers, pages: true, more });
      expect(done.result?.content?.[0]?.text).toBe("done");
    });

    test("is connected by a page that a client of 2025-11-25 shows (-32042), who is told when that is done", async () => {
      const { Client } = await import("@modelcontextprotocol/sdk/client/index.js");
      const { StreamableHTTPClientTransport } = await import("@modelcontextprotocol/sdk/client/streamableHttp.js");
      const client = new Client({ name: "c", version: "1" }, { capabilities: { elicitation: { url: {} } } });
      const headers = { authorization: `Bearer ${hers}` };
      await client.connect(new StreamableHTTPClientTransport(new URL(here.url), { requestInit: { headers } }) as never);
      const told = Promise.withResolvers<unknown>();
      client.fallbackNotificationHandler = async ({ method, params }) => {
        if (method === "notifications/elicitation/complete") told.resolve(params?.["elicitationId"]);
      };
      try {
        const refused = (await client.callTool({ name: "t", arguments: {} }).catch((error: unknown) => error)) as {
          code: number;
          data: { elicitations: { mode: string; url: string; elicitationId: string }[] };
        };
        expect(refused.code).toBe(-32042);
        const [page] = refused.data.elicitations;
        expect(page).toMatchObject({ mode: "url", url: expect.stringContaining("/connections/api?for=") });
        await connect(mallory);
        expect(await told.promise).toBe(page?.elicitationId);
        expect(await client.callTool({ name: "t", arguments: {} })).toMatchObject({ content: [{ text: "done" }] });
      } finally {
        await client.close();
      }
    });

    test("is asked to be connected after signing in, when the link is opened in a browser that is not", async () => {
      const refused = await call({ token: hers });
      const link = /http:\S+\?for=[\w-]+/.exec(refused.result?.content?.[0]?.text ?? "")?.[0] ?? "";
      await mallory.go("/account");
      await mallory.submit({}, "/account/sign-out");
      await mallory.go(link);
      expect(mallory.last.text).toContain("<h1>Sign in");
      await mallory.submit({ name: "mallory", password: PASSWORD }, "/sign-in");
      expect(mallory.last.text).toContain("Go on to connect");
    });
  });

  test("that needs more is told about to the person, who allows it, and no more often than three times", async () => {
    await connect();
    const wants = (scope: string) => ({
      status: 403,
      challenge: `Bearer error="insufficient_scope", scope="${scope}"`,
    });
    api.refuses = (authorization, { body }) =>
      authorization === undefined
        ? { status: 401, challenge: "Bearer" }
        : body.includes("tools/call")
          ? wants("read write")
          : undefined;
    const first = await call();
    expect(first.result?.content?.[0]?.text).toContain("needs more than it was allowed");
    api.tokens = { ...api.tokens, scope: "read write", access_token: "access-2" };
    const away = await connect();
    expect(away.searchParams.get("scope")).toBe("read write");
    expect(api.seenAt("/revoke").length).toBeGreaterThanOrEqual(0);
    // It has what it wanted, and still is not content: nothing that a person could do helps.
    expect((await call()).error?.code).toBe(-31502);
    // One that gets nothing is not listened to for ever.
    let n = 0;
    api.refuses = (authorization, { body }) =>
      authorization !== undefined && body.includes("tools/call") ? wants(`more-${n++}`) : undefined;
    const answers = [];
    for (let times = 0; times < 5; times++) answers.push((await call()).error?.code);
    expect(answers).toEqual([undefined, undefined, undefined, -31502, -31502]);
  });

  test("forgets whoever is disabled or removed, and has their tokens revoked", async () => {
    await connect();
    const mallory = await newUser(here, store, "mallory");
    const walter = await newUser(here, store, "walter");
    api.tokens = { ...api.tokens, access_token: "of-mallory", refresh_token: "refresh-of-mallory" };
    await connect(mallory.browser);
    api.tokens = { ...api.tokens, access_token: "of-walter", refresh_token: "refresh-of-walter" };
    await connect(walter.browser);
    const users = usersIn(store.records);
    await users.setDisabled(mallory.id, true);
    await users.remove(walter.id);
    await announceTo(store.records, "ended");
    await vi.waitFor(async () => expect(await store.records.list("connection", { limit: 10 })).toHaveLength(1), 10_000);
    await vi.waitFor(() => {
      const revoked = api.seenAt("/revoke").map(({ form }) => form.get("token"));
      expect(revoked.toSorted()).toEqual(["of-mallory", "of-walter", "refresh-of-mallory", "refresh-of-walter"]);
    }, 10_000);
    expect((await call()).result?.content?.[0]?.text).toBe("done");
  });

  test("that has forgotten us is registered at again", async () => {
    await connect();
    expect(api.seenAt("/register")).toHaveLength(1);
    const mint = { ...api.tokens };
    api.tokens = { error: "invalid_client" };
    await here.browser.go("/connections/api");
    const away = await here.browser.submit({}, "/connections/api/connect");
    await here.browser.go(api.back(away ?? new URL("http://nowhere")).href);
    expect(here.browser.last.status).toBe(400);
    api.tokens = mint;
    await connect();
    expect(api.seenAt("/register")).toHaveLength(2);
  });
});

describe("a server that the operator connects", () => {
  let api: Scripted;
  let folder: string;
  let here: World;
  let store: Store;
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "drawbridge-connected-"));
    api = await scriptedServer();
    const place = `sqlite:${join(folder, "gateway.db")}`;
    here = await world({ servers: { api: { url: api.url, credentials: { oauth: "operator" } } }, store: place });
    store = await openStore(place, { baseDirectory: folder, warn: () => {} });
  });
  afterAll(async () => {
    await store?.close();
    await here?.[Symbol.asyncDispose]();
    await api?.[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });

  test("is connected by an owner at the account page, for everybody, and by nobody else", async () => {
    const users = usersIn(store.records);
    const mallory = await newUser(here, store, "mallory");
    await users.setGroups(mallory.id, []);
    await mallory.browser.go("/connections/api");
    expect(mallory.browser.last.status).toBe(404);
    await here.browser.go("/connections/api");
    expect(here.browser.last.text).toContain("everybody");
    const away = await here.browser.submit({}, "/connections/api/connect");
    await here.browser.go(api.back(away ?? new URL("http://nowhere")).href);
    await vi.waitFor(async () => expect(await toolsOf(here)).toEqual(["t"]));
    expect((await callTool(here, "t")).result?.content?.[0]?.text).toBe("done");
  });

  test("answers calls with a word to the operator once it is disconnected, and with no link", async () => {
    await here.browser.go("/connections/api");
    await here.browser.submit({}, "/connections/api/disconnect");
    const answer = await callTool(here, "t", {}, { pages: true });
    expect(answer.result?.isError).toBe(true);
    expect(answer.result?.content?.[0]?.text).toContain("once the operator");
    expect(JSON.stringify(answer)).not.toContain("http");
  });
});

test("a public gateway is a client by its own metadata document, where the authorization server takes those", async () => {
  const api = await scriptedServer();
  api.metadata["client_id_metadata_document_supported"] = true;
  const here = await world({
    servers: { api: { url: api.url, credentials: { oauth: "per-user" } } },
    clients: { registration: "off" },
    store: "memory",
  });
  try {
    // At a loopback address nobody could read it.
    expect((await fetch(`${here.origin}/connections/api/client.json`)).status).toBe(404);
  } finally {
    await here[Symbol.asyncDispose]();
    await api[Symbol.asyncDispose]();
  }
});
