/**
 * Records as events of the Open Cybersecurity Schema Framework 1.9. The text of the record is in `raw_data`, and the attestation of the
 * profile `record_integrity` is the hash chain over those texts: whoever has two events can check that one follows the other.
 */
import { leafHash } from "../merkle.ts";
import type { StoredRecord } from "../record.ts";
import type { Formatted } from "./formats.ts";

export const OCSF_VERSION = "1.9.0";

type Json = { readonly [key: string]: unknown };

/** What an event is: its class, and what is special to that. */
interface Mapped {
  readonly category: number;
  readonly class: number;
  readonly activity: number;
  readonly attributes: Json;
}

export function ocsfEvent(made: Formatted): Json {
  const { record, json, sequence, source } = made;
  const { category, class: classUid, activity, attributes } = MAPPINGS[record.kind](record);
  const start = Date.parse(record.at);
  const whole = Math.round(record.durationMs);
  const { chain, trace, error, decision, call } = record;
  const happened = record.action ?? call?.method ?? record.kind;
  return clean({
    activity_id: activity,
    activity_name: activity === OTHER ? happened : undefined,
    category_uid: category,
    class_uid: classUid,
    type_uid: classUid * 100 + activity,
    time: start,
    start_time: start,
    end_time: start + whole,
    duration: whole,
    ...SEVERITIES[record.outcome],
    status_id: record.outcome === "permitted" ? 1 : record.outcome === "abandoned" ? OTHER : 2,
    status: record.outcome,
    status_code: error?.code,
    status_detail: error?.message ?? decision?.reason,
    message: [happened, call?.name, record.outcome].filter((word) => word !== undefined).join(" "),
    metadata: {
      version: OCSF_VERSION,
      product: { name: "Drawbridge", vendor_name: "Drawbridge", uid: record.replica, url_string: source },
      uid: chain === undefined ? record.id : eventUid(chain.id, chain.n),
      original_event_uid: record.id,
      original_time: record.at,
      event_code: happened,
      log_name: "audit",
      log_provider: "Drawbridge",
      log_version: String(record.v),
      sequence,
      correlation_uid: trace?.traceId,
      profiles: [
        ...(chain === undefined ? [] : ["record_integrity"]),
        "security_control",
        ...(classUid === API_ACTIVITY && trace !== undefined ? ["trace"] : []),
      ],
    },
    ...controlOf(record),
    attestation_list: chain === undefined ? undefined : [attestation(json, chain)],
    raw_data: json,
    ...attributes,
  });
}

/** The one of an event that a record became: its place in its chain. */
const eventUid = (chain: string, n: number) => `${chain}:${n}`;

function attestation(json: string, { id, n, prev }: NonNullable<StoredRecord["chain"]>): Json {
  return {
    uid: eventUid(id, n),
    authority_uid: `drawbridge:${id}`,
    chain_uid: id,
    fingerprint: fingerprint(leafHash(json)),
    prev_event: n === 0 ? undefined : { uid: eventUid(id, n - 1), fingerprint: fingerprint(prev) },
  };
}

function fingerprint(value: string): Json {
  return {
    algorithm_id: 3,
    algorithm: "SHA-256",
    encoding_id: 3,
    encoding: "Base64URL",
    serialization_id: OTHER,
    serialization: "RFC 9162 leaf of raw_data: a byte 0x00 and its UTF-8",
    value,
  };
}

/** The profile `security_control`. */
function controlOf({ outcome, decision, policy }: StoredRecord): Json {
  const denied = outcome === "refused";
  const named = clean({ name: decision?.rule, uid: decision?.rule, version: policy });
  return {
    action_id: denied ? 2 : outcome === "permitted" ? 1 : 3,
    action: denied ? "Denied" : outcome === "permitted" ? "Allowed" : "Observed",
    disposition_id: denied ? 2 : outcome === "permitted" ? 1 : outcome === "failed" ? 27 : 17,
    disposition: denied ? "Blocked" : outcome === "permitted" ? "Allowed" : outcome === "failed" ? "Error" : "Logged",
    is_alert: false,
    authorizations:
      decision === undefined
        ? undefined
        : [clean({ decision: decision.effect, policy: decision.rule === undefined ? undefined : named })],
    policy: decision?.rule === undefined ? undefined : named,
  };
}

const OTHER = 99;
const API_ACTIVITY = 6003;
const SEVERITIES = {
  permitted: { severity_id: 1, severity: "Informational" },
  abandoned: { severity_id: 1, severity: "Informational" },
  refused: { severity_id: 2, severity: "Low" },
  failed: { severity_id: 3, severity: "Medium" },
} as const;

const MAPPINGS: Readonly<Record<StoredRecord["kind"], (record: StoredRecord) => Mapped>> = {
  call: (record) => ({
    category: 6,
    class: API_ACTIVITY,
    activity: callActivity(record),
    attributes: callAttributes(record),
  }),
  "sign-in": (record) => authentication(record, activityOf(record, SESSIONS)),
  token: (record) => authentication(record, OTHER),
  consent: (record) => userManagement(record, activityOf(record, CONSENTS)),
  user: (record) => userManagement(record, activityOf(record, USERS)),
  client: (record) => entityManagement(record, "OAuth client", record.principal?.client, activityOf(record, CLIENTS)),
  approval: (record) =>
    entityManagement(record, "approval", textIn(record, "number"), activityOf(record, { "approval-asked": 1 })),
  configuration: (record) => entityManagement(record, "configuration", textIn(record, "server") ?? record.action, 3),
  audit: (record) => ({
    category: 1,
    class: 1008,
    activity: activityOf(record, { "audit.chain-started": 6, "audit.retired": 2, "audit.erased": 2 }),
    attributes: {
      log_name: "audit",
      log_provider: "Drawbridge",
      actor: actorOf(record),
      unmapped: unmappedOf(record),
    },
  }),
};

