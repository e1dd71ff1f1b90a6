/** What a schema cannot say: settings that must agree with each other, files that must exist, options that deserve a warning. */
import { existsSync, statSync } from "node:fs";
import type { z } from "zod";
import { ALL_SCOPES } from "../oauth/metadata.ts";
import { compileCost } from "../policy/cost.ts";
import { namesNobody } from "../policy/engine.ts";
import { readPattern } from "../policy/globs.ts";
import type { AssignSettings, RoleRule, RolesSettings } from "../policy/settings.ts";
import { furtherScopes } from "../policy/step-up.ts";
import { compileCallCondition, compileUserCondition } from "../policy/when.ts";
import type {
  HttpServerSettings,
  Isolation,
  ServerSettings,
  UpstreamOAuthSettings,
  UserValue,
} from "../upstream/settings.ts";
import { approvalFindings } from "./approval-checks.ts";
import { contractFindings } from "./contracts.ts";
import { maskFindings } from "./masks.ts";
import {
  type Finding,
  failing,
  isRecord,
  nearest,
  optionsOf,
  type SettingsPath,
  schemaAt,
  valueAt,
} from "./problems.ts";
import type { Settings } from "./schema.ts";

/** The parts of the settings that passed the schema; a part with problems is absent, and with it the checks that need it. */
export type SoundParts = Partial<Settings>;

const LOOPBACK = /^(localhost|(.+\.)?localhost|127\.\d+\.\d+\.\d+|\[?::1\]?)$/;

export function isLoopback(host: string): boolean {
  return LOOPBACK.test(host.toLowerCase());
}

/** Every contradiction, in no particular order. `raw` serves for names that are there although their value is wrong. */
export function crossCheck(parts: SoundParts, raw: unknown): Finding[] {
  return [
    ...publicUrlFindings(parts),
    ...listenFindings(parts, raw),
    ...serverFindings(parts),
    ...providerFindings(parts),
    ...authorizationFindings(parts, raw),
    ...policyFindings(parts, raw),
    ...limitFindings(parts),
    ...approvalFindings(parts, raw),
    ...contractFindings(parts, raw),
    ...maskFindings(parts),
    ...fileFindings(parts),
  ];
}

function publicUrlFindings({ publicUrl, listen }: SoundParts): Finding[] {
  if (publicUrl === undefined) return [];
  const path = ["publicUrl"];
  const url = new URL(publicUrl);
  const findings: Finding[] = [];
  if (url.protocol === "http:" && !isLoopback(url.hostname) && listen?.allowInsecureHttp !== true) {
    findings.push({ path, message: "must be https, because tokens travel over it; plain http is for loopback" });
  }
  if (url.username !== "" || url.search !== "" || url.hash !== "")
    findings.push({ path, message: "must have no user, query or fragment" });
  if (listen?.port === 0)
    findings.push({ path, message: "cannot be set when listen.port is 0, because the port is not known beforehand" });
  return findings;
}

function listenFindings({ listen, publicUrl }: SoundParts, raw: unknown): Finding[] {
  if (listen === undefined) return [];
  const findings: Finding[] = [];
  const path = ["listen", "host"];
  const hasTls = valueAt(raw, ["tls"]) !== undefined;
  if (!isLoopback(listen.host)) {
    if (!hasTls && !listen.behindTlsProxy && !listen.allowInsecureHttp) {
      findings.push({
        path,
        message:
          "is not a loopback address: add tls, or set listen.behindTlsProxy (a proxy in front ends TLS), or, knowing that tokens can be read on the way, listen.allowInsecureHttp",
      });
    }
    if (valueAt(raw, ["publicUrl"]) === undefined)
      findings.push({ path, message: "is not a loopback address: set publicUrl to the address that clients use" });
  }
  if (listen.behindTlsProxy && publicUrl !== undefined && new URL(publicUrl).protocol !== "https:") {
    findings.push({ path: ["listen", "behindTlsProxy"], message: "needs a publicUrl that starts with https://" });
  }
  listen.allowedOrigins.forEach((origin, index) => {
    if (!URL.canParse(origin) || new URL(origin).origin !== origin) {
      findings.push({
        path: ["listen", "allowedOrigins", index],
        message: "expected an origin: scheme, host and port only, e.g. https://inspector.example",
      });
    }
  });
  return findings;
}

