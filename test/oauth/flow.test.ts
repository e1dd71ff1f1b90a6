import { randomUUID } from "node:crypto";
import { request } from "node:http";
import { decodeJwt, decodeProtectedHeader, exportJWK, generateKeyPair, SignJWT } from "jose";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { memoryStore } from "../../src/store/memory/memory.ts";
import { verifies } from "../requirements.ts";
import {
  authorize,
  authorizeUrl,
  Browser,
  call,
  connect,
  type DocumentHost,
  documentHost,
  REDIRECT,
  type Running,
  refresh,
  register,
  running,
  setUp,
  token,
} from "./support.ts";

let host: DocumentHost;
let live: Running;
let browser: Browser;

beforeAll(async () => {
  host = await documentHost();
  live = await running({ clients: { metadataDocuments: host.settings, registration: "open" } });
  browser = await setUp(live);
});
afterAll(async () => {
  await live[Symbol.asyncDispose]();
  await host[Symbol.asyncDispose]();
});

describe("a client that nobody registered", () => {
  verifies(
    ["rfc9068-token", "rfc8707-audience"],
    "goes from its document through sign-in and consent to a token that the resource accepts",
    async () => {
      const client = host.publish("/first.json");
      const tokens = await connect(live, new Browser(live.origin), { client });
      expect(decodeProtectedHeader(tokens.access_token)).toMatchObject({ alg: "ES256", typ: "at+jwt" });
      const claims = decodeJwt(tokens.access_token);
      expect(claims).toMatchObject({
        iss: live.base,
        aud: live.resource,
        client_id: client,
        scope: "mcp:read mcp:call",
      });
      expect((claims.exp ?? 0) - (claims.iat ?? 0)).toBe(300);
      const { status, body } = await call(live, tokens.access_token);
      expect(status).toBe(200);
      expect(body).toMatchObject({
        client,
        groups: ["owner"],
        scopes: ["mcp:read", "mcp:call"],
        claims: { name: "olive", email: "olive@shop.example" },
      });
      expect(body.grant).toBe(claims["gid"]);
    },
  );

  verifies("rfc7591-register", "may register itself where registration is open", async () => {
    const { status, body, headers } = await register(live, { scope: "mcp:read mcp:call openid" });
    expect(status).toBe(201);
    expect(headers.get("access-control-allow-origin")).toBe("*");
    const client = String(body["client_id"]);
    expect(client).not.toMatch(/^https:/);
    const tokens = await connect(live, browser, { client });
    expect((await call(live, tokens.access_token)).status).toBe(200);
  });

  test("of the operator's file authenticates with its secret", async () => {
    const { Secret } = await import("../../src/core/secret.ts");
    await using here = await running({
      clients: {
        preregistered: [
          {
            id: "billing",
            name: "Billing",
            redirectUris: ["https://billing.example/cb"],
            secret: new Secret("s".repeat(40)),
          },
        ],
      },
    });
    const someone = await setUp(here);
    const verifier = "w".repeat(64);
    const redirect = "https://billing.example/cb";
    const end = await authorize(here, someone, { client: "billing", redirect }, verifier);
    expect(someone.seen.some(({ text }) => text.includes("Set up by your operator"))).toBe(true);
    const grant = {
      grant_type: "authorization_code",
      code: end.searchParams.get("code") ?? "",
      code_verifier: verifier,
      redirect_uri: redirect,
    };
    const wrong = await token(here, grant, { authorization: `Basic ${btoa("billing:wrong")}` });
    expect(wrong.body["error"]).toBe("invalid_client");
    expect(wrong.status).toBe(401);
    const right = await token(here, grant, { authorization: `Basic ${btoa(`billing:${"s".repeat(40)}`)}` });
    expect(right.status).toBe(200);
  });

  verifies("rfc7523-client", "with a key in its document authenticates with it, and not without", async () => {
    const { privateKey, publicKey } = await generateKeyPair("ES256");
    const jwk = { ...(await exportJWK(publicKey)), kid: "k1", use: "sig", alg: "ES256" };
    const redirect = "https://agent.example/cb";
    const client = host.publish("/keyed.json", { redirect_uris: [redirect], jwks: { keys: [jwk] } });
    const verifier = "a".repeat(64);
    const end = await authorize(live, browser, { client, redirect }, verifier);
    const code = end.searchParams.get("code") ?? "";
    const grant = {
      grant_type: "authorization_code",
      code,
      code_verifier: verifier,
      redirect_uri: redirect,
      client_id: client,
    };
    expect((await token(live, grant)).body["error"]).toBe("invalid_client");
    const assertion = await new SignJWT({})
      .setProtectedHeader({ alg: "ES256", kid: "k1" })
      .setIssuer(client)
      .setSubject(client)
      .setAudience(live.base)
      .setJti(randomUUID())
      .setIssuedAt()
      .setExpirationTime("60s")
      .sign(privateKey);
    const type = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    const signed = { ...grant, client_assertion: assertion, client_assertion_type: type };
    expect((await token(live, signed)).status).toBe(200);
    expect((await token(live, { ...signed, grant_type: "refresh_token" })).status).toBeGreaterThanOrEqual(400);
  });

  test("is shown in the audit events from consent to token", async () => {
    const client = host.publish("/audited.json");
    live.events.length = 0;
    const { refresh_token } = await connect(live, browser, { client });
    await refresh(live, client, refresh_token);
    expect(live.events.map(({ type }) => type)).toEqual(["consent-granted", "token-issued", "token-refreshed"]);
    for (const event of live.events)
      expect(event).toMatchObject({ client, grant: expect.any(String), user: expect.any(String) });
  });
});

