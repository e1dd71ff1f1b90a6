/** `drawbridge doctor --trail`: how far real clients came at a gateway of ours. */
import { DrawbridgeError } from "../../core/errors.ts";
import { readTrails, type Seen, type Trail, wayOf } from "../../oauth/trail.ts";
import { columns, type OfficeOptions, openOffice, table } from "../office.ts";
import { type Painter, painter, printable, type Terminal } from "../terminal.ts";

/** All trails, the last step of each; or one client's whole way. `wanted`: id, beginning of it, name, or a network address. */
export function showTrails(wanted: string | undefined, options: OfficeOptions, terminal: Terminal): Promise<void> {
  const paint = painter(terminal.stdout, terminal.env);
  return openOffice(options, terminal, "look", async ({ administration, records, show }) => {
    const [trails, clients] = await Promise.all([readTrails(records), administration.clients.list()]);
    const names = new Map(clients.map(({ id, name }) => [id, name]));
    if (wanted === undefined) {
      const named = trails.map((trail) => ({ name: nameOf(trail, names), ...trail }));
      return show(named, trails.length === 0 ? [NOBODY] : overview(trails, names, terminal, paint));
    }
    const steps = stepsOf(wanted, trails, names);
    show(steps, [
      ...columns(steps.map((seen) => row(seen))).map((line, at) => painted(line, steps[at], paint)),
      ...verdict(steps, paint),
    ]);
  });
}

const NOBODY = "No client has come by within the last day.";

function stepsOf(wanted: string, trails: readonly Trail[], names: ReadonlyMap<string, string>): readonly Seen[] {
  const known = trails.flatMap(({ client }) => client ?? []);
  const exact = known.filter((client) => client === wanted);
  const near = known.filter((client) => client.startsWith(wanted) || names.get(client) === wanted);
  const [client, ...more] = exact.length > 0 ? exact : near;
  if (more.length > 0)
    throw new DrawbridgeError(
      "invalid_request",
      `${near.length} clients fit ${wanted}: ${near.slice(0, 5).join(", ")}. Write more of the id.`,
    );
  if (client !== undefined) return wayOf(client, trails);
  const from = trails.flatMap(({ steps }) => steps).filter(({ source }) => source === wanted);
  if (from.length > 0) return from.toSorted((a, b) => a.at - b.at);
  throw new DrawbridgeError(
    "not_found",
    `Nothing of ${wanted} was seen within the last day. \`drawbridge doctor --trail\` shows who was.`,
  );
}

function overview(trails: readonly Trail[], names: ReadonlyMap<string, string>, terminal: Terminal, paint: Painter) {
  const last = trails.map(({ steps }) => steps.at(-1));
  const rows = trails.map((trail, at) => {
    const seen = last[at];
    return [time(seen), seen?.ok === true ? "✓" : "✗", seen?.step ?? "", nameOf(trail, names), seen?.said ?? ""];
  });
  const [head = "", ...lines] = table(["LAST SEEN", " ", "STEP", "WHO", "WHAT"], rows, terminal);
  return [head, ...lines.map((line, at) => painted(line, last[at], paint))];
}

function nameOf({ client, steps }: Trail, names: ReadonlyMap<string, string>): string {
  if (client === undefined) return `(not known yet) ${steps.at(-1)?.source ?? ""}`;
  const name = names.get(client) ?? "";
  return name === "" ? client : `${name} (${client})`;
}

function row(seen: Seen): readonly string[] {
  const { step, ok, said = "", status, times, source } = seen;
  const often = times > 1 ? `${times} times` : "";
  return [time(seen), ok ? "✓" : "✗", step, source, status === undefined ? "" : String(status), often, said];
}

function time(seen: Seen | undefined): string {
  return new Date(seen?.at ?? 0).toISOString().slice(0, 19).replace("T", " ");
}

function painted(line: string, seen: Seen | undefined, paint: Painter): string {
  return seen?.ok === false ? paint("red", line) : line;
}

/** What its last failure was, unless it has gone on since. */
function verdict(steps: readonly Seen[], paint: Painter): readonly string[] {
  const last = steps.at(-1);
  if (last === undefined) return [];
  if (last.ok) return ["", paint("green", `Its last step, ${last.step}, went well.`)];
  return ["", paint("red", printable(`It stopped at ${last.step}: ${last.said ?? `status ${last.status}`}`, 500))];
}
