import { createHmac } from "node:crypto";
import { exportJWK } from "jose";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { DrawbridgeError } from "../../src/core/errors.ts";
import type { AuthorizationServer } from "../../src/oauth/server.ts";
import { DPOP_ALGORITHMS } from "../../src/oauth/tokens/dpop.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";
import type { Records } from "../../src/store/ports.ts";
import { verifies } from "../requirements.ts";
import { everyStore } from "../store/backends.ts";
import { type Minted, mint, type Prover, PUBLIC_URL, prover, RESOURCE, replica } from "./minting.ts";

let records: Records;
let server: AuthorizationServer;
let holder: Prover;
let bound: Minted;

beforeEach(async () => {
  records = memoryStore().records;
  server = await replica(records);
  holder = await prover();
  bound = await mint(records, { claims: { cnf: { jkt: holder.jkt } } });
});
afterEach(() => server.close());

const call = async (token: string, jwt?: string, method = "POST", at = server) =>
  at.verify(token, jwt === undefined ? undefined : { jwt, method });

async function refusal(work: Promise<unknown>): Promise<{ error: string; detail: string | undefined; nonce?: string }> {
  const thrown = await work.then(
    () => undefined,
    (failure: unknown) => failure,
  );
  if (!(thrown instanceof DrawbridgeError) || thrown.code !== "unauthenticated")
    throw new Error(`expected a refusal, got ${String(thrown)}`);
  return {
    error: thrown.proof?.error ?? "invalid_token",
    detail: thrown.detail,
    ...(thrown.proof?.nonce !== undefined && { nonce: thrown.proof.nonce }),
  };
}

describe("a token that is bound to a key", () => {
  verifies("rfc9449-resource", "is accepted with a proof of that key, again and again with new ones", async () => {
    for (let n = 0; n < 3; n++) {
      const by = await call(bound.token, await holder.prove(bound.token));
      expect(by.subject).toBe(bound.user);
    }
  });

  test.each(DPOP_ALGORITHMS)("is accepted with proofs signed by %s", async (alg) => {
    const other = await prover(alg);
    const { token } = await mint(records, { claims: { cnf: { jkt: other.jkt } } });
    await call(token, await other.prove(token));
  });

  verifies("rfc9449-downgrade", "is refused without a proof, also when it was accepted with one before", async () => {
    expect((await refusal(call(bound.token))).error).toBe("invalid_token");
    await call(bound.token, await holder.prove(bound.token));
    expect((await refusal(call(bound.token))).detail).toMatch(/without a proof/);
  });

  test("is refused with a proof of another key", async () => {
    const thief = await prover();
    expect((await refusal(call(bound.token, await thief.prove(bound.token)))).detail).toMatch(/cnf\.jkt/);
  });

  test("is refused when it is bound in a way that nobody here can check", async () => {
    const { token } = await mint(records, { claims: { cnf: { "x5t#S256": "abc" } } });
    expect((await refusal(call(token))).detail).toMatch(/not known here/);
  });

  test("ends for its holder, too, when it is revoked", async () => {
    await call(bound.token, await holder.prove(bound.token));
    await server.revokeToken(bound.jti);
    expect((await refusal(call(bound.token, await holder.prove(bound.token)))).error).toBe("invalid_token");
  });
});

describe("a token that is bound to no key", () => {
  test("is refused with a proof, whoever made it", async () => {
    const { token } = await mint(records);
    await call(token);
    expect((await refusal(call(token, await holder.prove(token)))).detail).toMatch(/bound to no key/);
  });

  test("is refused where tokens.dpop is required", async () => {
    await using strict = disposable(await replica(records, { tokens: { dpop: "required" } }));
    const { token } = await mint(records);
    expect((await refusal(call(token, undefined, "POST", strict.server))).detail).toMatch(/required/);
    expect((await refusal(call(token, undefined, "POST", strict.server))).detail).toMatch(/required/);
    await call(bound.token, await holder.prove(bound.token), "POST", strict.server);
    expect(strict.server.metadata.dpopRequired).toBe(true);
  });
});

test("where tokens.dpop is off nothing is advertised, and a bound token is refused with its proof", async () => {
  await using off = disposable(await replica(records, { tokens: { dpop: "off" } }));
  expect(off.server.metadata.dpopAlgorithms).toEqual([]);
  expect((await refusal(call(bound.token, await holder.prove(bound.token), "POST", off.server))).detail).toMatch(/off/);
  expect((await refusal(call(bound.token, undefined, "POST", off.server))).detail).toMatch(/without a proof/);
});

