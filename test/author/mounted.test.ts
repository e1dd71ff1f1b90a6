/** A declared server inside apps of three frameworks, over real HTTP, by SDK clients of both eras that know its URL alone. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, request as httpRequest } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { exportJWK, generateKeyPair, SignJWT } from "jose";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { server, tool } from "../../src/author/index.ts";
import { mounted } from "../../src/author/mounted.ts";
import { SettingsProblems } from "../../src/config/problems.ts";
import { modernRequest } from "../e2e/world.ts";
import { claimsOf, host, type Kept, v1, v2 } from "../oauth/sdk-clients.ts";
import { Browser, listen, PASSWORD, stop } from "../oauth/support.ts";
import { APPS, type App, type AppName, appWith } from "./apps.ts";
import { type AnyClient, clientAt, ERAS, textOf } from "./clients.ts";
import { desk as testDesk } from "./desk.ts";

/** Aborted calls of `hang`, which never answers. */
let gone = 0;
const hang = tool({
  name: "hang",
  title: "Hang",
  description: {
    does: "Tells that it has begun and then nothing.",
    useWhen: "when a client shall leave",
    notWhen: "for anything else",
    returns: "nothing",
    limits: "it never answers",
  },
  input: z.object({}),
  output: z.object({ never: z.boolean() }),
  access: "read",
  handler(_, { progress, signal }) {
    progress(1, 2);
    return new Promise<{ never: boolean }>(() => signal.addEventListener("abort", () => gone++));
  },
});
const desk = server({ ...testDesk.declared, tools: [...testDesk.declared.tools, hang] });

const policy = { roles: { owner: { may: ["*"] } }, assign: [{ role: "owner", group: "owner" }] };
const names = Object.keys(APPS) as AppName[];

async function owned(app: App): Promise<App> {
  const browser = new Browser(app.origin);
  await browser.go((await app.mount.setupLink()) ?? "");
  await browser.submit({ name: "olive", email: "olive@shop.example", password: PASSWORD, again: PASSWORD });
  return app;
}
/** A token of the owner, got by an SDK that was told the URL. */
async function tokenAt({ mount, origin }: App): Promise<Kept["tokens"] & {}> {
  const { kept, provider } = host();
  const place = { url: mount.url, issuer: mount.url.replace(/\/mcp$/, ""), origin };
  const client = await v2.connect(provider, kept, { ...place, [Symbol.asyncDispose]: async () => {} });
  await client.close();
  if (kept.tokens === undefined) throw new Error("no tokens");
  return kept.tokens;
}
const json = { "content-type": "application/json", accept: "application/json, text/event-stream" };

