/** What is kept of connections, and as whom the gateway asks for them. What becomes of calls is in test/e2e/connected-upstreams. */
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { Authenticated } from "../../src/core/call.ts";
import { Secret } from "../../src/core/secret.ts";
import { type Connections, openConnections } from "../../src/gateway/connections.ts";
import type { OAuthEvent } from "../../src/oauth/events.ts";
import { placeOf } from "../../src/oauth/http.ts";
import type { User } from "../../src/oauth/people/users.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";
import { httpServer, type ServerSettings } from "../../src/upstream/settings.ts";
import { type Scripted, scriptedServer } from "../fixtures/scripted-authorization.ts";

let api: Scripted;
let events: OAuthEvent[];
let store: ReturnType<typeof memoryStore>;
const opened: Connections[] = [];
beforeEach(async () => {
  api = await scriptedServer();
  events = [];
  store = memoryStore();
});
afterEach(async () => {
  for (const one of opened.splice(0)) await one.close();
  await api[Symbol.asyncDispose]();
  await store.close();
});

const ann = { id: "ann", name: "ann", groups: [], disabled: false } as unknown as User;
const never = new AbortController().signal;
const settingsOf = (oauth: object = {}, more: object = {}): ServerSettings =>
  httpServer.parse({ url: api.url, credentials: { oauth: { of: "per-user", ...oauth } }, ...more });

function open(
  settings = settingsOf(),
  { publicUrl = "https://gw.example", secret = "one", users = [ann] as readonly User[], fails = false } = {},
) {
  const made = openConnections({
    servers: () => ({ api: settings }),
    place: placeOf(new URL(publicUrl)),
    records: store.records,
    users: { find: async (id) => users.find((user) => user.id === id) },
    encryption: new Secret(secret),
    report: async (event) => {
      if (fails) throw new Error("the log is full");
      events.push(event);
    },
    log: silentLogger,
  });
  opened.push(made);
  const credentials = made.credentials("api", settings);
  return { made, token: () => credentials.for({ subject: "ann" } as Authenticated, never) };
}

async function connect({ made }: { made: Connections }) {
  const url = await made.begin("api", { user: ann, mark: "m" });
  await made.finish("api", api.back(url).searchParams, { user: ann, mark: "m", source: "127.0.0.1" });
  return url;
}

describe("as a client the gateway", () => {
  test("is its metadata document, where it is public and the authorization server takes those", async () => {
    api.metadata["client_id_metadata_document_supported"] = true;
    const one = open();
    const url = await connect(one);
    const id = "https://gw.example/connections/api/client.json";
    const callback = "https://gw.example/connections/api/callback";
    expect(url.searchParams.get("client_id")).toBe(id);
    expect(url.searchParams.get("redirect_uri")).toBe(callback);
    expect(one.made.document("api")).toMatchObject({
      client_id: id,
      redirect_uris: [callback],
      token_endpoint_auth_method: "none",
    });
    expect(one.made.document("other")).toBeUndefined();
    expect(api.seenAt("/register")).toHaveLength(0);
  });

  test("is registered where nobody could read the document, once for all its people, and by its exact redirect", async () => {
    api.metadata["client_id_metadata_document_supported"] = true;
    const one = open(settingsOf(), { publicUrl: "http://127.0.0.1:7337" });
    expect((await connect(one)).searchParams.get("client_id")).toBe("client-1");
    expect((await connect(one)).searchParams.get("client_id")).toBe("client-1");
    expect(JSON.parse(api.seenAt("/register")[0]?.body ?? "")).toMatchObject({
      redirect_uris: ["http://127.0.0.1:7337/connections/api/callback"],
      token_endpoint_auth_method: "none",
    });
    expect(one.made.document("api")).toBeUndefined();
  });

  test("is the client of the settings before all others", async () => {
    api.metadata["client_id_metadata_document_supported"] = true;
    const url = await connect(open(settingsOf({ clientId: "by-hand" })));
    expect(url.searchParams.get("client_id")).toBe("by-hand");
  });

  test("says what to do where it is none of these", async () => {
    api.metadata["registration_endpoint"] = undefined;
    await expect(open().made.begin("api", { user: ann, mark: "m" })).rejects.toMatchObject({
      detail: expect.stringContaining("credentials.oauth.clientId"),
    });
  });

  test("is registered again when nobody came back well from there three times", async () => {
    const one = open();
    for (let times = 0; times < 4; times++) await one.made.begin("api", { user: ann, mark: "m" });
    expect(api.seenAt("/register")).toHaveLength(2);
  });
});

