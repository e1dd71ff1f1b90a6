/** `drawbridge check https://…/mcp`: asks a running server what a careful one refuses, and reads its tools where it may. */
import { createHmac, randomBytes } from "node:crypto";
import { rootCertificates } from "node:tls";
import { judgeProbe } from "../../check/probe/judge.ts";
import type { Attempt, Found, Observed } from "../../check/probe/observed.ts";
import type { Target } from "../../check/targets.ts";
import { DrawbridgeError } from "../../core/errors.ts";
import type { Secret } from "../../core/secret.ts";
import { certificateOf, statusUnder } from "../../net/examine.ts";
import { type Answer, challengeParams, documentAt, LOOPBACK, parsed, strings, urlProblem } from "../doctor/http.ts";
import { type Asking, attemptOf, legacyRequest, modernRequest, openAsking, posted } from "./asking.ts";
import { probeAuthorization } from "./authorization.ts";
import { lookInside } from "./sessions.ts";

export interface ProbeOptions {
  /** A good token of the server; without it its tools are read only where everybody may. */
  readonly token: Secret | undefined;
  /** Registers a client for the probe; undefined: only at a server on this machine. */
  readonly register: boolean | undefined;
  /** A client that the authorization server knows, in place of one registered for the probe. */
  readonly client: { readonly id: string; readonly redirect: string | undefined } | undefined;
  /** PEM certificates to trust beside the system's. */
  readonly trustedCertificates: string | undefined;
}

const ATTACKER = "https://attacker.example";

/** Asks and judges. Never rejects for what a server does: one that cannot be reached is unread. */
export async function probe(address: string, options: ProbeOptions, now = Date.now): Promise<Target> {
  const url = new URL(address);
  const name = `${url.origin}${url.pathname}`;
  const server = url.host;
  const problem = urlProblem(address, true) ?? (url.hash === "" ? undefined : "has a fragment");
  const unread = (why: string): Target => ({
    name,
    servers: [{ name: server, url: name, tools: [] }],
    unread: [{ server, problem: why }],
  });
  if (problem !== undefined) return unread(`The address ${problem.replace(address, name)}`);
  let asking: Asking;
  try {
    asking = await openAsking(url, options.trustedCertificates);
  } catch (thrown) {
    return unread(DrawbridgeError.from(thrown).message);
  }
  try {
    const first = await asking.send(url, legacyRequest("initialize"));
    const untested: string[] = [];
    const { observed, tools, problem: why } = await observe({ asking, url, first, untested, now, ...options });
    if (asking.left.limited > 0)
      untested.push(
        `${asking.left.limited} questions that the server put off (429): ask again later, or raise its limit.`,
      );
    if (asking.left.count > 0) untested.push(`${asking.left.count} further questions: a probe is no load.`);
    return {
      name,
      servers: [{ name: server, url: name, tools: tools ?? [] }],
      probed: judgeProbe(observed, server),
      untested,
      ...(why !== undefined && { unread: [{ server, problem: why }] }),
    };
  } catch (thrown) {
    const { message, detail } = DrawbridgeError.from(thrown);
    // What clients do not take is worth a finding, and the reason why nothing else was seen.
    const certificate = await certificateAt(asking, url, options.trustedCertificates, now).catch(() => undefined);
    const seen = { url: url.href, local: asking.local, ...(certificate !== undefined && { certificate }) };
    return {
      ...unread(detail === undefined ? message : `${message} (${detail.slice(0, 200)})`),
      probed: judgeProbe(seen, server),
    };
  } finally {
    await asking.close();
  }
}

interface Probing extends ProbeOptions {
  readonly asking: Asking;
  readonly url: URL;
  /** The answer to initialize without a token. */
  readonly first: Answer;
  readonly untested: string[];
  readonly now: () => number;
}

interface Outcome {
  readonly observed: Observed;
  readonly tools?: Target["servers"][number]["tools"] | undefined;
  /** Why its tools could not be read, though they should have been. */
  readonly problem?: string | undefined;
}