describe("a proof", () => {
  const now = () => Math.floor(Date.now() / 1000);
  test.each<[string, Record<string, unknown>, Record<string, unknown>?]>([
    ["for another method", { htm: "GET" }],
    ["for the method in small letters", { htm: "post" }],
    ["for another host", { htu: "https://other.example/mcp" }],
    ["for plain http", { htu: "http://mcp.shop.example/mcp" }],
    ["for another path", { htu: `${PUBLIC_URL}/mcp2` }],
    ["for no URL", { htu: 7 }],
    ["without a method", { htm: undefined }],
    ["without a URL", { htu: undefined }],
    ["without an id", { jti: undefined }],
    ["with an empty id", { jti: "" }],
    ["with a huge id", { jti: "x".repeat(513) }],
    ["without a time", { iat: undefined }],
    ["that is two minutes old", { iat: now() - 120 }],
    ["from the future", { iat: now() + 120 }],
    ["for another token", { ath: "LUVTuXzLUVTuXzLUVTuXzLUVTuXzLUVTuXzLUVTuXzL" }],
    ["without the token's hash", { ath: undefined }],
    ["of another type", {}, { typ: "JWT" }],
    ["without a type", {}, { typ: undefined }],
    ["without its key", {}, { jwk: undefined }],
    [
      "with another key than it is signed with",
      {},
      { jwk: { kty: "EC", crv: "P-256", x: "A".repeat(43), y: "A".repeat(43) } },
    ],
    ["with a key that is a shared secret", {}, { jwk: { kty: "oct", k: "c2VjcmV0" } }],
  ])("%s is refused", async (_what, claims, header) => {
    const { error } = await refusal(call(bound.token, await holder.prove(bound.token, claims, header)));
    expect(error).toBe("invalid_dpop_proof");
  });

  test("that carries the private key is refused", async () => {
    const jwk = await exportJWK(holder.privateKey);
    const { detail } = await refusal(call(bound.token, await holder.prove(bound.token, {}, { jwk })));
    expect(detail).toMatch(/private/);
  });

  test("signed by HMAC or by nobody, or that is no JWT, is refused", async () => {
    const [, payload = ""] = (await holder.prove(bound.token)).split(".");
    const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const signed = (alg: string) => `${encode({ typ: "dpop+jwt", alg, jwk: { kty: "oct", k: "AAAA" } })}.${payload}`;
    const hmac = createHmac("sha256", Buffer.alloc(3)).update(signed("HS256")).digest("base64url");
    for (const jwt of [`${signed("HS256")}.${hmac}`, `${signed("none")}.`, "a.b.c", "x", "", "x".repeat(9_000)]) {
      expect((await refusal(call(bound.token, jwt))).error).toBe("invalid_dpop_proof");
    }
  });

  test("may spell the URL otherwise, with a query and a fragment", async () => {
    for (const htu of ["HTTPS://MCP.shop.example:443/mcp", `${RESOURCE}?a=1#b`, `${RESOURCE}/`])
      await call(bound.token, await holder.prove(bound.token, { htu }));
  });

  test("whose clock is half a minute off is accepted", async () => {
    for (const iat of [now() - 30, now() + 30]) await call(bound.token, await holder.prove(bound.token, { iat }));
  });
});

describe.each(everyStore)("on $name", ({ openTwo }) => {
  verifies(
    "rfc9449-resource",
    "a proof sent twenty times at once to two replicas is accepted exactly once",
    async () => {
      await using stores = await openTwo();
      const [one, two] = stores;
      await using first = disposable(await replica(one.records));
      await using second = disposable(await replica(two.records));
      const { token } = await mint(one.records, { claims: { cnf: { jkt: holder.jkt } } });
      const proof = await holder.prove(token);
      const answers = await Promise.allSettled(
        Array.from({ length: 20 }, (_, n) => call(token, proof, "POST", (n % 2 ? first : second).server)),
      );
      expect(answers.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
      expect((await refusal(call(token, proof, "POST", first.server))).detail).toMatch(/used before/);
    },
  );
});

describe("a nonce", () => {
  verifies(
    "rfc9449-resource-nonce",
    "is demanded of each proof when the settings say so, and one replica takes another's",
    async () => {
      await using one = disposable(await replica(records, { tokens: { dpopNonce: true } }));
      await using two = disposable(await replica(records, { tokens: { dpopNonce: true } }));
      const { error, nonce } = await refusal(call(bound.token, await holder.prove(bound.token), "POST", one.server));
      expect(error).toBe("use_dpop_nonce");
      await call(bound.token, await holder.prove(bound.token, { nonce }), "POST", two.server);
      const made = await refusal(
        call(bound.token, await holder.prove(bound.token, { nonce: "made-up" }), "POST", two.server),
      );
      expect(made.error).toBe("use_dpop_nonce");
    },
  );

  test("grows too old after a few minutes", async () => {
    let now = Date.now();
    const clock = () => now;
    const own = memoryStore(clock).records;
    await using late = disposable(await replica(own, { tokens: { dpopNonce: true }, clock }));
    const slow = await prover("ES256", clock);
    const { token } = await mint(own, { claims: { cnf: { jkt: slow.jkt } }, clock });
    const { nonce } = await refusal(call(token, await slow.prove(token), "POST", late.server));
    now += 240_001;
    expect((await refusal(call(token, await slow.prove(token, { nonce }), "POST", late.server))).error).toBe(
      "use_dpop_nonce",
    );
  });
});

function disposable(made: AuthorizationServer) {
  return { server: made, [Symbol.asyncDispose]: () => made.close() };
}
