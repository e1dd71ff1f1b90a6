/**
 * A gateway in somebody's app does what it does by itself: records that verify, tokens bound to keys below the mount's path, tasks,
 * refusals by policy, tokens for APIs behind, and changed settings.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, request as httpRequest } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { createRemoteJWKSet, decodeJwt, exportJWK, generateKeyPair, jwtVerify, SignJWT } from "jose";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openedIn } from "../audit/opened.ts";
import { run } from "../cli/terminal.ts";
import { taskClient } from "../e2e/tasking.ts";
import { modernRequest } from "../e2e/world.ts";
import { fixtureCommand, waitFor } from "../fixtures/processes.ts";
import { type Prover, prover } from "../oauth/minting.ts";
import {
  authorize,
  Browser,
  connect,
  listen,
  PASSWORD,
  REDIRECT,
  type Running,
  register,
  stop,
  token,
} from "../oauth/support.ts";
import { type App, type AppName, appWith } from "./apps.ts";
import { desk } from "./desk.ts";

const AUDIENCE = "https://parcels.example/api";
const VERIFIER = "m".repeat(64);
/** By requests of `node:http`, by those of the web, and behind a parser that has read the body. */
const MOUNTS: readonly AppName[] = ["Fastify", "Hono", "Express behind its parsers and compression"];