function serverFindings({ servers, authorization }: SoundParts): Finding[] {
  return Object.entries(servers ?? {}).flatMap(([name, server]): Finding[] => {
    if ("url" in server) {
      const url = new URL(server.url);
      const path = ["servers", name, "url"];
      if (url.username !== "")
        return [{ path, message: "must have no user or password; use headers with a ${secret:…} reference" }];
      if (url.protocol === "http:" && !isLoopback(url.hostname) && !server.allowInsecureHttp) {
        return [
          {
            path,
            message: `is plain http to a host that is not loopback: use https, or set servers.${name}.allowInsecureHttp`,
          },
        ];
      }
      return [
        ...credentialFindings(name, server, authorization),
        ...literalSecrets(["servers", name, "headers"], server.headers),
        ...userValueFindings(name, server.isolation, "userHeaders", server.userHeaders, server.headers),
      ];
    }
    if ("module" in server) return exchangeFindings(name, server, authorization);
    if (server.processes.min > server.processes.max) {
      return [
        {
          path: ["servers", name, "processes", "min"],
          message: `is greater than processes.max (${server.processes.max})`,
        },
      ];
    }
    return [
      ...exchangeFindings(name, server, authorization),
      ...literalSecrets(["servers", name, "environment"], server.environment),
      ...userValueFindings(name, server.isolation, "userEnvironment", server.userEnvironment, server.environment),
    ];
  });
}

/** `beside`: what has a value for everybody. */
function userValueFindings(
  name: string,
  isolation: Isolation,
  setting: "userEnvironment" | "userHeaders",
  values: Readonly<Record<string, UserValue>>,
  beside: Readonly<Record<string, unknown>>,
): Finding[] {
  const path = ["servers", name, setting];
  if (Object.keys(values).length > 0 && isolation === "shared") {
    return [
      {
        path,
        message: `needs servers.${name}.isolation: per-user (or per-session), because everybody shares the server otherwise`,
      },
    ];
  }
  const sameName = (one: string, other: string) =>
    setting === "userHeaders" ? one.toLowerCase() === other.toLowerCase() : one === other;
  const twice = Object.keys(values).filter((value) => Object.keys(beside).some((other) => sameName(value, other)));
  const literal = Object.entries(values).flatMap(([key, { otherwise }]) =>
    literalSecrets([...path, key], { [key]: otherwise }).map((finding) => ({
      ...finding,
      path: [...path, key, "otherwise"],
    })),
  );
  return [
    ...twice.map((key) => ({
      path: [...path, key],
      message: "has a value for everybody beside it; keep one of the two",
    })),
    ...literal,
  ];
}

function credentialFindings(
  name: string,
  { credentials, headers }: HttpServerSettings,
  authorization: SoundParts["authorization"],
): Finding[] {
  if (credentials === undefined) return [];
  const findings: Finding[] = [];
  const header = Object.keys(headers).find((candidate) => candidate.toLowerCase() === "authorization");
  if (header !== undefined) {
    findings.push({
      path: ["servers", name, "headers", header],
      message: "must go, because `credentials` puts a token for each caller there; two would be sent",
    });
  }
  const oauth = typeof credentials === "object" && "oauth" in credentials ? credentials.oauth : undefined;
  if (oauth !== undefined) return [...findings, ...oauthFindings(name, oauth, authorization)];
  return [...findings, ...exchangeFindings(name, { credentials }, authorization)];
}

function exchangeFindings(
  name: string,
  { credentials }: Pick<ServerSettings, "credentials">,
  authorization: SoundParts["authorization"],
): Finding[] {
  if (credentials === undefined || authorization === undefined || authorization.exchange !== undefined) return [];
  return [
    {
      path: ["servers", name, "credentials"],
      message: "needs authorization.exchange: what the gateway is called at the server that makes the tokens",
    },
  ];
}

function oauthFindings(
  name: string,
  { of, clientId, clientSecret, issuer, allowInsecureHttp }: UpstreamOAuthSettings,
  authorization: SoundParts["authorization"],
): Finding[] {
  const path = ["servers", name, "credentials", "oauth"];
  const findings: Finding[] = [];
  if (of === "per-user" && authorization !== undefined) {
    findings.push({
      path: [...path, "of"],
      message:
        "cannot be per-user beside authorization: people connect their accounts on pages that they are signed in to here, and there are none. Use operator, or let this gateway sign people in (signIn)",
    });
  }
  if (clientSecret !== undefined && clientId === undefined)
    findings.push({ path: [...path, "clientSecret"], message: "needs clientId, the client whose secret it is" });
  if (issuer !== undefined && new URL(issuer).protocol === "http:" && !isLoopback(new URL(issuer).hostname)) {
    if (!allowInsecureHttp)
      findings.push({ path: [...path, "issuer"], message: "must be https, or set allowInsecureHttp beside it" });
  }
  return findings;
}