const SESSIONS = { "signed-in": 1, "sign-in-failed": 1, "signed-out": 2, "sessions-ended": 2 };
const CONSENTS = { "consent-granted": 14, "server-connected": 18, "server-disconnected": 19 };
const USERS = { "user-created": 1, "user-changed": 2, "password-changed": 8 };
const CLIENTS = { "client-registered": 1, "client-changed": 3, "client-administered": 3 };

/** The activity of its action, by the class's numbers. */
function activityOf({ action = "" }: StoredRecord, activities: Readonly<Record<string, number>>): number {
  return Object.hasOwn(activities, action) ? (activities[action] ?? OTHER) : OTHER;
}

/** Whether a tool reads or changes is not in its record, so only what the protocol says is told. */
function callActivity({ call }: StoredRecord): number {
  return /\/(list|get|read|templates\/list)$/.test(call?.method ?? "") ? 2 : OTHER;
}

function callAttributes(record: StoredRecord): Json {
  const { call, principal, trace, result, error } = record;
  const start = Date.parse(record.at);
  const end = start + Math.round(record.durationMs);
  const operation = call?.method ?? "unknown";
  return {
    actor: actorOf(record),
    src_endpoint: sourceOf(record),
    dst_endpoint: call?.server === undefined ? undefined : { svc_name: call.server, type_id: 1 },
    api: clean({
      operation: call?.name === undefined ? operation : `${operation} ${call.name}`,
      version: call?.revision,
      service: call?.server === undefined ? undefined : { name: call.server },
      request: clean({
        uid: call?.requestId === undefined ? record.id : String(call.requestId),
        data: record.arguments,
      }),
      response: clean({
        error: error?.code,
        error_message: error?.message,
        flags: result?.isError === true ? ["isError"] : undefined,
        data: result === undefined ? undefined : result,
      }),
    }),
    resources:
      call?.name === undefined
        ? undefined
        : [clean({ name: call.name, uid: call.pin, type: call.kind, role_id: 1, namespace: call.server })],
    trace:
      trace === undefined
        ? undefined
        : { uid: trace.traceId, span: { uid: trace.spanId, start_time: start, end_time: end } },
    unmapped: unmappedOf(record, {
      upstream_name: call?.upstreamName,
      upstream_token: call?.upstreamTokenId,
      audience: call?.audience,
      scopes: principal?.scopes,
      actors: principal?.actors,
      shadow: record.decision?.shadow,
    }),
  };
}

function authentication(record: StoredRecord, activity: number): Mapped {
  const { principal } = record;
  return {
    category: 3,
    class: 3002,
    activity,
    attributes: {
      user: userOf(record),
      actor: actorOf(record),
      src_endpoint: sourceOf(record),
      service: { name: "Drawbridge" },
      auth_protocol_id: 6,
      auth_protocol: "OAUTH 2.0",
      is_remote: true,
      session: principal?.grant === undefined ? undefined : { uid: principal.grant },
      unmapped: unmappedOf(record, { scopes: principal?.scopes }),
    },
  };
}

function userManagement(record: StoredRecord, activity: number): Mapped {
  return {
    category: 3,
    class: 3007,
    activity,
    attributes: {
      user: userOf(record),
      actor: actorOf(record),
      src_endpoint: sourceOf(record),
      privileges: some(record.principal?.scopes),
      unmapped: unmappedOf(record),
    },
  };
}

function entityManagement(record: StoredRecord, type: string, name: string | undefined, activity: number): Mapped {
  const uid = name === undefined || name === "" ? record.id : name;
  return {
    category: 3,
    class: 3004,
    activity,
    attributes: {
      entity: { name: uid, uid, type, type_id: OTHER },
      actor: actorOf(record),
      src_endpoint: sourceOf(record),
      unmapped: unmappedOf(record),
    },
  };
}

function userOf({ principal }: StoredRecord): Json {
  const { subject = "", groups = [] } = principal ?? {};
  if (subject === "") return { uid: "unknown", type_id: 0 };
  return clean({ uid: subject, type_id: 1, groups: some(groups.map((name) => ({ name }))) });
}

function actorOf(record: StoredRecord): Json {
  const { principal, replica } = record;
  const { subject = "", client = "", grant } = principal ?? {};
  return clean({
    user: subject === "" ? undefined : userOf(record),
    app_uid: client !== "" ? client : subject === "" ? replica : undefined,
    session: grant === undefined ? undefined : { uid: grant },
  });
}

/** An address is about a person, so it may be sealed; the client is known all the same. */
function sourceOf({ source, principal, replica }: StoredRecord): Json {
  const client = principal?.client;
  const name = client === undefined || client === "" ? replica : client;
  return clean({ ip: source, svc_name: name, uid: name });
}

/** What no attribute of the class is for. */
function unmappedOf(record: StoredRecord, more: Json = {}): Json {
  return clean({
    drawbridge: clean({
      kind: record.kind,
      action: record.action,
      details: record.details,
      sealed: record.sealed,
      ...more,
    }),
  });
}

function textIn({ details }: StoredRecord, key: string): string | undefined {
  const value = details?.[key];
  return typeof value === "string" ? value : undefined;
}

function some<T>(values: readonly T[] | undefined): readonly T[] | undefined {
  return values === undefined || values.length === 0 ? undefined : values;
}

function clean(json: Json): Json {
  return Object.fromEntries(Object.entries(json).filter(([, value]) => value !== undefined));
}