describe.each(MOUNTS)("mounted in %s", (name) => {
  const folder = mkdtempSync(join(tmpdir(), "drawbridge-mounted-"));
  const file = join(folder, "drawbridge.yaml");
  let app: App;
  let browser: Browser;
  let place: Running;
  const settings = (more: object = {}) =>
    writeFileSync(
      file,
      JSON.stringify({
        store: "sqlite:./gateway.db",
        log: { level: "silent" },
        clients: { registration: "open" },
        listen: { shutdownSeconds: 3 },
        servers: {
          every: {
            command: fixtureCommand("everything/stdio", ["--era", "modern"]),
            processes: { max: 3 },
            credentials: { exchange: { audience: AUDIENCE } },
          },
          parcels: {
            command: fixtureCommand("api-caller"),
            credentials: { exchange: { audience: AUDIENCE } },
          },
        },
        roles: { owner: { may: ["*"], deny: ["tool:parcels_fail"] } },
        assign: [{ role: "owner", group: "owner" }],
        ...more,
      }),
    );
  beforeAll(async () => {
    settings();
    app = await appWith(name, file);
    browser = new Browser(app.origin);
    await browser.go((await app.mount.setupLink()) ?? "");
    await browser.submit({ name: "olive", email: "olive@shop.example", password: PASSWORD, again: PASSWORD });
    place = { origin: app.origin, base: app.mount.url.replace(/\/mcp$/, ""), resource: app.mount.url } as Running;
  }, 60_000);
  afterAll(async () => {
    await app?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const owners = async (scope = "mcp:read mcp:call") => {
    const { body } = await register(place);
    return connect(place, browser, { client: String(body["client_id"]), scope });
  };
  const post = (authorization: string, method: string, params: Record<string, unknown> = {}, dpop?: string) => {
    const [body, own] = modernRequest(method, params);
    const headers = {
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
      authorization,
      ...own,
      ...(dpop !== undefined && { dpop }),
    };
    return fetch(app.mount.url, { method: "POST", headers, body: JSON.stringify(body) });
  };
  const call = async (tool: string, args = {}) =>
    post(`Bearer ${(await owners()).access_token}`, "tools/call", { name: tool, arguments: args });
  const records = () => {
    const log = new DatabaseSync(join(folder, "gateway.db"), { readOnly: true, timeout: 10_000 });
    try {
      return openedIn(log);
    } finally {
      log.close();
    }
  };

  describe("a token bound to a key", () => {
    let holder: Prover;
    let bound: string;
    const refusals = async (dpop?: string, authorization = `DPoP ${bound}`) => {
      const answer = await post(authorization, "tools/list", {}, dpop);
      return [answer.status, answer.headers.get("www-authenticate")?.split(",")[0]];
    };
    beforeAll(async () => {
      holder = await prover("ES256", Date.now, app.mount.url);
      const client = String((await register(place)).body["client_id"]);
      const code = (await authorize(place, browser, { client }, VERIFIER)).searchParams.get("code") ?? "";
      const form = {
        grant_type: "authorization_code",
        code,
        client_id: client,
        redirect_uri: REDIRECT,
        code_verifier: VERIFIER,
      };
      const prove = (nonce?: string) =>
        holder.prove("", { htu: `${place.base}/oauth/token`, ath: undefined, ...(nonce !== undefined && { nonce }) });
      let answer = await token(place, form, { dpop: await prove() });
      if (answer.body["error"] === "use_dpop_nonce")
        answer = await token(place, form, { dpop: await prove(answer.headers.get("dpop-nonce") ?? "") });
      expect(answer.body["token_type"]).toBe("DPoP");
      bound = String(answer.body["access_token"]);
    });

    test("is taken with a proof for the endpoint below the mount's path", async () => {
      for (let n = 0; n < 2; n++) expect((await refusals(await holder.prove(bound)))[0]).toBe(200);
    });
    test("is refused with a proof for another place of the app, even one that the app may strip it down to", async () => {
      for (const htu of [`${app.origin}/mcp`, `${app.origin}/assistant`, `${app.origin}/`, "https://evil.example/mcp"])
        expect([htu, ...(await refusals(await holder.prove(bound, { htu })))]).toEqual([
          htu,
          401,
          'DPoP error="invalid_dpop_proof"',
        ]);
    });
    test("is refused as a bearer token, without a proof, and with one of another key or used before", async () => {
      expect(await refusals(await holder.prove(bound), `Bearer ${bound}`)).toEqual([
        401,
        'Bearer error="invalid_token"',
      ]);
      expect(await refusals()).toEqual([401, 'DPoP error="invalid_dpop_proof"']);
      const thief = await prover("ES256", Date.now, app.mount.url);
      expect(await refusals(await thief.prove(bound))).toEqual([401, 'DPoP error="invalid_token"']);
      const once = await holder.prove(bound);
      expect((await refusals(once))[0]).toBe(200);
      expect((await refusals(once))[0]).toBe(401);
    });
  });

  test("a call becomes a task, whose state is asked for, whose result is fetched, and which can be cancelled", async () => {
    const client = await taskClient(app.mount.url, (await owners()).access_token, "modern");
    const task = await client.begin("every_job-only", { tag: "A", ms: 300 });
    expect((await client.state(task.taskId)).result).toMatchObject({ taskId: task.taskId, status: "working" });
    expect((await client.end(task.taskId)).result).toMatchObject({ content: [{ text: "A is done" }] });
    expect((await client.state(task.taskId)).result).toMatchObject({ status: "completed" });
    const long = await client.begin("every_job-only", { tag: "B", ms: 60_000 });
    expect((await client.cancel(long.taskId)).error).toBeUndefined();
    await waitFor(async () => (await client.state(long.taskId)).result?.["status"] === "cancelled");
    // Nobody else's client sees it.
    const other = await taskClient(app.mount.url, (await owners()).access_token, "modern");
    expect((await other.state(task.taskId)).error?.code).toBe(-32602);
  });

  test("what the policy denies looks as if it were not there, and the record says why", async () => {
    const answer = await call("parcels_fail");
    expect(await answer.json()).toMatchObject({ error: { message: "Unknown tool: parcels_fail" } });
    const listed = await (await post(`Bearer ${(await owners()).access_token}`, "tools/list")).text();
    expect(listed).toContain("parcels_ship");
    expect(listed).not.toContain("parcels_fail");
    const record = records().findLast((one) => one.call?.name === "parcels_fail");
    expect(record).toMatchObject({ outcome: "refused", decision: { effect: "deny" } });
  });

  test("a token for an API behind is made by the issuer that is mounted", async () => {
    const own = (await owners()).access_token;
    const lent = await post(`Bearer ${own}`, "tools/call", { name: "parcels_token", arguments: {} });
    const { result } = (await lent.json()) as { result: { structuredContent: { backwards: string } } };
    const exchanged = [...result.structuredContent.backwards].reverse().join("");
    const metadata = await fetch(`${app.origin}/.well-known/oauth-authorization-server/assistant`);
    const { jwks_uri, issuer } = (await metadata.json()) as { jwks_uri: string; issuer: string };
    const { payload } = await jwtVerify(exchanged, createRemoteJWKSet(new URL(jwks_uri)), {
      issuer,
      audience: AUDIENCE,
      typ: "at+jwt",
    });
    expect(issuer).toBe(place.base);
    expect(payload).toMatchObject({ sub: decodeJwt(own).sub, act: { sub: place.base } });
  });

  test("each call has its record, with where it came from, and the log verifies", async () => {
    await (await call("every_echo", { text: "for the record" })).text();
    const record = records().findLast((one) => one.call?.name === "every_echo");
    expect(record).toMatchObject({ outcome: "permitted", principal: { subject: expect.any(String) } });
    expect(JSON.stringify(record)).toMatch(/"(::ffff:)?127\.0\.0\.1"/);
    const kinds = new Set(records().map(({ kind }) => kind));
    expect(kinds.size).toBeGreaterThan(2);
    const copy = join(folder, "copy.db");
    const verified = async () => run(["audit", "verify", "--store", `sqlite:${copy}`], { cwd: folder });
    const log = new DatabaseSync(join(folder, "gateway.db"), { timeout: 10_000 });
    log.prepare("VACUUM INTO ?").run(copy);
    log.close();
    expect(await verified()).toMatchObject({ code: 0 });
    // So that the look would have found something.
    const changed = new DatabaseSync(copy);
    for (const { name } of changed.prepare("SELECT name FROM sqlite_master WHERE type = 'trigger'").all())
      changed.exec(`DROP TRIGGER "${String(name)}"`);
    expect(changed.prepare("UPDATE audit SET json = replace(json, '127.0.0.1', '127.0.0.2')").run().changes).not.toBe(
      0,
    );
    changed.close();
    expect((await verified()).code).not.toBe(0);
  });

  test("changed settings are taken while it runs, by the file and at its own /admin, and the app's address stays", async () => {
    const { roles } = JSON.parse(readFileSync(file, "utf8")) as { roles: object };
    expect((await call("every_echo", { text: "before" })).status).toBe(200);
    settings({ roles: { owner: { may: ["*"], deny: ["tool:every_echo"] } } });
    await waitFor(async () => (await (await call("every_echo", { text: "after" })).text()).includes("Unknown tool"));
    settings({ roles });
    const authorization = `Bearer ${(await owners("mcp:read mcp:call drawbridge:admin")).access_token}`;
    const reloaded = await fetch(`${place.base}/admin/reload`, { method: "POST", headers: { authorization } });
    expect([reloaded.status, Object.keys((await reloaded.json()) as object)]).toEqual([200, ["changes"]]);
    await waitFor(async () => (await (await call("every_echo", { text: "again" })).text()).includes("again"));
    const document = await fetch(`${app.origin}/.well-known/oauth-protected-resource/assistant/mcp`);
    expect(await document.json()).toMatchObject({ resource: app.mount.url });
    // It is not the app's root that has them.
    expect((await fetch(`${app.origin}/admin/reload`, { method: "POST", headers: { authorization } })).status).toBe(
      404,
    );
  });
});

test("behind a proxy a proof is for the address that clients see, and not for the one that the app listens at", async () => {
  const { privateKey, publicKey } = await generateKeyPair("ES256", { extractable: true });
  const jwk = await exportJWK(publicKey);
  let issuer = "";
  const issuing = createServer((request, response) => {
    const documents: Record<string, object> = {
      "/.well-known/openid-configuration": { issuer, jwks_uri: `${issuer}/keys`, token_endpoint: `${issuer}/token` },
      "/keys": { keys: [{ ...jwk, kid: "k", alg: "ES256", use: "sig" }] },
    };
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify(documents[request.url ?? ""] ?? {}));
  });
  issuer = `http://127.0.0.1:${await listen(issuing)}`;
  const publicUrl = "https://shop.example/assistant";
  try {
    await using app = await appWith("Express", desk, {
      publicUrl,
      settings: {
        roles: { owner: { may: ["*"] } },
        assign: [{ role: "owner", group: "owner" }],
        authorization: { issuer },
        listen: { behindTlsProxy: true },
      },
    });
    const holder = await prover("ES256", Date.now, `${publicUrl}/mcp`);
    const bound = await new SignJWT({
      scope: "mcp:read mcp:call",
      client_id: "agent",
      groups: ["owner"],
      cnf: { jkt: holder.jkt },
    })
      .setProtectedHeader({ alg: "ES256", kid: "k", typ: "at+jwt" })
      .setIssuer(issuer)
      .setSubject("ann")
      .setAudience(`${publicUrl}/mcp`)
      .setJti("t1")
      .setIssuedAt()
      .setExpirationTime("5m")
      .sign(privateKey);
    /** As a proxy hands it on. */
    const posted = async (htu: string): Promise<number | undefined> => {
      const [body, own] = modernRequest("tools/list");
      const dpop = await holder.prove(bound, { htu });
      const headers = {
        "content-type": "application/json",
        accept: "application/json, text/event-stream",
        authorization: `DPoP ${bound}`,
        dpop,
        ...own,
        host: "shop.example",
      };
      return new Promise((resolve, reject) => {
        httpRequest(`${app.origin}/assistant/mcp`, { method: "POST", headers }, (answer) => {
          answer.resume();
          resolve(answer.statusCode);
        })
          .on("error", reject)
          .end(JSON.stringify(body));
      });
    };
    expect(await posted(`${publicUrl}/mcp`)).toBe(200);
    for (const htu of [`${app.origin}/assistant/mcp`, "https://shop.example/mcp", "http://shop.example/assistant/mcp"])
      expect([htu, await posted(htu)]).toEqual([htu, 401]);
  } finally {
    await stop(issuing);
  }
}, 30_000);
