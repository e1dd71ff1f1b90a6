/** What an authorization server grants that it should refuse. */
import { REFUSED, TAKEN } from "./examples.ts";
import type { Attempt, ObservedAuthorization } from "./observed.ts";
import { type ProbeRule, type ProbeSighting, taken } from "./probe-rule.ts";

const right = (more: Partial<ObservedAuthorization>) => ({ authorization: { right: TAKEN, ...more } });

export const authorizationRules: readonly ProbeRule[] = [
  {
    id: "pkce-not-required",
    title: "gives codes without PKCE",
    owasp: "MCP07",
    principle: 5,
    severity: "high",
    confidence: "high",
    why: "An attacker leaves the challenge out, and a code that is caught or smuggled in can be redeemed. What is offered and not required protects nobody.",
    fix: "Answer invalid_request to every authorization request without code_challenge.",
    bad: [right({ withoutPkce: TAKEN })],
    good: [right({ withoutPkce: REFUSED }), { authorization: { right: REFUSED, withoutPkce: TAKEN } }],
    find: ({ authorization }) => counted(authorization, "withoutPkce", "a request without code_challenge"),
  },
  {
    id: "verifier-unchecked",
    title: "redeems a code with a wrong verifier",
    owasp: "MCP07",
    principle: 5,
    severity: "critical",
    confidence: "high",
    why: "PKCE is asked for and not checked: whoever catches a code has the token.",
    fix: "Compare the hash of code_verifier with the challenge of the request, and answer invalid_grant.",
    bad: [{ authorization: { wrongVerifier: TAKEN } }],
    good: [{ authorization: { wrongVerifier: REFUSED } }],
    find: ({ authorization }) =>
      taken(authorization?.wrongVerifier, "/authorization/wrongVerifier", "a wrong code_verifier"),
  },
  {
    id: "code-used-twice",
    title: "redeems a code twice",
    owasp: "MCP07",
    principle: 5,
    severity: "high",
    confidence: "high",
    why: "A code stands in addresses and logs; it is safe there only because it is spent (RFC 6749 §4.1.2).",
    fix: "Take a code once; the second time end what the first one gave.",
    bad: [{ authorization: { codeTwice: TAKEN } }],
    good: [{ authorization: { codeTwice: REFUSED } }],
    find: ({ authorization }) => taken(authorization?.codeTwice, "/authorization/codeTwice", "the same code again"),
  },
  {
    id: "code-without-sign-in",
    title: "gives a code to somebody who never signed in",
    owasp: "MCP07",
    principle: 5,
    severity: "critical",
    confidence: "high",
    why: "The probe has no account and was given a code: tokens say that somebody signed in, and nobody did.",
    fix: "Have a person sign in and agree before a code is given.",
    bad: [{ authorization: { codeWithoutSignIn: true } }],
    good: [{ authorization: { codeWithoutSignIn: false } }],
    find: function* ({ authorization }): Generator<ProbeSighting> {
      if (authorization?.codeWithoutSignIn === true)
        yield { where: "/authorization/codeWithoutSignIn", evidence: "the first request was answered with a code" };
    },
  },
  {
    id: "redirect-unchecked",
    title: "sends people and codes where no client asked for",
    owasp: "MCP07",
    principle: 5,
    severity: "critical",
    confidence: "high",
    why: "A redirect that is not compared, character by character, with what the client registered hands codes to attackers, and makes the server a door to any page.",
    fix: "Compare redirect_uri exactly (but for the port on loopback), and show an error page without a redirect when it is another, or the client unknown.",
    bad: [right({ otherRedirect: TAKEN }), { authorization: { strangersRedirect: TAKEN } }],
    good: [right({ otherRedirect: REFUSED }), { authorization: { strangersRedirect: REFUSED } }],
    find: function* ({ authorization }): Generator<ProbeSighting> {
      yield* taken(authorization?.strangersRedirect, "/authorization/strangersRedirect", "a client that nobody knows");
      yield* counted(authorization, "otherRedirect", "a redirect_uri that is not registered");
    },
  },
  {
    id: "audience-unchecked",
    title: "takes requests for any audience",
    owasp: "MCP07",
    principle: 5,
    severity: "low",
    confidence: "medium",
    why: "A server that does not look at `resource` (RFC 8707) gives tokens that are good in more than one place.",
    fix: "Answer invalid_target to a resource that you do not issue for, and write the audience into the token.",
    bad: [right({ otherAudience: TAKEN })],
    good: [right({ otherAudience: REFUSED })],
    find: ({ authorization }) => counted(authorization, "otherAudience", "resource=https://other.example/mcp"),
  },
  {
    id: "token-for-strangers",
    title: "gives tokens to clients that nobody knows",
    owasp: "MCP07",
    principle: 5,
    severity: "critical",
    confidence: "high",
    why: "A made-up client with a made-up code was given a token: there is no authorization.",
    fix: "Answer invalid_client to who is not known, and invalid_grant to what was not given.",
    bad: [{ authorization: { strangersToken: { client_credentials: TAKEN } } }],
    good: [{ authorization: { strangersToken: { authorization_code: REFUSED, client_credentials: REFUSED } } }],
    find: function* ({ authorization }): Generator<ProbeSighting> {
      for (const [grant, attempt] of Object.entries(authorization?.strangersToken ?? {}))
        yield* taken(attempt, `/authorization/strangersToken/${grant}`, `${grant} of a client that nobody knows`);
    },
  },
  {
    id: "unsafe-redirect-registered",
    title: "registers redirects that are not safe",
    owasp: "MCP07",
    principle: 5,
    severity: "high",
    confidence: "high",
    why: "A script as a redirect runs in the page of the server; over plain http, or with a star for a host, a code is anybody's.",
    fix: "Register https redirects without fragment and wildcard, http on loopback, and private schemes with a dot (RFC 8252); answer invalid_redirect_uri to the rest.",
    bad: [{ authorization: { redirects: { "a script": TAKEN } } }],
    good: [{ authorization: { redirects: { "a script": REFUSED } } }],
    find: function* ({ authorization }): Generator<ProbeSighting> {
      for (const [kind, attempt] of Object.entries(authorization?.redirects ?? {}))
        yield* taken(attempt, "/authorization/redirects", `${kind} as redirect_uri`);
    },
  },
  {
    id: "framed-sign-in",
    title: "lets other pages frame its sign-in",
    owasp: "MCP07",
    principle: 5,
    severity: "medium",
    confidence: "high",
    why: "A page that lies over the consent has people click what they do not see (RFC 6819 §4.4.1.9).",
    fix: "Send Content-Security-Policy: frame-ancestors 'none' with sign-in and consent.",
    bad: [{ authorization: { page: { frameOptions: undefined, policy: "default-src 'self'" } } }],
    good: [
      { authorization: { page: { frameOptions: undefined, policy: "default-src 'self'; frame-ancestors 'none'" } } },
      { authorization: { page: { frameOptions: "DENY", policy: undefined } } },
    ],
    find: function* ({ authorization }): Generator<ProbeSighting> {
      const page = authorization?.page;
      if (page === undefined) return;
      const ancestors = /(?:^|;)\s*frame-ancestors\s+([^;]+)/i.exec(page.policy ?? "")?.[1]?.trim();
      // A policy that names ancestors is what browsers go by; the older header counts without one (CSP Level 3 §6.4.2.1).
      const kept =
        ancestors === undefined
          ? /^(?:deny|sameorigin)$/i.test(page.frameOptions?.trim() ?? "")
          : !/(?:^|\s)(?:\*|https?:)(?:\s|$)/.test(ancestors);
      if (!kept)
        yield {
          where: "/authorization/page",
          evidence: `frame-ancestors ${ancestors ?? "is missing"}, X-Frame-Options ${page.frameOptions ?? "is missing"}`,
        };
    },
  },
];

/** Something that counts only because a right request is taken: who refuses everything has refused nothing in particular. */
function* counted(
  authorization: ObservedAuthorization | undefined,
  name: "withoutPkce" | "otherRedirect" | "otherAudience",
  what: string,
): Generator<ProbeSighting> {
  const attempt: Attempt | undefined = authorization?.[name];
  if (authorization?.right?.outcome === "taken") yield* taken(attempt, `/authorization/${name}`, what);
}
