/** Servers over HTTP+SSE that break rules, behind a whole gateway; the table is in `upstreams.ts`. */
import { faults } from "./upstreams.ts";

faults("sse", "legacy");