describe("what real clients send", () => {
  verifies(
    ["cimd-redirect", "rfc8252-loopback"],
    "a portless localhost redirect takes any port and nothing else",
    async () => {
      const client = host.publish("/cc.json", {
        redirect_uris: ["http://localhost/callback", "http://127.0.0.1/callback"],
        token_endpoint_auth_method: "none",
        response_types: ["code"],
        grant_types: ["authorization_code", "refresh_token"],
      });
      await connect(live, browser, { client, redirect: "http://localhost:58135/callback" });
      await connect(live, browser, { client, redirect: "http://127.0.0.1:58136/callback" });
      for (const redirect of [
        "http://localhost:58135/other",
        "http://[::1]:58135/callback",
        "http://localhost.shop.example:1/callback",
        "http://127.0.0.1@shop.example/callback",
        "http://2130706434/callback",
      ]) {
        expect(await browser.go(authorizeUrl(live, { client, redirect })), redirect).toBeUndefined();
        expect(browser.last.status).toBe(400);
        expect(browser.last.text).toContain("redirect_uri");
      }
    },
  );

  test("many redirects of an editor, in the browser and on the machine, work side by side", async () => {
    const client = host.publish("/editor.json", {
      client_name: "Editor",
      redirect_uris: [
        "http://127.0.0.1/",
        "https://editor.example/redirect",
        "vscode://editor.mcp/callback",
        ...Array.from({ length: 30 }, (_, i) => `http://127.0.0.1:${33418 + i}/`),
      ],
      scope: "mcp:read anything",
      logo_uri: "https://editor.example/logo.png",
    });
    await connect(live, browser, { client, redirect: "https://editor.example/redirect" });
    await connect(live, browser, { client, redirect: "http://127.0.0.1:50001/" });
    await connect(live, browser, { client, redirect: "vscode://editor.mcp/callback" });
  });

  test("no scope and no resource mean all of ours", async () => {
    const client = host.publish("/plain.json");
    const tokens = await connect(live, browser, { client, scope: null, resource: null });
    expect(decodeJwt(tokens.access_token)).toMatchObject({ aud: live.resource, scope: "mcp:read mcp:call" });
  });

  test("offline_access and openid do no harm", async () => {
    const client = host.publish("/oidc.json");
    const tokens = await connect(live, browser, {
      client,
      scope: "openid offline_access mcp:read",
      more: { prompt: "consent" },
    });
    expect(decodeJwt(tokens.access_token)).toMatchObject({ aud: live.resource, scope: "mcp:read" });
    expect(tokens.id_token).toBeDefined();
  });

  verifies("auth-resource-spelling", "every spelling of the resource is the one resource", async () => {
    const client = host.publish("/spellings.json");
    const { port } = new URL(live.origin);
    for (const resource of [`${live.resource}/`, `HTTP://127.0.0.1:${port}/mcp`, `http://127.1:${port}/mcp`]) {
      const tokens = await connect(live, browser, { client, resource });
      expect(decodeJwt(tokens.access_token).aud, resource).toBe(live.resource);
    }
  });

  verifies(
    ["rfc8707-resource", "rfc9207-iss"],
    "a resource that is not ours is refused, to the client and with iss",
    async () => {
      const client = host.publish("/foreign.json");
      for (const resource of [
        "https://other.example/mcp",
        `${live.resource}2`,
        `${live.resource}#x`,
        "mcp",
        `${live.base}/`,
      ]) {
        const end = await browser.go(authorizeUrl(live, { client, resource }));
        expect(end?.searchParams.get("error"), resource).toBe("invalid_target");
        expect(end?.searchParams.get("iss")).toBe(live.base);
        expect(end?.searchParams.get("state")).toBe("state-1");
      }
    },
  );

  verifies("rfc9126-pushed", "a pushed authorization request is answered like any other", async () => {
    const client = host.publish("/par.json");
    const verifier = "p".repeat(64);
    const query = new URL(authorizeUrl(live, { client, scope: null, resource: `${live.resource}/` }, verifier))
      .searchParams;
    const pushed = await fetch(`${live.base}/oauth/par`, { method: "POST", body: query });
    expect(pushed.status).toBe(201);
    const { request_uri } = (await pushed.json()) as { request_uri: string };
    await browser.go(`${live.base}/oauth/authorize?${new URLSearchParams({ client_id: client, request_uri })}`);
    const end = await browser.submit({ answer: "allow" });
    const answer = await token(live, {
      grant_type: "authorization_code",
      client_id: client,
      redirect_uri: REDIRECT,
      code: end?.searchParams.get("code") ?? "",
      code_verifier: verifier,
    });
    expect(answer.body["scope"]).toBe("mcp:read mcp:call");
  });
});

