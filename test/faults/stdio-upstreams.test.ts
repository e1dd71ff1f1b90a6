/** Servers over stdio that break rules, behind a whole gateway; the table is in `upstreams.ts`. */
import { faults } from "./upstreams.ts";

faults("stdio", "legacy");
faults("stdio", "modern");
