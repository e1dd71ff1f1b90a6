/** The endpoint itself: encryption, errors, what stands open beside it. */
import type { ProbeRule, ProbeSighting } from "./probe-rule.ts";

const DAYS = 14;

export const endpointRules: readonly ProbeRule[] = [
  {
    id: "certificate-trouble",
    title: "has a certificate that clients will not take for long",
    owasp: "MCP07",
    principle: 5,
    severity: "medium",
    confidence: "high",
    why: "When it ends, clients stop, or people learn to go on without checking.",
    fix: "Renew it by a program, and serve the whole chain.",
    bad: [
      { certificate: { daysLeft: 3, protocol: "TLSv1.3" } },
      { certificate: { daysLeft: 90, protocol: "TLSv1.3", problem: "self-signed certificate" } },
    ],
    good: [{ certificate: { daysLeft: 60, protocol: "TLSv1.3" } }],
    find: function* ({ certificate }): Generator<ProbeSighting> {
      if (certificate === undefined) return;
      const { daysLeft, protocol, problem } = certificate;
      if (problem !== undefined) yield { where: "/certificate", evidence: problem, severity: "high" };
      else if (daysLeft < DAYS) yield { where: "/certificate", evidence: `it ends in ${Math.floor(daysLeft)} days` };
      if (/^TLSv1(?:\.1)?$|^SSL/.test(protocol))
        yield { where: "/certificate", evidence: `it speaks ${protocol}`, severity: "high" };
    },
  },
  {
    id: "no-hsts",
    title: "does not insist on encryption",
    owasp: "MCP07",
    principle: 5,
    severity: "low",
    confidence: "medium",
    why: "A browser that is sent to the plain address once can be kept there by who is on the way (RFC 6797).",
    fix: "Send Strict-Transport-Security: max-age=31536000 over https.",
    bad: [{ hsts: null }, { hsts: "max-age=0" }],
    good: [{ hsts: "max-age=31536000" }, {}],
    find: function* ({ hsts }): Generator<ProbeSighting> {
      if (hsts === undefined) return;
      const seconds = Number(/max-age\s*=\s*"?(\d+)/i.exec(hsts ?? "")?.[1] ?? 0);
      if (seconds < MONTH_SECONDS)
        yield {
          where: "/hsts",
          evidence: hsts === null ? "there is no Strict-Transport-Security" : `Strict-Transport-Security: ${hsts}`,
        };
    },
  },
  {
    id: "talkative-errors",
    title: "tells strangers how it is made",
    owasp: "MCP10",
    principle: 4,
    severity: "medium",
    confidence: "high",
    why: "Traces name files, versions and queries: a map for the next attack, and sometimes data of others.",
    fix: "Answer a plain sentence and an id; write the rest to the log.",
    bad: [
      {
        errors: {
          "no JSON": {
            status: 400,
            text: "SyntaxError: Unexpected token\n    at parse (/srv/app/node_modules/body-parser/lib/json.js:92:19)",
          },
        },
      },
      {
        errors: {
          "no JSON": {
            status: 500,
            text: 'Traceback (most recent call last):\n  File "/app/main.py", line 12, in handle',
          },
        },
      },
    ],
    good: [{ errors: { "no JSON": { status: 400, text: '{"error":{"code":-32700,"message":"Parse error at 1"}}' } } }],
    find: function* ({ errors = {} }): Generator<ProbeSighting> {
      for (const [what, { status, text }] of Object.entries(errors)) {
        const found = TRACES.map((pattern) => pattern.exec(text)?.[0]).find((one) => one !== undefined);
        if (found !== undefined) return yield { where: "/errors", evidence: `${status} to ${what}: ${found}` };
      }
    },
  },
  {
    id: "fails-on-odd-requests",
    title: "fails on requests that are merely wrong",
    owasp: "MCP07",
    principle: 2,
    severity: "low",
    confidence: "high",
    why: "What is not refused on sight has already cost work; a server that fails on a few bytes may be brought down by a few more.",
    fix: "Bound size and depth before parsing, and answer 400 or 413.",
    bad: [{ errors: { "deeply nested JSON": { status: 500, text: "" } } }],
    good: [{ errors: { "deeply nested JSON": { status: 400, text: "" }, "no JSON": { status: 401, text: "" } } }],
    find: function* ({ errors = {} }): Generator<ProbeSighting> {
      for (const [what, { status }] of Object.entries(errors))
        if (status >= 500 || status === 0)
          yield { where: "/errors", evidence: `${what}: ${status === 0 ? "the connection ended" : status}` };
    },
  },
  {
    id: "open-side-door",
    title: "shows strangers what is for operators",
    owasp: "MCP07",
    principle: 1,
    severity: "medium",
    confidence: "medium",
    why: "Metrics, consoles and dumps tell who uses what, and some of them take orders.",
    fix: "Serve them at an address of their own that only operators reach, or ask for a token.",
    bad: [{ open: { "/metrics": "Prometheus metrics" } }],
    good: [{ open: {} }],
    find: function* ({ open = {} }): Generator<ProbeSighting> {
      for (const [path, what] of Object.entries(open)) yield { where: "/open", evidence: `${path}: ${what}` };
    },
  },
];

const MONTH_SECONDS = 30 * 86_400;
const TRACES: readonly RegExp[] = [
  /\bat [^\n()]{0,100}\((?:file:|node:|\/|[A-Z]:\\)[^\n()]{1,200}:\d+:\d+\)/,
  /\bat (?:file:\/\/|node:|\/)[^\n\s]{1,200}:\d+:\d+/,
  /Traceback \(most recent call last\)/,
  /File "[^"\n]{1,200}\.py", line \d+/,
  /\bat [\w$.]{1,120}\([\w$]{1,60}\.(?:java|kt|scala):\d+\)/,
  /\bgoroutine \d+ \[running\]/,
  /\bin \/[^\s\n]{1,200}\.php(?: on line |:)\d+/,
];