describe("discovery", () => {
  verifies(
    ["rfc8414-document", "rfc8414-endpoints", "rfc8414-s256", "rfc9207-metadata", "cimd-advertised"],
    "tells everything an MCP client asks for, from the configured URL only",
    async () => {
      const forged = await new Promise<Record<string, unknown>>((resolve, reject) => {
        const { port } = new URL(live.origin);
        const headers = {
          host: "attacker.example",
          "x-forwarded-host": "attacker.example",
          "x-forwarded-proto": "https",
        };
        request({ host: "127.0.0.1", port, path: "/.well-known/oauth-authorization-server", headers }, (response) => {
          let text = "";
          response
            .on("data", (part) => {
              text += part;
            })
            .on("end", () => resolve(JSON.parse(text)));
        })
          .on("error", reject)
          .end();
      });
      expect(JSON.stringify(forged)).not.toContain("attacker");
      expect(forged).toMatchObject({
        issuer: live.base,
        authorization_endpoint: `${live.base}/oauth/authorize`,
        token_endpoint: `${live.base}/oauth/token`,
        jwks_uri: `${live.base}/oauth/jwks`,
        registration_endpoint: `${live.base}/oauth/register`,
        revocation_endpoint: `${live.base}/oauth/revoke`,
        introspection_endpoint: `${live.base}/oauth/introspect`,
        pushed_authorization_request_endpoint: `${live.base}/oauth/par`,
        code_challenge_methods_supported: ["S256"],
        response_types_supported: ["code"],
        response_modes_supported: ["query"],
        authorization_response_iss_parameter_supported: true,
        client_id_metadata_document_supported: true,
        scopes_supported: ["mcp:read", "mcp:call", "openid", "offline_access"],
      });
    },
  );

  test("and the keys may be read by any origin and kept for a while; authorize may not", async () => {
    for (const path of [
      "/.well-known/oauth-authorization-server",
      "/.well-known/openid-configuration",
      "/oauth/jwks",
    ]) {
      const response = await fetch(live.base + path, { headers: { origin: "https://inspector.example" } });
      expect(response.headers.get("access-control-allow-origin"), path).toBe("*");
      expect(response.headers.get("cache-control")).toBe("public, max-age=300");
      expect(await response.text()).not.toContain('"d"');
    }
    const preflight = {
      method: "OPTIONS",
      headers: { origin: "https://a.example", "access-control-request-method": "POST" },
    };
    for (const path of ["/oauth/token", "/oauth/register"]) {
      const response = await fetch(live.base + path, preflight);
      expect([response.status, response.headers.get("access-control-allow-methods")], path).toEqual([204, "POST"]);
    }
    const never = await fetch(authorizeUrl(live, { client: "x" }), {
      headers: { origin: "https://a.example" },
      redirect: "manual",
    });
    expect(never.headers.get("access-control-allow-origin")).toBeNull();
    expect(
      (await fetch(`${live.base}/oauth/authorize`, preflight)).headers.get("access-control-allow-origin"),
    ).toBeNull();
  });

  verifies(
    ["rfc8414-document", "rfc8414-well-known"],
    "works below a path, in every spelling of the document's address",
    async () => {
      await using here = await running({ path: "/tools/eu", clients: { registration: "open" } });
      for (const path of [
        "/.well-known/oauth-authorization-server/tools/eu",
        "/.well-known/openid-configuration/tools/eu",
        "/tools/eu/.well-known/openid-configuration",
        "/tools/eu/.well-known/oauth-authorization-server",
      ]) {
        const document = await (await fetch(here.origin + path)).json();
        expect(document, path).toMatchObject({ issuer: here.base, token_endpoint: `${here.base}/oauth/token` });
      }
      expect(here.server.owns("/.well-known/oauth-authorization-server")).toBe(false);
      expect(here.server.owns("/oauth/token")).toBe(false);
      const someone = await setUp(here);
      const { body } = await register(here);
      const tokens = await connect(here, someone, { client: String(body["client_id"]) });
      expect((await call(here, tokens.access_token)).status).toBe(200);
      expect((await refresh(here, String(body["client_id"]), tokens.refresh_token)).status).toBe(200);
    },
  );

  test("a wrong method or an unknown endpoint is told so", async () => {
    expect((await fetch(`${live.base}/oauth/token`)).status).toBe(405);
    expect((await fetch(`${live.base}/oauth/userinfo`)).status).toBe(404);
    const json = await fetch(`${live.base}/oauth/token`, {
      method: "POST",
      body: "{}",
      headers: { "content-type": "application/json" },
    });
    expect(json.status).toBe(415);
    const large = await fetch(`${live.base}/oauth/token`, {
      method: "POST",
      body: new URLSearchParams({ code: "x".repeat(1_000_000) }),
    });
    expect(large.status).toBe(413);
  });
});