describe("a connection", () => {
  test("is kept so that the store alone tells no token", async () => {
    api.tokens = { ...api.tokens, access_token: "canary-access", refresh_token: "canary-refresh" };
    await connect(open());
    const kinds = ["connection", "connection:client", "connection:away"];
    const rows = (await Promise.all(kinds.map((kind) => store.records.list(kind, { limit: 10 })))).flat();
    expect(rows.length).toBeGreaterThan(1);
    expect(JSON.stringify(rows)).not.toMatch(/canary|verifier/);
  });

  test("is none for whoever does not have the secret that it was sealed with", async () => {
    const one = open();
    await connect(one);
    await expect(one.token()).resolves.toMatchObject({ audience: api.url });
    await expect(open(settingsOf(), { secret: "two" }).token()).rejects.toMatchObject({ code: "connection_required" });
  });

  test("is none at another address that took the server's name", async () => {
    await connect(open());
    const moved = open(settingsOf({}, { url: `${api.origin}/other` }));
    await expect(moved.token()).rejects.toMatchObject({ code: "connection_required" });
  });

  test("cannot be put in place of somebody else's in the store", async () => {
    const one = open();
    await connect(one);
    const bob = { ...ann, id: "bob" };
    const url = await one.made.begin("api", { user: bob, mark: "m" });
    await one.made.finish("api", api.back(url).searchParams, { user: bob, mark: "m", source: "" });
    const rows = await store.records.list<{ subject: string }>("connection", { limit: 2 });
    const [anns, bobs] = ["ann", "bob"].map((subject) => rows.find(({ value }) => value.subject === subject));
    await store.records.put("connection", bobs?.id ?? "", { ...anns?.value, subject: "bob" });
    const { for: of } = one.made.credentials("api", settingsOf());
    await expect(of({ subject: "bob" } as Authenticated, never)).rejects.toMatchObject({ code: "connection_required" });
  });

  test("that cannot be recorded is not kept, and what was given is given back", async () => {
    const one = open(settingsOf(), { fails: true });
    const url = await one.made.begin("api", { user: ann, mark: "m" });
    const answer = api.back(url).searchParams;
    await expect(one.made.finish("api", answer, { user: ann, mark: "m", source: "" })).rejects.toThrow(
      "the log is full",
    );
    expect(await store.records.list("connection", { limit: 1 })).toEqual([]);
    expect(api.seenAt("/revoke")).not.toHaveLength(0);
  });

  test("is recorded when it begins and when it ends, with its scopes and without its tokens", async () => {
    const one = open();
    await connect(one);
    await one.made.end("api", { user: ann, source: "127.0.0.1" });
    expect(events).toMatchObject([
      { type: "server-connected", server: "api", issuer: api.origin, scopes: ["read"], ofAll: false, user: "ann" },
      { type: "server-disconnected", server: "api", why: "asked", user: "ann" },
    ]);
    expect(JSON.stringify(events)).not.toMatch(/access-1|refresh-1/);
  });

  test("ends when its person is gone, and is revoked even though its server does not answer for it", async () => {
    await connect(open());
    api.scripts.set("/revoke", (_, response) => response.writeHead(500).end());
    const later = open(settingsOf(), { users: [] });
    await later.made.sweep();
    expect(await store.records.list("connection", { limit: 1 })).toEqual([]);
    expect(api.seenAt("/revoke")).not.toHaveLength(0);
    expect(events.at(-1)).toMatchObject({ type: "server-disconnected", why: "user-gone", user: "ann" });
  });

  test("that was refreshed by a replica that died while it did is refreshed by the next", async () => {
    const one = open();
    api.tokens = { ...api.tokens, expires_in: 0 };
    await connect(one);
    const [row] = await store.records.list<object>("connection", { limit: 1 });
    await store.records.put("connection", row?.id ?? "", { ...row?.value, refreshingUntil: Date.now() + 300 });
    api.tokens = { ...api.tokens, access_token: "access-2", expires_in: 3600 };
    const began = Date.now();
    const credential = await one.token();
    expect(credential.value.reveal()).toBe("Bearer access-2");
    expect(Date.now() - began).toBeGreaterThanOrEqual(250);
  });

  test("that ended while it was being refreshed stays ended", async () => {
    const one = open();
    api.tokens = { ...api.tokens, expires_in: 0 };
    await connect(one);
    const asked = Promise.withResolvers<void>();
    const go = Promise.withResolvers<void>();
    api.scripts.set("/token", async (_, response) => {
      asked.resolve();
      await go.promise;
      const body = { ...api.tokens, access_token: "late", refresh_token: "late-too", expires_in: 60 };
      response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(body));
    });
    const waiting = one.token().catch((error: unknown) => error);
    await asked.promise;
    await one.made.end("api", { user: ann, source: "" });
    go.resolve();
    expect(await waiting).toMatchObject({ code: "connection_required" });
    expect(await store.records.list("connection", { limit: 1 })).toEqual([]);
    await vi.waitFor(() => expect(api.seenAt("/revoke").map(({ form }) => form.get("token"))).toContain("late-too"));
  });
});

