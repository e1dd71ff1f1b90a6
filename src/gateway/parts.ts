/** What the pipeline works with: the parts of the gateway, and one request on its way. */
import type { ServerResponse } from "node:http";
import type { Journal } from "../audit/journal.ts";
import type { AuditSettings } from "../audit/settings.ts";
import type { Contract } from "../contract/contract.ts";
import type { Authenticated } from "../core/call.ts";
import type { Clock } from "../core/clock.ts";
import type { ServerInfo } from "../mcp/answers.ts";
import type { Headers, InboundRequest } from "../mcp/inbound.ts";
import type { Session } from "../mcp/sessions.ts";
import type { SourceOf } from "../net/source.ts";
import type { Authority } from "../oauth/authority.ts";
import type { Logger } from "../observe/logger.ts";
import type { Telemetry } from "../observe/telemetry.ts";
import type { Policy } from "../policy/engine.ts";
import type { Upstream, UpstreamIdentity } from "../upstream/upstream.ts";
import type { Approvals } from "./approvals/approvals.ts";
import type { CallRecord } from "./call-record.ts";
import type { Catalogue } from "./catalogue.ts";
import type { Answering } from "./exchange.ts";
import type { Flow } from "./flow.ts";
import type { Forwarding } from "./forwarding.ts";
import type { Interaction } from "./interaction.ts";
import type { Admission, Limits } from "./limits/limits.ts";
import type { Masking } from "./masking.ts";
import type { Resumption } from "./resume.ts";
import type { Sessions } from "./sessions.ts";
import type { ListenSettings } from "./settings.ts";
import type { Streams } from "./streams.ts";
import type { Tasks } from "./tasks.ts";

/** Everything the pipeline needs, made once by `gateway.ts`. */
export interface Parts {
  /** Proves who calls. */
  readonly verify: Authority["verify"];
  readonly policy: Policy;
  readonly catalogue: Catalogue;
  readonly upstreams: ReadonlyMap<string, Upstream>;
  /** Who the reachable upstreams said they are. */
  identities(): ReadonlyMap<string, UpstreamIdentity>;
  readonly limits: Pick<Limits, "enter">;
  readonly sessions: Sessions;
  readonly streams: Streams;
  readonly resumption: Resumption;
  readonly forwarding: Forwarding;
  /** What calls ask their clients. */
  readonly interaction: Interaction;
  /** What a call of a tool with steps is sent to: it gets the arguments as `sentUnder` makes them, and answers as clients are told. */
  readonly outcomes?: (asked: Asked, contract: Contract) => Upstream;
  /** Holds calls until a person has approved them. */
  readonly approvals?: Pick<Approvals, "over" | "wrote">;
  /** Keeps in mind what callers have read, for calls that send something outside. */
  readonly flow?: Pick<Flow, "heard">;
  /** What of answers, records and arguments is private. */
  readonly masking: Masking;
  /** What calls have made of themselves to be fetched later. */
  readonly tasks: Tasks;
  readonly journal: Journal;
  readonly telemetry: Telemetry;
  readonly log: Logger;
  readonly listen: ListenSettings;
  /** Where a request comes from, for records. */
  readonly sourceOf: SourceOf;
  readonly auditFields: Pick<AuditSettings, "arguments" | "results" | "maxFieldBytes">;
  readonly serverInfo: ServerInfo;
  /** URL of the RFC 9728 document, for challenges. */
  readonly resourceMetadataUrl: string;
  /** What tokens are wanted, for challenges. */
  readonly wanted: Authority["metadata"];
  /** Calls under way; the gateway waits for them when it stops. */
  readonly underWay: UnderWay;
  /** Names this process in records. */
  readonly replica: string;
  readonly clock: Clock;
}

/** Counts what is under way, so that the gateway can stop when nothing is. */
export interface UnderWay {
  begin(): void;
  end(): void;
  readonly count: number;
  /** Resolves when nothing is under way, or `deadline` aborts. */
  over(deadline: AbortSignal): Promise<void>;
}

/** One JSON-RPC request of a known caller, decoded and not yet decided about. */
export interface Asked {
  readonly by: Authenticated;
  readonly inbound: InboundRequest;
  readonly headers: Headers;
  /** The session of a legacy client that named one. */
  readonly session: Session | undefined;
  readonly record: CallRecord;
  /** What it may still have to be counted at. */
  readonly admission: Admission;
  readonly answering: Answering;
  readonly response: ServerResponse;
}
