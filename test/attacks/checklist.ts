/**
 * The attacks that are refused: what each item says, the tests that show it, and the good request beside it that shows the refusal
 * is not blindness. A test is named by its file below `test/` and its title as the source has it. Tests made by `attack` and
 * `attackEach` name their items themselves.
 */
import { test } from "vitest";

export interface Attack {
  /** What does not succeed. */
  readonly refused: string;
  /** `file: title` of tests that carry no tag. */
  readonly tests: readonly string[];
  /** `file: title` of a test in which the like is accepted when it is as it should be. */
  readonly good: string;
  /** Why the attack cannot be made here in its usual form, and what is tested in its place. */
  readonly otherwise?: string;
}

export const attacks: Readonly<Record<number, Attack>> = {
  1: {
    refused: "An authorization request of a client that nobody knows shows a page and leads nowhere.",
    tests: ["attacks/oauth-authorize: an unknown client is never redirected"],
    good: "attacks/oauth-authorize: a good request is answered, so that the refusals below mean something",
  },
  2: {
    refused: "A redirect URI that is not, letter for letter, a registered one is never redirected to.",
    tests: ["attacks/oauth-authorize: a redirect to %j is refused without a redirect"],
    good: "attacks/oauth-authorize: a good request is answered, so that the refusals below mean something",
  },
  3: {
    refused: "A loopback redirect takes any port, and nothing that only looks or resolves like loopback.",
    tests: ["attacks/oauth-authorize: is not answered at %j"],
    good: "attacks/oauth-authorize: may be answered at any port: %s",
  },
  4: {
    refused:
      "A redirect URI that runs something (javascript, data, blob, file …) is refused in any disguise, at registration and later.",
    tests: ["attacks/oauth-authorize: is not answered at %j", "attacks/oauth-authorize: refuses the redirects %j"],
    good: "attacks/oauth-authorize: a good request is answered, so that the refusals below mean something",
  },
  5: {
    refused:
      "Plain http away from loopback, and a program's own scheme that the operator did not list, are no redirect URIs.",
    tests: [
      "attacks/oauth-authorize: refuses the redirects %j",
      "attacks/oauth-authorize: a redirect to %j is refused without a redirect",
      "oauth/registration: of redirect_uris with %s is refused as invalid_redirect_uri",
    ],
    good: "oauth/consent: with a scheme of its own is a program on this computer too",
  },
  6: {
    refused: "Without a PKCE challenge there is no authorization.",
    tests: ["attacks/oauth-authorize: that %s is refused"],
    good: "attacks/oauth-authorize: a good request is answered, so that the refusals below mean something",
  },
  7: {
    refused: "PKCE with the method plain, or with none, is refused.",
    tests: ["attacks/oauth-authorize: that %s is refused"],
    good: "attacks/oauth-authorize: a good request is answered, so that the refusals below mean something",
  },
  8: {
    refused: "A PKCE challenge that is too short, too long or of other characters is refused.",
    tests: ["attacks/oauth-authorize: that %s is refused"],
    good: "attacks/oauth-authorize: a good request is answered, so that the refusals below mean something",
  },
  9: {
    refused: "S256 without a challenge is refused.",
    tests: ["attacks/oauth-authorize: that %s is refused"],
    good: "attacks/oauth-authorize: a good request is answered, so that the refusals below mean something",
  },
  10: {
    refused: "A response type with tokens in the address is refused.",
    tests: ["attacks/oauth-authorize: the response type %s is refused"],
    good: "attacks/oauth-authorize: a good request is answered, so that the refusals below mean something",
  },
  11: {
    refused: "A response mode other than query is refused.",
    tests: ["attacks/oauth-authorize: the response mode %s is refused"],
    good: "attacks/oauth-authorize: a good request is answered, so that the refusals below mean something",
  },
  12: {
    refused: "A parameter given twice is refused; where it is the client or the redirect, nobody is told.",
    tests: ["attacks/oauth-authorize: %s given twice is refused"],
    good: "attacks/oauth-authorize: a good request is answered, so that the refusals below mean something",
  },
  13: {
    refused: "A resource that is not ours, relative, beside ours, with a fragment, or one of several, is refused.",
    tests: [
      "oauth/flow: a resource that is not ours is refused, to the client and with iss",
      "oauth/clauses: of several resources each must be ours, in any spelling",
    ],
    good: "oauth/flow: every spelling of the resource is the one resource",
  },
  14: {
    refused: "A scope that does not exist, or a wildcard, is never granted.",
    tests: [
      "attacks/oauth-authorize: a scope that does not exist is never granted",
      "attacks/oauth-authorize: a request for nothing that exists is refused without asking anybody",
    ],
    good: "oauth/flow: no scope and no resource mean all of ours",
  },
  15: {
    refused: "Request objects are refused, and what they refer to is not fetched.",
    tests: [],
    good: "oauth/flow: a pushed authorization request is answered like any other",
  },
  16: {
    refused: "No answer leaves without the issuer and the client's own state.",
    tests: [
      "attacks/oauth-authorize: that %s is refused",
      "oauth/clauses: a refusal by the user comes with iss and state, like everything sent back to a client",
    ],
    good: "oauth/flow: tells everything an MCP client asks for, from the configured URL only",
  },
  17: {
    refused: "An invalid request does not redirect by itself to a client that registered itself.",
    tests: [
      "attacks/oauth-authorize: %s of a client that nobody vouches for shows where it leads, and goes nowhere by itself",
    ],
    good: "attacks/oauth-authorize: %s of a client on the person's own computer is answered at once",
  },
  18: {
    refused: "The pages cannot be framed, cached or scripted, and tell nobody where the browser came from.",
    tests: ["attacks/oauth-pages: cannot be framed, cached or scripted, and tell no one where the browser came from"],
    good: "e2e/pages: the whole way works with scripts switched off",
  },
  19: {
    refused: "A consent is not given by a form without its token, or with another one's.",
    tests: ["attacks/oauth-pages: is not given by a form without, or with another, form token"],
    good: "attacks/oauth-pages: can be for less than was asked, or for nothing",
  },
  20: {
    refused: "A question is answered once, within ten minutes.",
    tests: [
      "attacks/oauth-pages: counts once: the same answer again, or a second at the same time, gives nothing",
      "oauth/consent: after ten minutes is too late",
    ],
    good: "oauth/consent: a whole authorization through all of this still ends with a code",
  },
  21: {
    refused:
      "What a client says of itself is words on the page; its look-alikes are pointed out, its pictures not loaded.",
    tests: [
      "attacks/oauth-pages: show a hostile client's words as words",
      "oauth/consent: with a long, a right-to-left or no name does not disturb the page",
      "oauth/consent: is pointed out when its name is that of one the operator has set up",
    ],
    good: "oauth/consent: is not pointed out beside others that nobody has verified either, nor for a name that is not alike",
  },
  22: {
    refused:
      "A remembered consent is not used for another client, another redirect, more scopes, or at another site's word.",
    tests: [
      "attacks/oauth-pages: is asked for again when a remembered client wants more, or answers elsewhere",
      "attacks/oauth-pages: is asked for again by every native client, and by a web client that another site sends",
    ],
    good: "attacks/oauth-pages: is asked for again when a remembered client wants more, or answers elsewhere",
  },
  23: {
    refused: "A sign-in at a provider that was begun in one browser cannot be finished in another.",
    tests: [
      "attacks/sign-in: comes back in another browser: refused with 403, and nobody is signed in anywhere",
      "attacks/sign-in: whose answer is pushed into another browser does not sign that one in as the attacker",
    ],
    good: "attacks/sign-in: are __Host-, Secure, HttpOnly and SameSite=Lax, and the session's is set after the sign-in only",
  },
  24: {
    refused: "No cookie can be read by scripts, sent by other sites or set before the sign-in to be used after it.",
    tests: [
      "attacks/sign-in: planted before the sign-in are not what is signed in, and the session before it ends",
      "attacks/oauth-pages: set cookies that scripts, other sites and other hosts cannot use",
    ],
    good: "attacks/sign-in: are __Host-, Secure, HttpOnly and SameSite=Lax, and the session's is set after the sign-in only",
  },
  25: {
    refused: "The state of a sign-in that is missing, used, old or another session's is refused.",
    tests: [
      "attacks/sign-in: that is missing, unknown, doubled or too long is refused with 400",
      "attacks/sign-in: counts once: of twenty callbacks at the same time one signs in, and none later",
      "attacks/sign-in: counts once across two replicas on $name",
      "attacks/sign-in: is over after ten minutes",
      "attacks/sign-in: of another session is refused: somebody has signed in meanwhile",
    ],
    good: "attacks/sign-in: counts once: of twenty callbacks at the same time one signs in, and none later",
  },
  26: {
    refused: "An answer of a provider that is forged, meant for another, or old signs nobody in.",
    tests: [
      "attacks/sign-in: %s is refused with 400, and nothing is stored",
      "attacks/sign-in: the answer of one provider does not count as another's (mix-up)",
    ],
    good: "attacks/sign-in: %s is refused with 400, and nothing is stored",
  },
  27: {
    refused: "A browser never sends a password on to where it is led next.",
    tests: ["attacks/sign-in: the browser is sent on with 303, which takes no password along"],
    good: "attacks/oauth-pages: and a sign-in are followed by 303, so that no form is ever sent on",
  },
  28: {
    refused: "Guessing passwords is slowed down, and the answer does not tell who exists.",
    tests: [
      "attacks/sign-in: gets the same answer for a wrong password, an unknown name, a disabled user and one without a password",
      "attacks/sign-in: has to wait after five tries of one name, known or not, even with the right password",
    ],
    good: "attacks/sign-in: has to wait after five tries of one name, known or not, even with the right password",
  },
  29: {
    refused: "A code used twice gives nothing the second time, and ends what it gave the first time.",
    tests: ["attacks/oauth-token: used twice ends what the first use gave"],
    good: "attacks/races: with things of their own, all twenty get theirs",
  },
  30: {
    refused: "Of many who redeem one code at once one gets tokens.",
    tests: ["attacks/oauth-token: is redeemed by exactly one of twenty at once"],
    good: "attacks/races: with things of their own, all twenty get theirs",
  },
  31: {
    refused: "A code older than a minute is refused.",
    tests: ["attacks/oauth-token: is refused after a minute"],
    good: "oauth/replicas: a code older than a minute is refused; a younger one is not",
  },
  32: {
    refused: "A code without its verifier is worth nothing, also afterwards.",
    tests: [],
    good: "attacks/token-endpoint: with %s gives nothing, then or later",
  },
  33: {
    refused: "A verifier does not make up for a challenge that was never there.",
    tests: [],
    good: "oauth/flow: goes from its document through sign-in and consent to a token that the resource accepts",
  },
  34: {
    refused: "A code is of no use to another client.",
    tests: [],
    good: "attacks/token-endpoint: of another client, for another redirect, or for another resource is refused",
  },
  35: {
    refused: "A code is of no use with another redirect URI than it was given to.",
    tests: [],
    good: "attacks/token-endpoint: of another client, for another redirect, or for another resource is refused",
  },
  36: {
    refused: "A code is of no use for another resource.",
    tests: [],
    good: "attacks/token-endpoint: of another client, for another redirect, or for another resource is refused",
  },
  37: {
    refused: "A client that has a secret and does not show it, or shows it in two ways, gets nothing.",
    tests: [],
    good: "oauth/flow: of the operator's file authenticates with its secret",
  },
  38: {
    refused: "A client assertion that is forged, old, another's or used is refused.",
    tests: [],
    good: "attacks/token-endpoint: with %s in its assertion is refused with 401",
  },
  39: {
    refused: "A refresh token used again ends its whole family, unless its client merely raced itself for a moment.",
    tests: ["attacks/oauth-token: used again ends the family, the thief's tokens and the owner's"],
    good: "oauth/flow: a client that races itself within the grace keeps its tokens",
  },
  40: {
    refused: "A refresh token gives nothing to another client, no wider scope and no other resource.",
    tests: ["attacks/oauth-token: is refused to another client"],
    good: "attacks/token-endpoint: of another client, for more scopes or for another resource is refused",
  },
  41: {
    refused: "A refresh token is worth nothing once its user, consent, client or registration is gone.",
    tests: [],
    good: "oauth/replicas: tokens of a revoked token, grant, client or user are refused by both, and not renewed",
  },
  42: {
    refused: "A grant type that is not offered, or not to this client, is refused.",
    tests: [
      "attacks/oauth-token: refuses the grant type %s",
      "oauth/token-exchange: by an API that may exchange for nobody",
    ],
    good: "oauth/grants: gets a token for itself, with its groups and without a person or a refresh token",
  },
  43: {
    refused: "The token endpoint takes one form, by POST, of bounded size.",
    tests: ["attacks/oauth-token: refuses parameters that come twice"],
    good: "attacks/token-endpoint: %s is refused",
  },
  44: {
    refused: "Answers with tokens are not stored, and no page reads anything with the person's cookies.",
    tests: ["oauth/clauses: token answers and refusals are not to be stored"],
    good: "oauth/flow: and the keys may be read by any origin and kept for a while; authorize may not",
  },
  45: {
    refused: "Whoever tries codes by the hundred is told to wait, and nobody else is.",
    tests: ["oauth/edge-limits: that tries a hundred codes is told to wait, while a user elsewhere goes on as before"],
    good: "oauth/edge-limits: that succeeds pays nothing for tokens, little for pages, and is not blamed for our failures",
  },
  46: {
    refused: "Nobody revokes or looks into another client's token.",
    tests: ["oauth/clauses: introspection is refused without credentials, and to a client that has none"],
    good: "oauth/flow: a revoked access token is refused at once, also one that was just accepted",
  },
  47: {
    refused: "A registration with redirect URIs that are none, or far too many, is refused.",
    tests: [
      "oauth/registration: of redirect_uris with %s is refused as invalid_redirect_uri",
      "attacks/oauth-authorize: refuses the redirects %j",
    ],
    good: "oauth/registration: gives a client an id that is no URL, a token and an address to manage itself with, and no more than it asked for",
  },
  48: {
    refused: "A registration that is large, deep or ambiguous is refused.",
    tests: [
      "oauth/registration: of a body that is no JSON object, is nested deeply, has a member twice, is large or is something else is refused",
    ],
    good: "oauth/registration: gives a client an id that is no URL, a token and an address to manage itself with, and no more than it asked for",
  },
  49: {
    refused: "A registration for grants that are not for it, or with two key sets, is refused.",
    tests: ["oauth/registration: with %s is refused as invalid_client_metadata"],
    good: "oauth/registration: gives a client an id that is no URL, a token and an address to manage itself with, and no more than it asked for",
  },
  50: {
    refused: "One source cannot register without end, and nobody can fill the store; what is not used goes.",
    tests: [
      "oauth/registration: is refused to a source that registers too much in an hour, and to everybody when there are too many; the unused end",
      "attacks/oauth-authorize: is bounded in size, in number and per source, and forgets what nobody uses",
    ],
    good: "oauth/registration: that is used is kept, and its management token with it",
  },
  51: {
    refused: "Registration is off unless it is switched on, and where it needs a token nobody registers without one.",
    tests: [
      "oauth/registration: is off by default away from loopback: there is no endpoint, and metadata names none",
      "oauth/registration: nobody registers without one, and is told so before anything is read",
    ],
    good: "oauth/registration: one of three uses registers three clients, however many ask at once; what is refused for itself uses nothing up",
  },
  52: {
    refused: "A registration is not read, changed or deleted with another client's token.",
    tests: ["oauth/registration: is read with its token, without a secret, and by no other client's token"],
    good: "oauth/registration: is changed under the same rules as it was made; its token changes with it and the old one ends",
  },
  53: {
    refused: "No registration gets an id that a document could have.",
    tests: [
      "attacks/oauth-authorize: takes no client id that a document could have, and no key set twice",
      "oauth/registration: cannot choose its own id or secret, and cannot take a client's place that the operator set up",
    ],
    good: "oauth/registration: gives a client an id that is no URL, a token and an address to manage itself with, and no more than it asked for",
  },
  54: {
    refused: "A client id that is not the plain spelling of a document's URL is refused before anything is fetched.",
    tests: [
      "attacks/oauth-client-documents: is not looked for at an address that is not a plain spelling of a document's",
      "attacks/client-id-urls: of more than 40 such ids each one",
    ],
    good: "attacks/client-id-urls: a document on the public internet is fetched, and the counters see it",
  },
  55: {
    refused: "A document with another client id than its own URL is refused.",
    tests: [
      "attacks/oauth-client-documents: that is hostile is refused, with the reason, soon, and without following it anywhere",
    ],
    good: "attacks/client-id-urls: a document on the public internet is fetched, and the counters see it",
  },
  56: {
    refused: "A document's redirect is not followed.",
    tests: ["attacks/client-id-urls: a hostile answer is refused within five seconds and followed nowhere"],
    good: "attacks/client-id-urls: a document on the public internet is fetched, and the counters see it",
  },
  57: {
    refused:
      "A document that is not one, too large, packed or dripping is refused in seconds; failures are rate-limited and soon forgotten.",
    tests: [
      "attacks/client-id-urls: an answer that never ends, in whatever way it is slow, is given up after three seconds in all",
      "oauth/client-documents: from one host is limited, failures included, which are remembered for half a minute and no longer",
    ],
    good: "attacks/client-id-urls: as %s",
  },
  58: {
    refused: "No packet goes to an address that is not public, however it is spelled.",
    tests: [
      "attacks/oauth-client-documents: is refused with no packet sent, in every spelling of an address",
      "attacks/client-id-urls: an address that is not on the public internet is refused with no packet sent, as client id and as jwks_uri",
    ],
    good: "attacks/client-id-urls: a trap does count a connection that reaches it",
  },
  59: {
    refused: "A name that changes its address after it was checked leads nowhere else.",
    tests: [
      "attacks/client-id-urls: between being checked and being connected to is asked only once: the address that was checked is reached",
      "attacks/oauth-client-documents: is refused with no packet sent when only its name service says so, or changes its mind",
    ],
    good: "attacks/client-id-urls: a document on the public internet is fetched, and the counters see it",
  },
  60: {
    refused: "Key sets obey the rules of documents; logos and policy links are never fetched.",
    tests: [
      "oauth/client-documents: whose keys are elsewhere than it says, too large, or no JSON is refused, and nothing is followed",
      "attacks/oauth-pages: show a hostile client's words as words",
    ],
    good: "oauth/client-documents: %s gets tokens by signing, and none without",
  },
  61: {
    refused: "A document cannot have a shared secret.",
    tests: [
      "attacks/oauth-client-documents: that is hostile is refused, with the reason, soon, and without following it anywhere",
    ],
    good: "attacks/client-id-urls: a document on the public internet is fetched, and the counters see it",
  },
  62: {
    refused: "A client that said it would sign gets nothing unsigned.",
    tests: [
      "oauth/client-documents: %s gets tokens by signing, and none without",
      "oauth/flow: with a key in its document authenticates with it, and not without",
    ],
    good: "oauth/client-documents: %s gets tokens by signing, and none without",
  },
  63: {
    refused: "A client that has changed since it was let in is asked about anew.",
    tests: [
      "attacks/oauth-pages: is asked for again when the client's document has changed",
      "attacks/oauth-pages: is not for a document that was changed between the page and the click",
      "oauth/client-documents: whose keys changed asks the person again",
    ],
    good: "oauth/consent: is asked about anew, with its old name, its new addresses and that its keys are new",
  },
  64: {
    refused: "A program on the person's computer cannot pass silently for a client with a good name.",
    tests: [
      "oauth/consent: by registration is unverified, and a program on this computer can be any program",
      "oauth/consent: again by a program on this computer is asked whole, and what is unticked now is no longer allowed",
    ],
    good: "oauth/consent: from a domain that the operator allows is said to be allowed",
  },
  65: {
    refused: "A document of a domain that is not on the operator's list is not fetched.",
    tests: [
      "attacks/oauth-client-documents: of a denied domain, or of one not on the list where there is a list, is not fetched",
    ],
    good: "attacks/oauth-client-documents: of an allowed domain is shown as allowed, of any other as unknown",
  },
  66: {
    refused: "A document's server cannot have it kept for less than a minute or more than a day.",
    tests: [
      "attacks/oauth-client-documents: is fetched once for fifty who ask at once, kept as its server says within bounds, and asked for again by its tag",
    ],
    good: "attacks/oauth-client-documents: serves on while its server is down, and not after it was withdrawn",
  },
  67: {
    refused: "A call without a token is refused, with where to get one and for which scopes.",
    tests: [
      "attacks/resource-server: every refusal for want of a token says where tokens come from, and nothing of why this one was refused",
      "e2e/refusals: and without a token is told where to sign in, and no error",
    ],
    good: "attacks/resource-server: a good token is accepted, so that the refusals below mean something",
  },
  68: {
    refused: "A token in the address, a form, the body or a cookie is none.",
    tests: ["attacks/resource-server: in the query, in a form or in the body is none"],
    good: "attacks/resource-server: a good token is accepted, so that the refusals below mean something",
  },
  69: {
    refused: "An Authorization header that is malformed, or comes twice, is refused.",
    tests: [
      "attacks/resource-server: %s is refused",
      "attacks/resource-server: that comes in the second of two Authorization headers, or in both, is refused",
    ],
    good: "e2e/requirements-http: takes the scheme of the Authorization header in any case",
  },
  70: {
    refused: "A token for another audience is refused, however much it looks like ours.",
    tests: ["attacks/resource-server: %s is refused", "attacks/oauth-token: %s is refused"],
    good: "attacks/resource-server: a good token is accepted, so that the refusals below mean something",
  },
  71: {
    refused: "A token of another issuer, or with a key that it brings along, is refused.",
    tests: [
      "attacks/resource-server: signed by a stranger's key is refused, wherever it says that its key is",
      "attacks/oauth-token: signed by a stranger who brings the key along is refused",
    ],
    good: "attacks/resource-server: a good token is accepted, so that the refusals below mean something",
  },
  72: {
    refused: "A token that is unsigned, signed in another way, expired, from the future or of another type is refused.",
    tests: [
      "attacks/oauth-token: with alg none is refused",
      "attacks/oauth-token: signed by HMAC with our public key as the secret is refused",
      "attacks/oauth-token: a real id token of ours is no access token",
      "attacks/resource-server: %s is refused",
    ],
    good: "attacks/resource-server: a good token is accepted, so that the refusals below mean something",
  },
  73: {
    refused: "When keys cannot be had, no unchecked token is accepted.",
    tests: ["oauth/issuers: serve on while the issuer is down, for a day; then tokens are refused"],
    good: "attacks/gateway: while the keys of another issuer cannot be had, tokens count for a day by the last ones, then none does, and none unsigned ever",
  },
  74: {
    refused: "What was revoked or disabled is refused everywhere within a second.",
    tests: [
      "oauth/revocation: %s revoked at one replica is refused by the other within a second",
      "e2e/replicas: %s at one gateway is refused at the other within a second, and its stream there ends",
    ],
    good: "oauth/replicas: one access token that was revoked at one is refused by the other, and its client's next one is not",
  },
  75: {
    refused: "A call beyond the token's scopes is refused, naming the one it needs and no more.",
    tests: ["e2e/refusals: with too narrow a token is told which scope is missing"],
    good: "e2e/upstream-credentials: is told which scope would help",
  },
  76: {
    refused: "A tool that one's role does not have is neither listed nor called nor told from one that is not there.",
    tests: ["e2e/refusals: of a tool that is not there and of one the role denies are refused alike"],
    good: "attacks/gateway: is in no list and refused in the words for one that is not there; it is not called",
  },
  77: {
    refused: "Headers that say otherwise than the body are refused, and what is permitted is decided by the body.",
    tests: [
      "e2e/requirements-http: that repeat arguments must say what the body says",
      "upstream/parts: make a tool invalid: %s",
    ],
    good: "attacks/gateway: is refused: %s",
  },
  78: {
    refused: "A message that two readers could read differently is refused, and what is sent on is what was checked.",
    tests: [
      "e2e/refusals: %s is refused",
      "attacks/stdio-smuggling: a request on its own line (%j) inside arguments never reaches a stdio server",
    ],
    good: "attacks/gateway: what is sent on is what was checked, not what came in",
  },
  79: {
    refused: "The client's token reaches no upstream, and nobody becomes somebody else by a header.",
    tests: [
      "attacks/token-passthrough: reaches no server in a header, a URL or a body, whatever is asked",
      "attacks/token-passthrough: reaches no server through the headers of a client that wants it to: they are not handed on",
      "attacks/token-passthrough: does not follow a redirect (%i) to another origin, nor does the call",
    ],
    good: "attacks/token-passthrough: is that of whoever calls, under a hundred calls of several clients at once",
  },
  80: {
    refused: "Somebody else's session is one that does not exist.",
    tests: ["e2e/refusals: of somebody else looks like one that does not exist"],
    good: "e2e/requirements-http: has an id of visible ASCII that cannot be guessed",
  },
  81: {
    refused: "A Host or Origin that is not ours is refused, and no origin is reflected with credentials.",
    tests: [
      "e2e/refusals: a wrong Host is refused on every path",
      "e2e/refusals: a wrong Origin is refused; our own and other loopback ones are allowed by name, never by *",
      "e2e/edge: that is not allowed never sees its origin reflected by %s",
    ],
    good: "e2e/edge: is told by the preflight which methods and headers it may use, its own Mcp-Param- headers too",
  },
  82: {
    refused: "As a client of other servers the gateway follows nobody's challenge, metadata or redirect to a stranger.",
    tests: [
      "attacks/token-passthrough: that the server turns down is answered in band: its challenge sends no client to a stranger",
      "attacks/sign-in: metadata of another issuer, or with an endpoint that is no web address, sends nobody anywhere",
      "oauth/issuers: of an issuer that cannot be one is refused before anything is asked",
    ],
    good: "attacks/upstream-authorization: of a good server all this is followed",
  },
  83: {
    refused: "A consent at somebody else's server cannot be finished by another person or browser.",
    tests: ["attacks/sign-in: comes back in another browser: refused with 403, and nobody is signed in anywhere"],
    good: "e2e/connected-upstreams: is called for each person with their own account, and for whoever has none not at all",
  },
  84: {
    refused: "No document says of us what a request's headers say, and no public issuer is without https.",
    tests: [
      "e2e/refusals: no document is built from Host or X-Forwarded headers",
      "attacks/oauth-authorize: a public http address is no place for an authorization server",
    ],
    good: "oauth/flow: tells everything an MCP client asks for, from the configured URL only",
  },
};

/** `attack(30, "of twenty …", …)`: a test that stands for the named items of the list. Throws on an item that there is not. */
export function attack(items: number | readonly number[], title: string, fn: () => unknown, timeout?: number): void {
  test(named(items, title), fn, timeout);
}

/** `test.each` for the named items. */
export function attackEach<T extends string | readonly [unknown, ...unknown[]]>(
  items: number | readonly number[],
  cases: readonly T[],
  title: string,
  fn: (...args: T extends readonly unknown[] ? [...T] : [T]) => unknown,
): void {
  test.each(cases as readonly never[])(named(items, title), fn as () => void);
}

function named(items: number | readonly number[], title: string): string {
  const all = typeof items === "number" ? [items] : items;
  for (const item of all) if (!Object.hasOwn(attacks, item)) throw new Error(`There is no attack ${item} in the list.`);
  return `${title} [attack ${all.join(", ")}]`;
}
