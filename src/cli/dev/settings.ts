/**
 * Settings to try a server with: those that it has, but on loopback, forgotten at the end, sent nowhere, and with tokens of an issuer of
 * ours, so that one can be whoever one wants to be. What is enforced stays as it is written.
 */
import { basename, dirname } from "node:path";
import { settingsForModule } from "../../config/defaults.ts";
import { type LoadedSettings, loadSettings } from "../../config/load.ts";
import type { Environment } from "../../config/references.ts";
import type { Settings } from "../../config/schema.ts";
import type { JsonObject } from "../../core/call.ts";
import { Secret } from "../../core/secret.ts";
import { listenSettings } from "../../gateway/settings.ts";
import { authorizationSettings } from "../../oauth/settings.ts";
import { DEFAULT_ASSIGN, DEFAULT_ROLES } from "../../policy/engine.ts";
import type { AssignSettings, RolesSettings } from "../../policy/settings.ts";
import { loadModuleServer } from "../../upstream/module.ts";
import type { IssuerPlace, Role, Subject } from "./messages.ts";

export interface DevSettings {
  readonly loaded: LoadedSettings;
  /** What the page calls it. */
  readonly name: string;
  readonly roles: readonly Role[];
}

/** May everything that any rule can permit. Its name is in no settings file: it would be too long there. */
export const EVERYTHING = "drawbridge-dev-everything-of-this-server";

/** The client that a token names when its holder has a role by our saying so; an approver must not come through the one that asked. */
export const clientOf = (role: string, as: "caller" | "approver" = "caller") => `drawbridge-dev/${as}/${role}`;

/** Reads what is developed. Throws `settings_invalid` with every problem. */
export async function devSettings(
  subject: Subject,
  issuer: IssuerPlace,
  logLevel: string,
  env: Environment,
): Promise<DevSettings> {
  const loaded = "module" in subject ? await ofModule(subject.module, env) : await loadSettings(subject.file, { env });
  const { settings } = loaded;
  const written = settings.roles ?? DEFAULT_ROLES;
  const assigned = settings.assign ?? (Object.hasOwn(written, "owner") ? DEFAULT_ASSIGN : []);
  const roles: RolesSettings = { ...written, [EVERYTHING]: { may: ["*"], deny: [] } };
  const assign: AssignSettings = [
    ...assigned,
    ...Object.keys(roles).flatMap((role) => [
      { role, client: clientOf(role) },
      { role, client: clientOf(role, "approver") },
    ]),
  ];
  return {
    name: "module" in subject ? nameOf(settings) : basename(dirname(subject.file)) || nameOf(settings),
    roles: Object.keys(roles).map((role) => roleOf(role, assigned)),
    loaded: {
      ...loaded,
      // Nothing lies beside it, is followed, or is read again: a change makes a new version.
      file: undefined,
      reread: undefined,
      settings: { ...onLoopback(settings, issuer, logLevel), roles, assign },
    },
  };
}

async function ofModule(module: string, env: Environment): Promise<LoadedSettings> {
  // Whatever it says itself is judged by the settings below; here only who may approve is wanted.
  const { tools } = (await loadModuleServer(module)).contracts("server");
  const approvers = Object.values(tools).flatMap((tool) => {
    const approval = (tool as JsonObject)["approval"] as { readonly by?: readonly string[] } | string | undefined;
    return typeof approval === "object" ? (approval.by ?? []) : [];
  });
  const others = ["resource:*", "prompt:*"];
  const roles = {
    reader: { may: ["access:read", ...others] },
    writer: { may: ["access:read", "access:write", ...others] },
    ...Object.fromEntries([...new Set(approvers)].map((role) => [role, { may: ["*"] }])),
  };
  const assign = Object.keys(roles).map((role) => ({ role, group: role }));
  return settingsForModule(module, dirname(module), {
    env,
    overrides: { roles: { path: ["roles"], value: roles }, assign: { path: ["assign"], value: assign } },
  });
}

function onLoopback(settings: Settings, { issuer, clientId, clientSecret }: IssuerPlace, logLevel: string): Settings {
  const { maxBodyBytes, maxDepth } = settings.listen;
  return {
    ...without(settings, "publicUrl", "tls"),
    listen: { ...listenSettings.parse({}), port: 0, maxBodyBytes, maxDepth, shutdownSeconds: 5 },
    store: "memory",
    cache: "memory",
    authorization: authorizationSettings.parse({
      issuer,
      exchange: { clientId, clientSecret: new Secret(clientSecret) },
    }),
    // New definitions are what one is here for; those that read like an attack are held back all the same.
    lock: { ...without(settings.lock, "file"), keys: [] },
    audit: { ...without(settings.audit, "keep"), export: [], whenUnavailable: "refuse" },
    control: { socket: "off", watch: false },
    telemetry: without(settings.telemetry, "otlpEndpoint"),
    log: { level: logLevel as Settings["log"]["level"], format: "text" },
  };
}

/** Whom the settings give the role to, so that conditions on groups and users hold as they will. */
function roleOf(name: string, assigned: AssignSettings): Role {
  const mine = assigned.filter(({ role }) => role === name);
  const { group, user } =
    mine.find((one) => one.group !== undefined) ?? mine.find((one) => one.user !== undefined) ?? {};
  return {
    name,
    title: name === EVERYTHING ? "Everything" : name,
    subject: user ?? "dev",
    groups: group === undefined ? [] : [group],
  };
}

const nameOf = ({ servers }: Settings) => Object.keys(servers).join(", ");

function without<T extends object, K extends keyof T>(value: T, ...keys: readonly K[]): Omit<T, K> {
  const dropped: ReadonlySet<PropertyKey> = new Set(keys);
  return Object.fromEntries(Object.entries(value).filter(([key]) => !dropped.has(key))) as Omit<T, K>;
}
