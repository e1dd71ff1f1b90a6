/** Clauses of OAuth specifications that no other test stands for. */
import { afterAll, beforeAll, expect } from "vitest";
import { verifies, verifiesEach } from "../requirements.ts";
import {
  authorize,
  authorizeUrl,
  type Browser,
  call,
  connect,
  REDIRECT,
  type Running,
  register,
  running,
  setUp,
  token,
} from "./support.ts";

let live: Running;
let browser: Browser;
let client: string;
beforeAll(async () => {
  live = await running({ clients: { registration: "open" } });
  browser = await setUp(live);
  client = String((await register(live)).body["client_id"]);
});
afterAll(() => live[Symbol.asyncDispose]());

verifiesEach(
  "auth-redirect-shown",
  [
    ["https://shop.example/cb", "shop.example"],
    ["http://127.0.0.1:49152/callback", "127.0.0.1:49152"],
    ["https://xn--bcher-kva.example/cb", "xn--bcher-kva.example"],
  ],
  "the consent page for an answer to %s shows %s",
  async (redirect, host) => {
    const { body } = await register(live, { redirect_uris: [redirect] });
    await browser.go(authorizeUrl(live, { client: String(body["client_id"]), redirect }));
    const shown = /Answer goes to<\/dt><dd>(.*?)<\/dd>/s.exec(browser.last.text)?.[1];
    expect(shown).toContain(host);
  },
);

const post = (path: string, params: Record<string, string>) =>
  fetch(`${live.base}${path}`, { method: "POST", body: new URLSearchParams(params) });

verifies("rfc7009-unknown", "revoking a token that never was, or is no token at all, is answered 200", async () => {
  for (const token of ["never-was", "a.b.c", "%00"])
    expect((await post("/oauth/revoke", { token, client_id: client })).status, token).toBe(200);
});

verifies(
  "rfc7662-authenticated",
  "introspection is refused without credentials, and to a client that has none",
  async () => {
    const { access_token } = await connect(live, browser, { client });
    const anonymous = await post("/oauth/introspect", { token: access_token });
    expect([400, 401]).toContain(anonymous.status);
    expect(await anonymous.text()).not.toContain("active");
    const known = await post("/oauth/introspect", { token: access_token, client_id: client });
    expect(await known.text()).not.toContain('"active":true');
  },
);

verifies(
  ["rfc8414-document", "rfc8414-well-known"],
  "the metadata is JSON with an issuer that is the URL asked",
  async () => {
    const response = await fetch(`${live.base}/.well-known/oauth-authorization-server`);
    expect([response.status, response.headers.get("content-type")]).toEqual([
      200,
      expect.stringMatching(/^application\/json/),
    ]);
    expect(await response.json()).toMatchObject({ issuer: live.base });
  },
);

verifies(
  "rfc9207-iss",
  "a refusal by the user comes with iss and state, like everything sent back to a client",
  async () => {
    await browser.go(authorizeUrl(live, { client }));
    const end = await browser.submit({ answer: "deny" });
    expect(Object.fromEntries(end?.searchParams ?? [])).toMatchObject({
      error: "access_denied",
      iss: live.base,
      state: "state-1",
    });
  },
);

verifies("oauth21-no-store", "token answers and refusals are not to be stored", async () => {
  for (const params of [{ grant_type: "authorization_code", code: "x", client_id: client }, { grant_type: "x" }])
    expect((await post("/oauth/token", params as Record<string, string>)).headers.get("cache-control")).toContain(
      "no-store",
    );
});

verifies("rfc8707-resource", "of several resources each must be ours, in any spelling", async () => {
  const asked = async (more: string) => {
    const url = new URL(authorizeUrl(live, { client }));
    url.searchParams.append("resource", more);
    return (await browser.go(url.href))?.searchParams.get("error");
  };
  expect(await asked("https://other.example/mcp")).toBe("invalid_target");
  expect(await asked(`${live.resource}/`)).toBeUndefined();
});

verifies(
  "rfc7636-verifier",
  "a verifier shorter than 43 characters gives no token, though its challenge fits",
  async () => {
    const verifier = "v".repeat(42);
    const end = await authorize(live, browser, { client }, verifier);
    const code = end.searchParams.get("code") ?? "";
    const grant = { grant_type: "authorization_code", client_id: client, redirect_uri: REDIRECT };
    const answer = await token(live, { ...grant, code, code_verifier: verifier });
    expect([answer.status, answer.body["access_token"]]).toEqual([400, undefined]);
  },
);

verifies("rfc7009-revoked", "a wrong hint about its type does not save a token", async () => {
  const { access_token } = await connect(live, browser, { client });
  const hinted = { token: access_token, client_id: client, token_type_hint: "refresh_token" };
  expect((await post("/oauth/revoke", hinted)).status).toBe(200);
  expect((await call(live, access_token)).status).toBe(401);
});