describe.each(names)("in %s", (name) => {
  let app: App;
  let token: string;
  beforeAll(async () => {
    app = await owned(await appWith(name, desk, { settings: policy }));
    token = (await tokenAt(app)).access_token;
  }, 60_000);
  afterAll(() => app?.close());

  test("the app's own routes are the app's", async () => {
    const answer = await fetch(`${app.origin}/orders`, { method: "POST", headers: json, body: '{"a":1}' });
    expect(await answer.json()).toEqual({ got: { a: 1 } });
    for (const path of ["/", "/health", "/metrics", "/account", "/admin", "/mcp", "/assistants/mcp", "/oauth/token"]) {
      const nothing = await fetch(`${app.origin}${path}`);
      expect([path, nothing.status, (await nothing.text()).includes("drawbridge")]).toEqual([path, 404, false]);
    }
  });

  test("a stranger finds the way from 401 over the documents of RFC 9728 and RFC 8414", async () => {
    const { mount, origin } = app;
    const refused = await fetch(mount.url, { method: "POST", headers: json, body: "{}" });
    expect(refused.status).toBe(401);
    const document = `${origin}/.well-known/oauth-protected-resource/assistant/mcp`;
    expect(refused.headers.get("www-authenticate")).toContain(`resource_metadata="${document}"`);
    const resource = (await (await fetch(document)).json()) as Record<string, unknown>;
    expect(resource).toMatchObject({ resource: mount.url, authorization_servers: [`${origin}/assistant`] });
    const issuer = await (await fetch(`${origin}/.well-known/oauth-authorization-server/assistant`)).json();
    expect(issuer).toMatchObject({ issuer: `${origin}/assistant`, token_endpoint: `${origin}/assistant/oauth/token` });
    expect(mount.documents).toContain(new URL(document).pathname);
    for (const path of mount.documents) expect((await fetch(`${origin}${path}`)).status).toBe(200);
  });

  test.each([v1, v2])("an SDK $version client that knows the URL alone signs in and calls", async (sdk) => {
    const { kept, provider } = host();
    const place = { url: app.mount.url, issuer: `${app.origin}/assistant`, origin: app.origin };
    const client = await sdk.connect(provider, kept, { ...place, [Symbol.asyncDispose]: async () => {} });
    try {
      expect(JSON.parse(await client.echo("hello"))).toMatchObject({ text: "hello" });
      expect(await claimsOf(provider)).toMatchObject({ aud: app.mount.url, iss: `${app.origin}/assistant` });
    } finally {
      await client.close();
    }
  });

  describe.each(ERAS)("a %s client", (era) => {
    let client: AnyClient;
    beforeAll(async () => {
      client = await clientAt({ url: app.mount.url, token }, era, ({ message }) => ({
        action: "accept",
        content: String(message).includes("engraved")
          ? { words: "To Ann" }
          : String(message).includes("sure")
            ? { sure: true }
            : { approve: true },
      }));
    });
    afterAll(() => client?.close());

    test("hears how far a call is while it is on its way", async () => {
      const heard: [number, number][] = [];
      const options = { onprogress: (told: { progress: number }) => heard.push([told.progress, performance.now()]) };
      const more = (era === "legacy" ? [undefined, options] : [options]) as unknown as [];
      const answer = await client.callTool({ name: "slow", arguments: {} }, ...more);
      const answered = performance.now();
      expect(answer.structuredContent).toEqual({ steps: 3 });
      expect(heard.map(([progress]) => progress)).toEqual([1, 2, 3]);
      // The handler waits 0.3 s after the first: nothing held it back until the end.
      expect(answered - (heard[0]?.[1] ?? answered)).toBeGreaterThan(150);
    });

    test("is asked, and approves", async () => {
      const ordered = await client.callTool({ name: "order", arguments: { sku: "KET-01" } });
      expect(ordered.structuredContent).toEqual({ ordered: "KET-01", engraved: "To Ann" });
      expect(await client.callTool({ name: "wipe", arguments: {} })).toMatchObject({
        structuredContent: { wiped: true },
      });
    });

    test("sees no masked field, and limits hold", async () => {
      const contact = await client.callTool({ name: "contact", arguments: {} });
      expect(JSON.stringify(contact)).not.toContain("daniel.singh1");
      const calls = [];
      for (let call = 0; call < 3; call++)
        calls.push(await client.callTool({ name: "scarce", arguments: {} }).then(JSON.stringify, String));
      expect(calls.filter((answer) => answer.includes('"given":true')).length).toBeLessThanOrEqual(1);
    });
  });

  test("a name of the host that is not its own, and a page of another origin, are refused", async () => {
    const port = Number(new URL(app.origin).port);
    const status = await new Promise<number | undefined>((resolve, reject) => {
      const headers = { ...json, host: "evil.example", authorization: `Bearer ${token}` };
      httpRequest({ port, host: "127.0.0.1", path: "/assistant/mcp", method: "POST", headers }, (answer) => {
        answer.resume();
        resolve(answer.statusCode);
      })
        .on("error", reject)
        .end("{}");
    });
    expect(status).toBe(403);
    const foreign = await fetch(app.mount.url, {
      method: "POST",
      headers: { ...json, authorization: `Bearer ${token}`, origin: "https://evil.example" },
      body: "{}",
    });
    expect(foreign.status).toBe(403);
  });

  test("a body beyond the bound is refused, and so is one that is no JSON", async () => {
    const post = (body: string) =>
      fetch(app.mount.url, { method: "POST", headers: { ...json, authorization: `Bearer ${token}` }, body });
    expect((await post(JSON.stringify({ jsonrpc: "2.0", x: "x".repeat(5 << 20) }))).status).toBe(413);
    expect((await post("{")).status).toBe(400);
  });

  test("a client that leaves ends its call", async () => {
    const before = gone;
    const [body, headers] = modernRequest("tools/call", { name: "hang", arguments: {}, _meta: { progressToken: 1 } });
    const leaving = new AbortController();
    const answer = await fetch(app.mount.url, {
      method: "POST",
      headers: { ...json, ...headers, authorization: `Bearer ${token}` },
      body: JSON.stringify(body),
      signal: leaving.signal,
    });
    const reader = answer.body?.getReader();
    expect(new TextDecoder().decode((await reader?.read())?.value)).toContain("notifications/progress");
    leaving.abort();
    await expect.poll(() => gone, { timeout: 5_000 }).toBe(before + 1);
  });
});

describe.each(names)("when the app ends, in %s", (name) => {
  test("calls in flight are answered, open streams end, and later requests are told so", async () => {
    const app = await owned(await appWith(name, desk, { settings: policy }));
    try {
      const { access_token: token } = await tokenAt(app);
      const listening = await clientAt({ url: app.mount.url, token }, "legacy");
      const caller = await clientAt({ url: app.mount.url, token }, "modern");
      const heard = Promise.withResolvers<void>();
      const options = { onprogress: () => heard.resolve() };
      const call = caller.callTool({ name: "slow", arguments: {} }, ...([options] as unknown as []));
      await heard.promise;
      const closed = app.mount.close();
      expect((await call).structuredContent).toEqual({ steps: 3 });
      await closed;
      const late = await fetch(app.mount.url, { method: "POST", headers: json, body: "{}" });
      expect([late.status, late.headers.get("retry-after")]).toEqual([503, "5"]);
      await listening.close();
      await caller.close();
    } finally {
      await app.close();
    }
  }, 30_000);
});

