/** Servers over Streamable HTTP that break rules, behind a whole gateway; the table is in `upstreams.ts`. */
import { faults } from "./upstreams.ts";

faults("http", "legacy");
faults("http", "modern");