async function observe(probing: Probing): Promise<Outcome> {
  const { asking, url, first, untested, token } = probing;
  const { anonymous, speaks } = await asAnybody(asking, url, first);
  const open = anonymous.outcome === "taken";
  const authorization: Record<string, string> =
    open || token === undefined ? {} : { authorization: `Bearer ${token.reveal()}` };
  const inside = open || token !== undefined ? await lookInside(asking, url, authorization) : undefined;
  if (inside === undefined)
    untested.push("Its tools and its sessions: name an environment variable with a token by --token-env.");
  const discovered = open ? {} : await discover(asking, url, first);
  const issuing = open ? {} : await authorizationOf(probing, discovered);
  const atLoopback = LOOPBACK.has(url.hostname);
  const observed: Observed = {
    url: url.href,
    local: asking.local,
    anonymous,
    ...discovered,
    ...issuing,
    ...(await fromForeignPage(asking, url, authorization)),
    ...(await underForeignName(probing, authorization)),
    badTokens: await badTokens(probing, discovered.issuer),
    ...inside?.observed,
    errors: await odd(asking, url, authorization),
    ...(await transport(probing)),
    // What is open to this machine may be closed to others.
    ...(!atLoopback && { open: await sideDoors(asking, url) }),
    ...(atLoopback && Object.keys(authorization).length > 0 && { tokenInAddress: await inAddress(asking, url, token) }),
  };
  if (!asking.local)
    untested.push("Whether it looks at Host: what stands before a public server answers for others, too.");
  if (atLoopback) untested.push("What /metrics and the like show to others: this machine may see more than they do.");
  else if (token !== undefined)
    untested.push("Whether it takes a token in its address: a good one would stand in logs.");
  untested.push("How many calls and bytes it takes: that would be load.");
  return {
    observed,
    tools: inside?.tools,
    problem: speaks
      ? inside !== undefined && inside.tools === undefined
        ? inside.problem
        : undefined
      : `There is no MCP server at this address: initialize is answered ${first.status}.`,
  };
}

/** Without a token, in both revisions: a server may speak one of them alone. `speaks`: it is an MCP server, or asks for a token. */
async function asAnybody(
  asking: Asking,
  url: URL,
  first: Answer,
): Promise<{ readonly anonymous: Attempt; readonly speaks: boolean }> {
  const legacy = attemptOf(first);
  await endSession(asking, url, first);
  if (legacy.outcome === "taken") return { anonymous: { ...legacy, said: "initialize is answered" }, speaks: true };
  const second = await asking.ask(url, modernRequest("server/discover", {}, {}));
  const modern = attemptOf(second);
  if (modern.outcome === "taken")
    return { anonymous: { ...modern, said: "server/discover is answered" }, speaks: true };
  const answers = second === undefined ? [first] : [first, second];
  const refused = answers.some(({ status }) => status === 401 || status === 403);
  const speaks = refused || answers.some(({ text }) => parsed(text)?.["jsonrpc"] === "2.0");
  return { anonymous: { outcome: refused ? "refused" : "unclear", said: legacy.said }, speaks };
}

type Discovered = Pick<Observed, "challenge" | "resource" | "issuer" | "server">;

/** The challenge, the resource's document, the authorization server's: each at the first place that has one. */
async function discover(asking: Asking, url: URL, first: Answer): Promise<Discovered> {
  const params = challengeParams(first.headers.get("www-authenticate") ?? "", "bearer");
  const named = params?.get("resource_metadata");
  const challenge =
    first.status === 401 ? { challenge: { bearer: params !== undefined, resourceMetadata: named } } : undefined;
  const path = url.pathname.replace(/\/$/, "");
  const known = `${url.origin}/.well-known/oauth-protected-resource`;
  const places = [...(named === undefined || urlProblem(named, asking.local) ? [] : [named]), `${known}${path}`, known];
  const resource = await firstOf(asking, places);
  const [issuer] = strings(resource.document?.["authorization_servers"]);
  if (issuer === undefined || urlProblem(issuer, asking.local) !== undefined) return { ...challenge, resource };
  const { origin, pathname } = new URL(issuer);
  const below = pathname.replace(/\/$/, "");
  const server = await firstOf(asking, [
    `${origin}/.well-known/oauth-authorization-server${below}`,
    `${origin}/.well-known/openid-configuration${below}`,
    ...(below === "" ? [] : [`${origin}${below}/.well-known/openid-configuration`]),
  ]);
  return { ...challenge, resource, issuer, server };
}

async function firstOf(asking: Asking, places: readonly string[]): Promise<Found> {
  let problem: string | undefined;
  for (const place of new Set(places)) {
    const found = await documentAt(asking, place);
    if ("value" in found) return { place, document: found.value };
    problem ??= found.problem;
  }
  return { place: places[0] ?? "", problem };
}