describe("tokens", () => {
  verifies(
    ["rfc9700-rotation", "oauth21-no-store", "oauth21-refresh"],
    "a refresh gives new tokens for the same resource, narrower when asked",
    async () => {
      const client = host.publish("/refresh.json");
      const first = await connect(live, browser, { client });
      const second = await refresh(live, client, first.refresh_token);
      expect(second.status).toBe(200);
      expect(second.body["refresh_token"]).not.toBe(first.refresh_token);
      expect(second.headers.get("cache-control")).toContain("no-store");
      expect((await call(live, String(second.body["access_token"]))).status).toBe(200);
      const third = await refresh(live, client, String(second.body["refresh_token"]), { scope: "mcp:read" });
      expect(third.body["scope"]).toBe("mcp:read");
      const wider = await refresh(live, client, String(third.body["refresh_token"]), { scope: "mcp:read admin" });
      expect(wider.body["error"]).toBe("invalid_scope");
    },
  );

  test("a client that races itself within the grace keeps its tokens", async () => {
    const client = host.publish("/grace.json");
    const first = await connect(live, browser, { client });
    const answers = await Promise.all(Array.from({ length: 5 }, () => refresh(live, client, first.refresh_token)));
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200]);
  });

  verifies("rfc9700-rotation", "a refresh token used again after the grace ends the whole family", async () => {
    let now = Date.now();
    await using here = await running({ clients: { registration: "open" }, clock: () => now });
    const someone = await setUp(here);
    const client = String((await register(here)).body["client_id"]);
    const first = await connect(here, someone, { client });
    const second = await refresh(here, client, first.refresh_token);
    expect((await call(here, String(second.body["access_token"]))).status).toBe(200);
    now += 11_000;
    expect((await refresh(here, client, first.refresh_token)).body["error"]).toBe("invalid_grant");
    expect((await refresh(here, client, String(second.body["refresh_token"]))).body["error"]).toBe("invalid_grant");
    expect((await call(here, String(second.body["access_token"]))).status).toBe(401);
  });

  verifies(
    ["rfc7009-revoked", "rfc7009-other-client"],
    "a revoked access token is refused at once, also one that was just accepted",
    async () => {
      const client = host.publish("/revoke.json");
      const { access_token, refresh_token } = await connect(live, browser, { client });
      expect((await call(live, access_token)).status).toBe(200);
      const revoke = (body: Record<string, string>) =>
        fetch(`${live.base}/oauth/revoke`, { method: "POST", body: new URLSearchParams(body) });
      const stranger = host.publish("/stranger.json");
      expect((await revoke({ token: access_token, client_id: stranger })).status).toBe(200);
      expect((await call(live, access_token)).status).toBe(200);
      expect((await revoke({ token: access_token, client_id: client })).status).toBe(200);
      expect((await call(live, access_token)).status).toBe(401);
      expect((await refresh(live, client, refresh_token)).body["error"]).toBe("invalid_grant");
      const again = await connect(live, browser, { client });
      expect((await revoke({ token: again.refresh_token, client_id: client })).status).toBe(200);
      expect((await call(live, again.access_token)).status).toBe(401);
    },
  );

  test("revoking by the gateway ends tokens, grants, clients and users", async () => {
    const client = host.publish("/ended.json");
    const { server } = live;
    const fresh = async () => {
      const tokens = await connect(live, browser, { client });
      const { status, body } = await call(live, tokens.access_token);
      expect(status).toBe(200);
      return { ...tokens, ...body } as typeof tokens & { grant: string; tokenId: string; subject: string };
    };
    const one = await fresh();
    await server.revokeToken(one.tokenId);
    expect((await call(live, one.access_token)).status).toBe(401);
    const two = await fresh();
    await server.revokeGrant(two.grant);
    expect((await call(live, two.access_token)).status).toBe(401);
    expect((await refresh(live, client, two.refresh_token)).body["error"]).toBe("invalid_grant");
    const three = await fresh();
    await server.revokeClient(client);
    expect((await call(live, three.access_token)).status).toBe(401);
    const four = await fresh();
    await server.setUserDisabled(four.subject, true);
    expect((await call(live, four.access_token)).status).toBe(401);
    expect((await refresh(live, client, four.refresh_token)).body["error"]).toBe("invalid_grant");
    await server.setUserDisabled(four.subject, false);
    await fresh();
  });

  verifies("rfc7662-active", "introspection tells a confidential client about its own tokens only", async () => {
    const { Secret } = await import("../../src/core/secret.ts");
    const preregistered = ["alpha", "beta"].map((id) => ({
      id,
      name: id,
      redirectUris: ["https://a.example/cb"],
      secret: new Secret(id.repeat(8)),
    }));
    await using here = await running({ clients: { preregistered } });
    const someone = await setUp(here);
    const redirect = "https://a.example/cb";
    const verifier = "i".repeat(64);
    const end = await authorize(here, someone, { client: "alpha", redirect }, verifier);
    const basic = (id: string) => ({ authorization: `Basic ${btoa(`${id}:${id.repeat(8)}`)}` });
    const code = end.searchParams.get("code") ?? "";
    const { body } = await token(
      here,
      { grant_type: "authorization_code", code, code_verifier: verifier, redirect_uri: redirect },
      basic("alpha"),
    );
    const introspect = async (id: string) => {
      const params = new URLSearchParams({ token: String(body["access_token"]) });
      return (
        await fetch(`${here.base}/oauth/introspect`, { method: "POST", body: params, headers: basic(id) })
      ).json();
    };
    expect(await introspect("alpha")).toMatchObject({ active: true, scope: "mcp:read mcp:call", aud: here.resource });
    expect(await introspect("beta")).toEqual({ active: false });
  });

  test("when nothing can be recorded, nothing is granted", async () => {
    let failing = false;
    await using here = await running({
      clients: { registration: "open" },
      onEvent() {
        if (failing) throw new Error("the audit log is full");
      },
    });
    const someone = await setUp(here);
    const client = String((await register(here)).body["client_id"]);
    const tokens = await connect(here, someone, { client });
    failing = true;
    expect((await refresh(here, client, tokens.refresh_token)).status).toBe(500);
    await someone.go(authorizeUrl(here, { client }));
    expect(await someone.submit({ answer: "allow" })).toBeUndefined();
    expect(someone.last.status).toBe(500);
    failing = false;
    expect((await refresh(here, client, tokens.refresh_token)).status).toBe(200);
  });

  test("a store that fails at any one moment gives a clear error, and nothing works that should not", async () => {
    const store = memoryStore().records;
    let left = Number.POSITIVE_INFINITY;
    const failing = new Proxy(store, {
      get(target, name: keyof typeof store) {
        return (...given: never[]) => {
          if (--left === 0) throw new Error("the disk is full");
          return (target[name] as (...all: never[]) => unknown).apply(target, given);
        };
      },
    });
    await using here = await running({
      records: failing,
      clients: { registration: "open" },
      tokens: { refreshGraceSeconds: 0 },
    });
    const someone = await setUp(here);
    const client = String((await register(here)).body["client_id"]);
    let n = 1;
    // The server looks at the store by the clock, too. Where that had the failing call, the request is made again.
    let again = 0;
    for (; n < 40; n++) {
      left = Number.POSITIVE_INFINITY;
      const tokens = await connect(here, someone, { client });
      left = n;
      const { status, body } = await refresh(here, client, tokens.refresh_token);
      const over = left > 0;
      left = Number.POSITIVE_INFINITY;
      if (over) {
        expect(status).toBe(200);
        break;
      }
      if (status === 200 && again++ < 10) {
        n--;
        continue;
      }
      expect([400, 500]).toContain(status);
      again = 0;
      expect(JSON.stringify(body)).not.toContain("disk");
      // Spent or not, the old token gives one pair at most.
      const both = await Promise.all([1, 2].map(() => refresh(here, client, tokens.refresh_token)));
      expect(both.filter((answer) => answer.status === 200).length).toBeLessThanOrEqual(1);
    }
    expect(n).toBeGreaterThan(5);
    expect(n).toBeLessThan(40);
  });

  test("the same keys serve after a restart, and by two processes that start together", async () => {
    const client = host.publish("/restart.json");
    const clients = { metadataDocuments: host.settings };
    await using first = await running({ clients });
    const someone = await setUp(first);
    const tokens = await connect(first, someone, { client });
    const others = await Promise.all(
      [1, 2].map(() => running({ clients, records: first.records, publicUrl: first.base })),
    );
    for (const other of others) {
      await expect(other.server.verify(tokens.access_token)).resolves.toMatchObject({ client });
      await other[Symbol.asyncDispose]();
    }
  });
});
