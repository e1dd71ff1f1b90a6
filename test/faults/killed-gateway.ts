/** A gateway in a process of its own, to be killed: `node killed-gateway.ts <settings as JSON>` prints its address and a token. */
import { world } from "../e2e/world.ts";

const one = await world(JSON.parse(process.argv[2] ?? "{}") as Record<string, unknown>);
const { access_token: token } = await one.tokens();
process.stdout.write(`${JSON.stringify({ url: one.url, token })}\n`);