async function authorizationOf(
  { asking, url, register, client, untested }: Probing,
  { server, resource }: Discovered,
): Promise<Pick<Observed, "authorization">> {
  if (server?.document === undefined) {
    untested.push("The authorization server: none was found.");
    return {};
  }
  const named = resource?.document?.["resource"];
  const wanted = typeof named === "string" ? named : url.href;
  const mayRegister = register ?? LOOPBACK.has(url.hostname);
  const asked = { document: server.document, resource: wanted, register: mayRegister, client };
  return { authorization: await probeAuthorization(asking, asked, untested) };
}

/** As the browser of a visitor of a foreign page would ask. */
async function fromForeignPage(
  asking: Asking,
  url: URL,
  authorization: Readonly<Record<string, string>>,
): Promise<Pick<Observed, "foreignOrigin" | "preflight">> {
  const headers = { ...authorization, origin: ATTACKER };
  const answer = await asking.ask(url, legacyRequest("initialize", { headers }));
  if (answer !== undefined) await endSession(asking, url, answer, authorization);
  const preflight = await asking.ask(url, {
    method: "OPTIONS",
    headers: {
      origin: ATTACKER,
      "access-control-request-method": "POST",
      "access-control-request-headers": "content-type",
    },
  });
  const allowed = preflight?.headers.get("access-control-allow-origin") ?? undefined;
  return {
    foreignOrigin: lookedAt(answer?.status),
    ...(preflight !== undefined && {
      preflight: {
        allowOrigin: allowed === "*" || allowed === ATTACKER ? allowed : undefined,
        credentials: preflight.headers.get("access-control-allow-credentials") === "true",
      },
    }),
  };
}

/** The name under which a page of an attacker reaches a server of one's own network. */
async function underForeignName(
  { asking, url, trustedCertificates }: Probing,
  authorization: Readonly<Record<string, string>>,
): Promise<Pick<Observed, "foreignHost">> {
  const [address] = asking.addresses;
  if (!asking.local || address === undefined) return {};
  const { headers, body } = legacyRequest("initialize", { headers: authorization });
  const request = { host: new URL(ATTACKER).host, headers: headers as Record<string, string>, body: String(body) };
  const trust = trustOf(trustedCertificates);
  const answer = await statusUnder(url, address, { ...request, trustedCertificates: trust }).catch(() => undefined);
  if (answer?.session !== undefined) await endSession(asking, url, answer.session, authorization);
  return { foreignHost: lookedAt(answer?.status) };
}

/** Whether the server looked where a request is from: one that answers 401 has asked for a token before. */
function lookedAt(status: number | undefined): Attempt {
  if (status === undefined || status >= 500) return { outcome: "unclear", said: "no answer" };
  const refused = status === 403 || status === 400 || status === 404 || status === 421;
  return { outcome: refused ? "refused" : "taken", said: `${status}` };
}

function trustOf(trustedCertificates: string | undefined): readonly string[] | undefined {
  return trustedCertificates === undefined ? undefined : [...rootCertificates, trustedCertificates];
}

/** Tokens that look right and were issued by nobody. */
async function badTokens(
  { asking, url, now }: Probing,
  issuer: string | undefined,
): Promise<Readonly<Record<string, Attempt>>> {
  const at = Math.floor(now() / 1000);
  const claims = {
    iss: issuer ?? url.origin,
    aud: url.href,
    sub: "admin",
    scope: "openid",
    iat: at - 60,
    exp: at + 600,
  };
  const expired = { ...claims, iat: at - 7200, exp: at - 3600 };
  const made = {
    "made up": randomBytes(24).toString("base64url"),
    expired: jwt({ alg: "ES256", typ: "at+jwt" }, expired, randomBytes(64).toString("base64url")),
    "not signed (alg none)": jwt({ alg: "none", typ: "at+jwt" }, claims, ""),
    "signed with the key “secret”": signed(claims, "secret"),
  };
  const found: Record<string, Attempt> = {};
  for (const [what, token] of Object.entries(made)) {
    const headers = { authorization: `Bearer ${token}` };
    const answer = await asking.ask(url, legacyRequest("initialize", { headers }));
    found[what] = attemptOf(answer);
    if (answer !== undefined) await endSession(asking, url, answer, headers);
  }
  return found;
}

