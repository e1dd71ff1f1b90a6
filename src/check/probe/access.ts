/** Who is let in: tokens, sessions, origins. */
import { REFUSED, TAKEN } from "./examples.ts";
import { type ProbeRule, type ProbeSighting, taken } from "./probe-rule.ts";

export const accessRules: readonly ProbeRule[] = [
  {
    id: "no-authentication",
    title: "answers everybody",
    owasp: "MCP07",
    principle: 5,
    severity: "critical",
    confidence: "high",
    why: "Whoever reaches the address can list and call every tool, and nobody can say afterwards who it was.",
    fix: "Ask for a token (401 with WWW-Authenticate), or put a gateway in front that does, and let the server listen to it alone.",
    bad: [{ anonymous: TAKEN }],
    good: [{ anonymous: REFUSED }],
    find: ({ anonymous }) => taken(anonymous, "/anonymous", "initialize without a token"),
  },
  {
    id: "token-unverified",
    title: "takes a token that nobody issued",
    owasp: "MCP07",
    principle: 5,
    severity: "critical",
    confidence: "high",
    why: "A token that is not verified is a formality: anybody writes one, for any user.",
    fix: "Verify signature, algorithm, issuer, audience and age of every token, and answer 401 invalid_token.",
    bad: [{ anonymous: REFUSED, badTokens: { "not signed (alg none)": TAKEN } }],
    good: [
      { anonymous: REFUSED, badTokens: { "made up": REFUSED, expired: REFUSED } },
      { badTokens: { "made up": TAKEN }, anonymous: TAKEN },
    ],
    find: function* ({ anonymous, badTokens = {} }): Generator<ProbeSighting> {
      // Where none is asked for, none is looked at.
      if (anonymous?.outcome === "taken") return;
      for (const [what, attempt] of Object.entries(badTokens))
        yield* taken(attempt, "/badTokens", `a token that is ${what}`);
    },
  },
  {
    id: "token-in-address",
    title: "takes its token in the address",
    owasp: "MCP01",
    principle: 5,
    severity: "high",
    confidence: "high",
    why: "Addresses are kept in logs, histories and referrers: so is the token (RFC 6750 §5.3; MCP forbids it).",
    fix: "Take tokens in the Authorization header alone, and name `header` in bearer_methods_supported.",
    bad: [
      { tokenInAddress: TAKEN },
      { resource: { place: "p", document: { bearer_methods_supported: ["header", "query"] } } },
    ],
    good: [
      { tokenInAddress: REFUSED },
      { resource: { place: "p", document: { bearer_methods_supported: ["header"] } } },
    ],
    find: function* ({ tokenInAddress, resource }): Generator<ProbeSighting> {
      yield* taken(tokenInAddress, "/tokenInAddress", "a good token as ?access_token=");
      const methods = resource?.document?.["bearer_methods_supported"];
      if (Array.isArray(methods) && methods.includes("query"))
        yield { where: "/resource/bearer_methods_supported", evidence: "bearer_methods_supported names query" };
    },
  },
  {
    id: "origin-unchecked",
    title: "answers requests of foreign web pages",
    owasp: "MCP07",
    principle: 5,
    severity: "medium",
    confidence: "high",
    why: "A page that somebody on the same network visits can speak to the server through the browser (DNS rebinding). MCP wants a foreign Origin answered with 403.",
    fix: "Compare Origin with the addresses of your own pages, and answer anything else with 403 before looking at the request.",
    bad: [
      { anonymous: TAKEN, foreignOrigin: TAKEN },
      { anonymous: REFUSED, foreignOrigin: { outcome: "taken", said: "401" } },
    ],
    good: [{ anonymous: REFUSED, foreignOrigin: { outcome: "refused", said: "403" } }],
    find: function* ({ anonymous, foreignOrigin }): Generator<ProbeSighting> {
      if (foreignOrigin?.outcome !== "taken") return;
      const evidence = `Origin: https://attacker.example is answered ${foreignOrigin.said}, not 403`;
      // Who needs a token that the page does not have is bothered, not robbed.
      yield { where: "/foreignOrigin", evidence, severity: anonymous?.outcome === "taken" ? "high" : "low" };
    },
  },
  {
    id: "host-unchecked",
    title: "answers under any name",
    owasp: "MCP07",
    principle: 5,
    severity: "medium",
    confidence: "medium",
    why: "A server of one's own machine or network that takes any Host can be reached under an attacker's name that was turned to its address (DNS rebinding).",
    fix: "Compare Host with the names the server has, and refuse others.",
    bad: [{ local: true, anonymous: TAKEN, foreignHost: TAKEN }],
    good: [{ local: true, anonymous: REFUSED, foreignHost: { outcome: "refused", said: "403" } }],
    find: function* ({ anonymous, foreignHost, local }): Generator<ProbeSighting> {
      if (!local || foreignHost?.outcome !== "taken") return;
      const evidence = `Host: attacker.example is answered ${foreignHost.said}`;
      yield { where: "/foreignHost", evidence, severity: anonymous?.outcome === "taken" ? "high" : "low" };
    },
  },
  {
    id: "cors-with-credentials",
    title: "lets foreign pages use their visitor's cookies",
    owasp: "MCP07",
    principle: 5,
    severity: "high",
    confidence: "high",
    why: "Access-Control-Allow-Credentials for any origin hands every visitor's session to the page they happen to look at.",
    fix: "Leave Access-Control-Allow-Credentials out: tokens are sent in a header, and need none.",
    bad: [{ preflight: { allowOrigin: "https://attacker.example", credentials: true } }],
    good: [
      { preflight: { allowOrigin: "*", credentials: false } },
      { preflight: { allowOrigin: undefined, credentials: true } },
    ],
    find: function* ({ preflight }): Generator<ProbeSighting> {
      if (preflight?.credentials === true && preflight.allowOrigin !== undefined)
        yield {
          where: "/preflight",
          evidence: `to https://attacker.example: Access-Control-Allow-Origin: ${preflight.allowOrigin} with credentials`,
          // Browsers refuse the pair with the star; it shows what was meant.
          ...(preflight.allowOrigin === "*" && { severity: "medium" as const }),
        };
    },
  },
  {
    id: "guessable-session",
    title: "gives session ids that can be guessed",
    owasp: "MCP07",
    principle: 5,
    severity: "high",
    confidence: "high",
    why: "Who guesses a session id speaks as its owner, or reads the answers that were meant for them.",
    fix: "Make ids of at least 128 bits from a cryptographic random source, and bind them to the user of the token.",
    bad: [{ sessions: ["1001", "1002", "1003"] }, { sessions: ["session-17c1", "session-17c2", "session-17c9"] }],
    good: [
      { sessions: [] },
      {
        sessions: [
          "0b0f1d0c-6a4e-4d39-9d3a-0a5f8d6e2f10",
          "7be2c2a1-93f7-4a0e-8c55-d1f3e96b7a42",
          "c4d91e77-2f08-4b6b-b1aa-59e07c3d8f66",
        ],
      },
    ],
    find: function* ({ sessions = [] }): Generator<ProbeSighting> {
      if (sessions.length < 2) return;
      if (new Set(sessions).size < sessions.length)
        return yield { where: "/sessions", evidence: "two sessions have the same id", severity: "critical" };
      const bits = bitsThatVary(sessions);
      if (bits < LEAST_BITS)
        yield {
          where: "/sessions",
          evidence: `${sessions.length} ids of ${sessions[0]?.length} characters differ in about ${Math.round(bits)} bits`,
        };
    },
  },
  {
    id: "session-fixation",
    title: "takes a session id of the client's making",
    owasp: "MCP07",
    principle: 5,
    severity: "high",
    confidence: "high",
    why: "An attacker chooses the id, has a victim use it, and is in the victim's session.",
    fix: "Give every id yourself, and answer 404 to one that you did not give.",
    bad: [{ ownSession: TAKEN }],
    good: [{ ownSession: REFUSED }],
    find: ({ ownSession }) => taken(ownSession, "/ownSession", "Mcp-Session-Id chosen by the client"),
  },
  {
    id: "session-for-token",
    title: "takes a session id in place of a token",
    owasp: "MCP07",
    principle: 5,
    severity: "critical",
    confidence: "high",
    why: "A session id is no proof of who asks; MCP forbids to take it for one. It is logged, and it does not expire with the token.",
    fix: "Verify the token of every request, and that the session is its user's.",
    bad: [{ sessionWithoutToken: TAKEN }],
    good: [{ sessionWithoutToken: REFUSED }],
    find: ({ sessionWithoutToken }) =>
      taken(sessionWithoutToken, "/sessionWithoutToken", "tools/list in a session, without its token"),
  },
];

/** What OWASP asks of session ids at the least. */
const LEAST_BITS = 64;

/** Bits by which ids differ: places that are the same in all of them tell nobody apart. */
function bitsThatVary(ids: readonly string[]): number {
  const length = Math.min(...ids.map((id) => id.length));
  // What counts upwards changes at its end.
  const ends = ids.map((id) => id.slice(-length));
  const alphabet = Math.log2(alphabetOf(ids.join("")));
  let bits = 0;
  for (let at = 0; at < length; at++) if (new Set(ends.map((id) => id[at])).size > 1) bits += alphabet;
  return bits;
}

function alphabetOf(characters: string): number {
  if (/^[\d-]*$/.test(characters)) return 10;
  if (/^(?:[\da-f-]*|[\dA-F-]*)$/.test(characters)) return 16;
  return /^[\da-z_-]*$/.test(characters) ? 32 : 64;
}