describe("what is wrong is told", () => {
  test.each(["https://shop.example", "https://shop.example/", "shop", "https://shop.example/a b", "https://a.test//x"])(
    "a publicUrl %s has no path of its own",
    async (publicUrl) => {
      await expect(mounted(desk, { publicUrl })).rejects.toThrow("must be the app's address with a path");
    },
  );

  test("settings that contradict each other are told as those of a file are", async () => {
    const settings = { assign: [{ role: "nobody", group: "x" }] };
    const failure = await mounted(desk, { publicUrl: "http://127.0.0.1:1/a", settings, environment: {} }).catch(String);
    expect(failure).toContain("nobody");
    await expect(
      mounted(desk, { publicUrl: "http://shop.example/a", environment: {}, settings: { store: "memory" } }),
    ).rejects.toThrow(SettingsProblems);
  });

  test("a file and settings beside it", async () => {
    await expect(
      mounted("drawbridge.yaml", { publicUrl: "https://shop.example/a", settings: { store: "memory" } }),
    ).rejects.toThrow("Settings beside the file");
  });
});

test("a whole settings file is mounted, with the servers that it names", async () => {
  const folder = mkdtempSync(join(tmpdir(), "drawbridge-mounted-"));
  try {
    const file = join(folder, "drawbridge.yaml");
    writeFileSync(
      file,
      JSON.stringify({
        store: "memory",
        log: { level: "silent" },
        clients: { registration: "open" },
        listen: { shutdownSeconds: 3 },
        servers: { desk: { module: join(import.meta.dirname, "desk.ts") } },
        ...policy,
      }),
    );
    await using app = await owned(await appWith("Express", file));
    const client = await clientAt({ url: app.mount.url, token: (await tokenAt(app)).access_token }, "modern");
    const answer = await client.callTool({ name: "echo", arguments: { text: "hi" } });
    expect(answer.structuredContent).toMatchObject({ text: "hi" });
    await client.close();
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}, 30_000);

test("tokens of another authorization server count, and it is the one that strangers are sent to", async () => {
  const { privateKey, publicKey } = await generateKeyPair("ES256", { extractable: true });
  let issuer = "";
  const issuing = createServer((request, response) => {
    const documents: Record<string, object> = {
      "/.well-known/openid-configuration": { issuer, jwks_uri: `${issuer}/keys`, token_endpoint: `${issuer}/token` },
      "/keys": { keys: [{ ...jwk, kid: "k", alg: "ES256", use: "sig" }] },
    };
    const found = documents[request.url ?? ""];
    response.writeHead(found === undefined ? 404 : 200, { "content-type": "application/json" });
    response.end(JSON.stringify(found ?? {}));
  });
  const jwk = await exportJWK(publicKey);
  issuer = `http://127.0.0.1:${await listen(issuing)}`;
  try {
    await using app = await appWith("Fastify", desk, {
      settings: { ...policy, authorization: { issuer } },
    });
    const metadata = await fetch(`${app.origin}${app.mount.documents[0]}`);
    expect(await metadata.json()).toMatchObject({ resource: app.mount.url, authorization_servers: [issuer] });
    expect(await app.mount.setupLink()).toBeUndefined();
    const signed = (aud: string) =>
      new SignJWT({ scope: "mcp:read mcp:call", client_id: "agent", groups: ["owner"] })
        .setProtectedHeader({ alg: "ES256", kid: "k", typ: "at+jwt" })
        .setIssuer(issuer)
        .setSubject("ann")
        .setAudience(aud)
        .setJti("t1")
        .setIssuedAt()
        .setExpirationTime("5m")
        .sign(privateKey);
    const client = await clientAt({ url: app.mount.url, token: await signed(app.mount.url) }, "modern");
    const { structuredContent } = await client.callTool({ name: "echo", arguments: { text: "hi" } });
    expect(structuredContent).toEqual({ text: "hi", by: "ann" });
    await client.close();
    const headers = { ...json, authorization: `Bearer ${await signed(`${app.origin}/mcp`)}` };
    expect((await fetch(app.mount.url, { method: "POST", headers, body: "{}" })).status).toBe(401);
  } finally {
    await stop(issuing);
  }
}, 30_000);

test("the answer to a bad argument reads like everywhere else", async () => {
  await using app = await owned(await appWith("Hono", desk, { settings: policy }));
  const client = await clientAt({ url: app.mount.url, token: (await tokenAt(app)).access_token }, "modern");
  expect(textOf(await client.callTool({ name: "echo", arguments: { text: "hi", verbose: true } }))).toContain(
    "verbose",
  );
  await client.close();
}, 30_000);