describe("what is asked on nobody's behalf is asked", () => {
  const own = (settings: ServerSettings) => open(settings).made.credentials("api", settings);

  test("without a token at a server that answers so, until it says otherwise", async () => {
    const challenge = api.refuses(undefined, { body: "" } as never)?.challenge ?? "";
    api.refuses = () => undefined;
    const credentials = own(settingsOf());
    expect(await credentials.own(never)).toBeUndefined();
    expect(await credentials.lent()).toBe(false);
    const turnedDown = credentials.own(never, undefined, { "www-authenticate": challenge });
    await expect(turnedDown).rejects.toMatchObject({ code: "connection_required" });
  });

  test("with a token of our own where clients get one, and never with a person's then", async () => {
    api.metadata["grant_types_supported"] = ["authorization_code", "client_credentials"];
    const settings = settingsOf({ clientId: "ours", clientSecret: new Secret("s3cret") });
    await connect(open(settings));
    api.tokens = { ...api.tokens, access_token: "our-own" };
    const credentials = own(settings);
    expect((await credentials.own(never))?.value.reveal()).toBe("Bearer our-own");
    expect(await credentials.lent()).toBe(false);
  });

  test("with the token of somebody who has connected where there is no other way, and of the next when they leave", async () => {
    const credentials = own(settingsOf());
    await expect(credentials.own(never)).rejects.toMatchObject({ code: "connection_required" });
    const one = open();
    await connect(one);
    expect((await credentials.own(never))?.value.reveal()).toBe("Bearer access-1");
    expect(await credentials.lent()).toBe(true);
    const bob = { ...ann, id: "bob" };
    api.tokens = { ...api.tokens, access_token: "of-bob" };
    const url = await one.made.begin("api", { user: bob, mark: "m" });
    await one.made.finish("api", api.back(url).searchParams, { user: bob, mark: "m", source: "" });
    expect((await credentials.own(never))?.value.reveal()).toBe("Bearer access-1");
    await one.made.end("api", { user: ann, source: "" });
    expect((await credentials.own(never))?.value.reveal()).toBe("Bearer of-bob");
  });
});
