/** A gateway in a process of its own, to be killed: `node killed-gateway.ts <settings as JSON> <lease in ms>` prints its address and a token. */
import { world } from "../e2e/world.ts";

const [settings = "{}", leaseMs] = process.argv.slice(2);
const one = await world(JSON.parse(settings) as Record<string, unknown>, { leaseMs: Number(leaseMs) });
const { access_token: token } = await one.tokens();
process.stdout.write(`${JSON.stringify({ url: one.url, token })}\n`);
