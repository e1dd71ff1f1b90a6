/** The list of MCP servers that may be in the settings of clients: read, written, and compared with what is there. */
import { parseDocument, stringify } from "yaml";
import { z } from "zod";
import { DrawbridgeError } from "../core/errors.ts";

const FORMAT = 1;
const MAX_SERVERS = 10_000;
const entry = z.strictObject({
  /** The client it may be in; left out: any. */
  client: z.string().min(1).optional(),
  server: z.string().min(1),
  /** For readers of the file. */
  runs: z.string(),
  fingerprint: z.string().regex(/^[0-9a-f]{32}$/, "a fingerprint has 32 hexadecimal digits"),
});
const file = z.strictObject({
  drawbridgeApproved: z.literal(FORMAT),
  servers: z.array(entry).max(MAX_SERVERS),
});

export type Approved = z.infer<typeof entry>;
/** A server that was found. */
export type FoundServer = Required<Approved>;
/** `new`: nobody approved it. `changed`: one of this name was, and it runs something else now. */
export type Approval = "approved" | "new" | "changed";

/** Reads a list. `name` is what messages call it. Throws `settings_invalid`. */
export function readApproved(text: string, name: string): readonly Approved[] {
  const document = parseDocument(text, { uniqueKeys: true, prettyErrors: false });
  const read = document.errors.length > 0 ? undefined : file.safeParse(document.toJS({ maxAliasCount: 0 }));
  if (read?.success === true) return read.data.servers;
  const why = read === undefined ? (document.errors[0]?.message ?? "") : z.prettifyError(read.error);
  throw new DrawbridgeError("settings_invalid", `The list of approved servers ${name} is not valid:\n${why}`);
}

/** Sorted, so that a change shows as what it is. */
export function writeApproved(servers: readonly Approved[]): string {
  const key = ({ client = "", server, fingerprint }: Approved) => `${client}\n${server}\n${fingerprint}`;
  const sorted = [...new Map(servers.map((one) => [key(one), one])).values()].sort((one, other) =>
    key(one) < key(other) ? -1 : 1,
  );
  const head = [
    "# MCP servers that may be in the settings of clients: drawbridge discover --approved <this file>",
    "# `client` may be left out: then the server may be in any. `runs` is for readers, the fingerprint is compared.",
  ];
  return `${head.join("\n")}\n${stringify({ drawbridgeApproved: FORMAT, servers: sorted }, { lineWidth: 0 })}`;
}

export interface Compared {
  /** In the order of what was found. */
  readonly approvals: readonly Approval[];
  /** Approved, and no longer there. */
  readonly gone: readonly Approved[];
}

export function compareApproved(found: readonly FoundServer[], approved: readonly Approved[]): Compared {
  const about = (one: Approved, { client, server }: FoundServer) =>
    (one.client ?? client) === client && one.server === server;
  return {
    approvals: found.map((one): Approval => {
      const known = approved.filter((other) => about(other, one));
      if (known.some(({ fingerprint }) => fingerprint === one.fingerprint)) return "approved";
      return known.length > 0 ? "changed" : "new";
    }),
    gone: approved.filter((one) => !found.some((other) => about(one, other))),
  };
}