function jwt(header: object, claims: object, signature: string): string {
  return `${[header, claims].map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".")}.${signature}`;
}

function signed(claims: object, key: string): string {
  const body = jwt({ alg: "HS256", typ: "at+jwt" }, claims, "").slice(0, -1);
  return `${body}.${createHmac("sha256", key).update(body).digest("base64url")}`;
}

async function inAddress(asking: Asking, url: URL, token: Secret | undefined): Promise<Attempt> {
  const address = new URL(url);
  address.searchParams.set("access_token", token?.reveal() ?? "");
  const answer = await asking.ask(address, legacyRequest("initialize"));
  if (answer !== undefined) await endSession(asking, url, answer, { authorization: `Bearer ${token?.reveal() ?? ""}` });
  return attemptOf(answer);
}

const DEEP = 4_000;

/** A few small requests that are merely wrong. */
async function odd(
  asking: Asking,
  url: URL,
  authorization: Readonly<Record<string, string>>,
): Promise<NonNullable<Observed["errors"]>> {
  const nested = `{"jsonrpc":"2.0","id":1,"method":"ping","params":${'{"a":'.repeat(DEEP)}1${"}".repeat(DEEP)}}`;
  const requests = {
    "no JSON": posted("{", authorization),
    "JSON that is no message": posted('{"jsonrpc":"2.0","id":{},"method":7}', authorization),
    "an unknown method": legacyRequest("drawbridge/unknown", { headers: authorization }),
    "deeply nested JSON": posted(nested, authorization),
  };
  const found: Record<string, { status: number; text: string }> = {};
  for (const [what, request] of Object.entries(requests)) {
    const answer = await asking.ask(url, request);
    found[what] = { status: answer?.status ?? 0, text: answer?.text.slice(0, 20_000) ?? "" };
    // Nothing more is sent to a server that went away.
    if (answer === undefined) break;
  }
  return found;
}

async function transport({ asking, url, first, trustedCertificates, now, untested }: Probing) {
  if (url.protocol !== "https:") return {};
  const hsts = first.headers.get("strict-transport-security");
  try {
    const certificate = await certificateAt(asking, url, trustedCertificates, now);
    return { hsts, ...(certificate !== undefined && { certificate }) };
  } catch (thrown) {
    untested.push(`Its certificate: ${DrawbridgeError.from(thrown).message}`);
    return { hsts };
  }
}

async function certificateAt(
  asking: Asking,
  url: URL,
  trustedCertificates: string | undefined,
  now: () => number,
): Promise<Observed["certificate"]> {
  if (url.protocol !== "https:") return undefined;
  const [address = url.hostname] = asking.addresses;
  const { validTo, protocol, problem } = await certificateOf(url, address, trustOf(trustedCertificates));
  return { daysLeft: (validTo.getTime() - now()) / 86_400_000, protocol, problem };
}

/** Paths that operators forget, and how their content is known. */
const SIDE_DOORS: readonly (readonly [path: string, what: string, looks: RegExp])[] = [
  ["/metrics", "Prometheus metrics", /^# (?:HELP|TYPE) /m],
  ["/admin", "an answer in JSON", /^\s*[[{]/],
  ["/debug/pprof/", "profiles of Go", /\/debug\/pprof\//],
  ["/actuator/env", "the environment of Spring", /"propertySources"/],
  ["/.env", "a file of settings", /^[A-Z][A-Z0-9_]*=\S/m],
];

async function sideDoors(asking: Asking, url: URL): Promise<Readonly<Record<string, string>>> {
  const found: Record<string, string> = {};
  for (const [path, what, looks] of SIDE_DOORS) {
    const answer = await asking.ask(new URL(path, url), { headers: { accept: "*/*" } });
    // An app that answers every path with its page shows nothing.
    const page = /html/i.test(answer?.headers.get("content-type") ?? "") && path !== "/debug/pprof/";
    if (answer?.status === 200 && !page && looks.test(answer.text)) found[path] = what;
  }
  return found;
}

async function endSession(
  asking: Asking,
  url: URL,
  given: Answer | string,
  headers: Readonly<Record<string, string>> = {},
): Promise<void> {
  const id = typeof given === "string" ? given : given.headers.get("mcp-session-id");
  if (id === null || !/^[\x21-\x7e]{1,1024}$/.test(id)) return;
  await asking.end(url, { method: "DELETE", headers: { ...headers, "mcp-session-id": id } });
}