function providerFindings({ signIn }: SoundParts): Finding[] {
  return Object.entries(signIn?.providers ?? {}).flatMap(([name, { issuer }]) =>
    issuerFindings(["signIn", "providers", name, "issuer"], issuer),
  );
}

/** Settings of the embedded server beside another one would be read as if they counted. */
function authorizationFindings({ authorization }: SoundParts, raw: unknown): Finding[] {
  if (authorization === undefined) return [];
  const unused = ["signIn", "clients", "tokens"].filter((name) => valueAt(raw, [name]) !== undefined);
  return [
    ...issuerFindings(["authorization", "issuer"], authorization.issuer),
    ...unused.map((name) => ({
      path: [name],
      message: `is not used beside authorization, where ${authorization.issuer} signs people in and issues the tokens: delete one of the two`,
    })),
  ];
}

function issuerFindings(path: SettingsPath, issuer: string): Finding[] {
  const url = new URL(issuer);
  // The addresses that are never anything else, whatever a resolver says.
  const here = ["localhost", "127.0.0.1", "[::1]"].includes(url.hostname);
  if (url.protocol !== "https:" && !here)
    return [
      { path, message: "must be https, because people are believed to be who it says; plain http is for loopback" },
    ];
  if (/[?#]/.test(issuer) || url.username !== "" || url.password !== "")
    return [{ path, message: "must have no user, query or fragment" }];
  return [];
}

const SECRET_NAME =
  /^(authorization|proxy-authorization|cookie)$|(^|[-_])(api[-_]?key|token|secret|password|passwd|credentials?|private[-_]?key|access[-_]?key)$/i;
const SECRET_VALUE =
  /^(bearer |basic )|^(sk|pk|rk|ghp|gho|ghs|ghu|glpat|xox[abprs]|AKIA|ya29|npm|hf|dckr_pat|github_pat|pat)[-_.]?[A-Za-z0-9_-]{12,}|-----BEGIN [A-Z ]*PRIVATE KEY|^eyJ[A-Za-z0-9_-]{10,}\.|:\/\/[^/\s:@]+:[^/\s:@]+@/i;

/** Whether a header or variable looks as if it held a secret, by its name or by its value. */
export function looksSecret(name: string, value: string): boolean {
  return (
    (SECRET_NAME.test(name) && value.trim() !== "" && !/^(true|false|\d{1,6})$/i.test(value)) ||
    SECRET_VALUE.test(value)
  );
}

/** Values that came from `${env:…}` are `Secret`s by now, so every text here was written in the file. */
function literalSecrets(path: SettingsPath, values: Readonly<Record<string, unknown>>): Finding[] {
  return Object.entries(values).flatMap(([name, value]) =>
    typeof value === "string" && looksSecret(name, value)
      ? [
          {
            path: [...path, name],
            message: `looks like a secret written into the file; write a reference such as \${secret:${name.toLowerCase().replaceAll("_", "-")}} or \${env:${name.toUpperCase().replaceAll("-", "_")}} instead, and change the secret if the file was shared`,
          },
        ]
      : [],
  );
}

function policyFindings({ roles, assign, shadowPolicy }: SoundParts, raw: unknown): Finding[] {
  const declared = valueAt(raw, ["roles"]);
  const known = isRecord(declared) ? Object.keys(declared) : ["owner"];
  return [
    ...roleFindings(["roles"], roles),
    ...assignFindings(["assign"], assign, known),
    ...roleFindings(["shadowPolicy", "roles"], shadowPolicy?.roles),
    ...assignFindings(["shadowPolicy", "assign"], shadowPolicy?.assign, Object.keys(shadowPolicy?.roles ?? {})),
  ];
}

/** Patterns and costs of limits; further scopes, and clients that have them. */
function limitFindings({ limits, stepUp, clients }: SoundParts): Finding[] {
  const tools = Object.entries(limits?.tools ?? {}).flatMap(([pattern, { cost }]) => [
    ...failing(["limits", "tools", pattern], () => readPattern(pattern)),
    ...(cost === undefined ? [] : failing(["limits", "tools", pattern, "cost"], () => compileCost(cost))),
  ]);
  const known: string[] = [...ALL_SCOPES, ...furtherScopes(stepUp).map(({ scope }) => scope)];
  const unknown = (path: SettingsPath, scopes: readonly string[] = []) =>
    scopes.flatMap((scope, index): Finding[] => {
      if (known.includes(scope)) return [];
      const message = `${JSON.stringify(scope)} is no scope; there are ${known.join(", ")} (\`stepUp\` makes further ones)`;
      return [{ path: [...path, index], message, suggestion: nearest(scope, known) }];
    });
  return [
    ...tools,
    ...Object.keys(stepUp ?? {}).flatMap((pattern) => failing(["stepUp", pattern], () => readPattern(pattern))),
    ...(clients?.preregistered ?? []).flatMap(({ service }, index) =>
      unknown(["clients", "preregistered", index, "service", "scopes"], service?.scopes),
    ),
    ...(clients?.workloads ?? []).flatMap(({ scopes }, index) =>
      unknown(["clients", "workloads", index, "scopes"], scopes),
    ),
  ];
}

function roleFindings(within: SettingsPath, roles: RolesSettings = {}): Finding[] {
  return Object.entries(roles).flatMap(([name, role]) => [
    ...ruleFindings([...within, name], role),
    ...(role.rules ?? []).flatMap((rule, index) => ruleFindings([...within, name, "rules", index], rule)),
  ]);
}

function ruleFindings(path: SettingsPath, { may, deny, when }: Pick<RoleRule, "may" | "deny" | "when">): Finding[] {
  const lists = Object.entries({ may, deny }).flatMap(([list, patterns]) =>
    patterns.flatMap((pattern, index) => failing([...path, list, index], () => readPattern(pattern))),
  );
  return [...lists, ...(when === undefined ? [] : failing([...path, "when"], () => compileCallCondition(when)))];
}

function assignFindings(within: SettingsPath, assign: AssignSettings = [], known: readonly string[]): Finding[] {
  return assign.flatMap((entry, index): Finding[] => {
    const path = [...within, index];
    const { role, when } = entry;
    const suggestion = known.includes(role) ? undefined : nearest(role, known);
    const unknown: Finding = {
      path: [...path, "role"],
      message: `there is no role ${JSON.stringify(role)}${suggestion === undefined ? `; known roles: ${known.join(", ")}` : ""}`,
      suggestion,
    };
    const nobody: Finding = {
      path,
      message: "names nobody; add group, user, client, claim or when ('true' for everyone who can sign in)",
    };
    return [
      ...(known.includes(role) ? [] : [unknown]),
      ...(namesNobody(entry) ? [nobody] : []),
      ...(when === undefined ? [] : failing([...path, "when"], () => compileUserCondition(when))),
    ];
  });
}

/** Runs after relative paths were resolved. */
function fileFindings({ tls, clients, servers, signIn, authorization }: SoundParts): Finding[] {
  const files: [SettingsPath, string | undefined][] = [
    [["tls", "certificate"], tls?.certificate],
    [["tls", "key"], tls?.key],
    [["clients", "metadataDocuments", "trustedCertificates"], clients?.metadataDocuments.trustedCertificates],
    [["signIn", "trustedCertificates"], signIn?.trustedCertificates],
    [["authorization", "trustedCertificates"], authorization?.trustedCertificates],
  ];
  const findings: Finding[] = files.flatMap(([path, file]) =>
    file === undefined || (existsSync(file) && statSync(file).isFile())
      ? []
      : [{ path, message: `there is no file ${file}` }],
  );
  for (const [name, server] of Object.entries(servers ?? {})) {
    if (!("command" in server) || server.cwd === undefined) continue;
    if (!existsSync(server.cwd) || !statSync(server.cwd).isDirectory())
      findings.push({ path: ["servers", name, "cwd"], message: `there is no folder ${server.cwd}` });
  }
  return findings;
}

/** One sentence for each insecure option that is on: those whose description in the schema starts with "Insecure:". */
export function insecureOptions(settings: Settings, schema: z.ZodType): string[] {
  const warnings: string[] = [];
  const visit = (value: unknown, path: SettingsPath) => {
    if (value === true) {
      const description =
        optionsOf(schemaAt(schema, path))[0]?.description ?? schemaAt(schema, path)?.description ?? "";
      if (description.startsWith("Insecure:")) warnings.push(`${path.join(".")} is on. ${description}`);
    } else if (Array.isArray(value)) for (const [index, one] of value.entries()) visit(one, [...path, index]);
    else if (isRecord(value)) for (const [key, one] of Object.entries(value)) visit(one, [...path, key]);
  };
  visit(settings, []);
  if (settings.clients.registration === "open")
    warnings.push(
      "clients.registration is open: anyone who reaches the gateway can register a client. Users still consent to each one.",
    );
  if (settings.lock.unsigned === "accept")
    warnings.push(
      "lock.unsigned is accept: a lockfile counts that no trusted key has signed, so whoever can write the file decides what is served.",
    );
  if (settings.store === "memory")
    warnings.push("store is memory: users, grants and audit records are gone when the gateway stops.");
  return warnings;
}
